package permit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Admitter implements [exeq.Admitter]. Safe for concurrent use.
type Admitter struct {
	c     AdmitterConfig
	keyID string

	mu     sync.Mutex
	leases map[string]int64 // admitted permit → its lease, until CheckRenewal takes it
}

// NewAdmitter refuses a configuration that could not check everything.
func NewAdmitter(c AdmitterConfig) (*Admitter, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case len(c.Issuer) != ed25519.PublicKeySize:
		return nil, errors.New("permit: an admitter needs the issuer's public key")
	case c.Promise == nil:
		return nil, errors.New("permit: an admitter needs the promise key")
	case c.Burner == nil:
		return nil, errors.New("permit: an admitter needs a burn list")
	case c.Audience.Node == "" || c.Audience.BootID == "" || c.Audience.Epoch == "":
		return nil, errors.New("permit: the audience needs node, boot id and epoch")
	}
	return &Admitter{c: c, keyID: exeq.KeyID(c.Issuer), leases: map[string]int64{}}, nil
}

// Admit implements [exeq.Admitter]. What costs nothing to undo comes first:
// the nonce is burnt only when nothing else speaks against the permit, and the
// window is looked at again afterwards, since a burn may wait for a disk.
func (a *Admitter) Admit(ctx context.Context, p *exeq.Permit, on *exeq.PermitRecord, r *exeq.Request, rights *exeq.Rights) error {
	if p == nil || on == nil || r == nil || rights == nil {
		return fmt.Errorf("%w: permit, record, request and rights are all needed", ErrMalformed)
	}
	if err := a.signed(p); err != nil {
		return err
	}
	b := &p.Body
	if b.Audience != a.c.Audience {
		return ErrAudience
	}
	if err := a.inWindow(b); err != nil {
		return err
	}
	if b.LeaseMillis < MinLease.Milliseconds() || b.LeaseMillis > MaxLease.Milliseconds() {
		return fmt.Errorf("%w: %d ms", ErrLease, b.LeaseMillis)
	}
	if err := a.bound(p, r, rights); err != nil {
		return err
	}
	if err := onRecord(p, on, a.c.Promise, a.c.Now()); err != nil {
		return err
	}
	switch err := a.c.Burner.Burn(ctx, b.ID, b.Nonce, b.NotAfter); {
	case errors.Is(err, exeq.ErrReplayed):
		return fmt.Errorf("%w: %w", ErrUsed, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnburnt, err)
	}
	if err := a.inWindow(b); err != nil {
		return err
	}
	a.mu.Lock()
	a.leases[b.ID] = b.LeaseMillis
	a.mu.Unlock()
	return nil
}

// signed verifies the envelope and that p says what the envelope does: the
// payload must be the one canonical spelling of p's action and body.
func (a *Admitter) signed(p *exeq.Permit) error {
	read, err := exeq.ParsePermit(p.Envelope)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var e exeq.Envelope
	if err := json.Unmarshal(p.Envelope, &e); err != nil {
		return ErrMalformed
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return ErrMalformed
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return fmt.Errorf("%w: the signature is not base64", ErrMalformed)
	}
	if e.Signatures[0].KeyID != a.keyID {
		return fmt.Errorf("%w: signed by key %.16q…", ErrSignature, e.Signatures[0].KeyID)
	}
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(a.c.Issuer, pae(e.PayloadType, payload), sig) {
		return ErrSignature
	}
	for _, q := range []*exeq.Permit{read, p} {
		want, err := canon.Marshal(statement(q.Action, &q.Body))
		if err != nil || !bytes.Equal(want, payload) {
			return fmt.Errorf("%w: the permit and its envelope say different things", ErrMalformed)
		}
	}
	return nil
}

func (a *Admitter) inWindow(b *exeq.PermitBody) error {
	now := a.c.Now()
	switch window := b.NotAfter.Sub(b.NotBefore.Time); {
	case window <= 0 || window > MaxWindow:
		return fmt.Errorf("%w: %v", ErrWindow, window)
	case now.Add(MaxSkew).Before(b.NotBefore.Time):
		return fmt.Errorf("%w: before %s, now %s", ErrEarly, b.NotBefore, exeq.At(now))
	case !now.Before(b.NotAfter.Time):
		return fmt.Errorf("%w: at %s, now %s", ErrExpired, b.NotAfter, exeq.At(now))
	}
	return nil
}

// bound recomputes what the permit binds from what is about to be done.
func (a *Admitter) bound(p *exeq.Permit, r *exeq.Request, rights *exeq.Rights) error {
	b := &p.Body
	if err := r.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrAction, err)
	}
	action, err := r.ActionDigest()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAction, err)
	}
	if action != p.Action || b.Subject != r.Subject || b.Action != r.Action || b.Resource != r.Resource || !slices.Equal(b.OnBehalfOf, r.OnBehalfOf) {
		return ErrAction
	}
	digest, err := rights.Digest()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRights, err)
	}
	if digest != b.RightsDigest {
		return ErrRights
	}
	if floor := max(b.TierFloor, rights.TierFloor); a.c.Tier < floor || a.c.Tier == exeq.TierNone {
		return fmt.Errorf("%w: this is %s, the floor is %s", ErrTier, a.c.Tier, floor)
	}
	return nil
}

// CheckRenewal implements [exeq.Admitter]. It takes the permit's lease: it is
// called once for a permit that was admitted here; any other permit gets a
// check that refuses everything.
func (a *Admitter) CheckRenewal(permit string) func(exeq.Renewal) error {
	a.mu.Lock()
	lease, admitted := a.leases[permit]
	delete(a.leases, permit)
	a.mu.Unlock()
	var mu sync.Mutex
	var last uint64
	begun := false
	return func(n exeq.Renewal) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !admitted:
			return fmt.Errorf("%w: permit %.40q was not admitted here", ErrRenewal, permit)
		case n.Permit != permit:
			return fmt.Errorf("%w: for another permit", ErrRenewal)
		case n.Key != a.keyID:
			return fmt.Errorf("%w: not signed by the issuer", ErrRenewal)
		case n.Challenge == "":
			return fmt.Errorf("%w: answers no challenge", ErrRenewal)
		case n.Millis <= 0 || n.Millis > lease:
			return fmt.Errorf("%w: %d ms are not within the permit's lease of %d ms", ErrRenewal, n.Millis, lease)
		case begun && n.Sequence <= last:
			return fmt.Errorf("%w: sequence %d does not rise above %d", ErrRenewal, n.Sequence, last)
		}
		msg, err := n.Signable()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRenewal, err)
		}
		if !verify(a.c.Issuer, msg, n.Signature) {
			return fmt.Errorf("%w: its signature does not verify", ErrRenewal)
		}
		begun, last = true, n.Sequence
		return nil
	}
}

// CheckRevocation verifies a revocation of a permit by the issuer.
func CheckRevocation(issuer ed25519.PublicKey, permit string, v exeq.Revocation) error {
	switch {
	case len(issuer) != ed25519.PublicKeySize || v.Key != exeq.KeyID(issuer):
		return fmt.Errorf("%w: not signed by the issuer", ErrRevocation)
	case v.Permit != permit:
		return fmt.Errorf("%w: of another permit", ErrRevocation)
	}
	msg, err := v.Signable()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRevocation, err)
	}
	if !verify(issuer, msg, v.Signature) {
		return fmt.Errorf("%w: its signature does not verify", ErrRevocation)
	}
	return nil
}

func verify(key ed25519.PublicKey, msg []byte, sig string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(sig)
	return err == nil && len(raw) == ed25519.SignatureSize && ed25519.Verify(key, msg, raw)
}
