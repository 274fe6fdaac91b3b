package permit

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Issuer implements [exeq.Issuer]. Safe for concurrent use.
type Issuer struct{ c IssuerConfig }

// NewIssuer refuses a configuration whose permits no one could admit.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	if c.Window == 0 {
		c.Window = exeq.DefaultPermitWindow
	}
	if c.Lease == 0 {
		c.Lease = exeq.DefaultLease
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.Key == nil:
		return nil, errors.New("permit: an issuer needs a key")
	case c.Audience.Node == "" || c.Audience.BootID == "" || c.Audience.Epoch == "":
		return nil, errors.New("permit: the audience needs node, boot id and epoch")
	case c.Window < 0 || c.Window > MaxWindow:
		return nil, fmt.Errorf("permit: a window of %v is not within 0 and %v", c.Window, MaxWindow)
	case c.Lease < MinLease || c.Lease > MaxLease:
		return nil, fmt.Errorf("permit: a lease of %v is not within %v and %v", c.Lease, MinLease, MaxLease)
	}
	return &Issuer{c}, nil
}

// Issue implements [exeq.Issuer]. The decision must permit.
func (i *Issuer) Issue(id string, r *exeq.Request, in *exeq.Inputs, d *exeq.Decision, rights *exeq.Rights, parent string) (*exeq.Permit, error) {
	if !d.Verdict.Permits() {
		return nil, fmt.Errorf("%w: verdict %q yields no permit", exeq.ErrDenied, d.Verdict)
	}
	from, err := exeq.NewGrounds(r, in, rights)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exeq.ErrPermit, err)
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	now := i.c.Now()
	body := exeq.PermitBody{
		Version: 1, ID: id, Subject: r.Subject, OnBehalfOf: r.OnBehalfOf, Action: r.Action, Resource: r.Resource,
		Audience: i.c.Audience, NotBefore: exeq.At(now), NotAfter: exeq.At(now.Add(i.c.Window)),
		LeaseMillis: i.c.Lease.Milliseconds(), Nonce: hex.EncodeToString(nonce[:]), MaxUses: 1,
		PolicySet: d.PolicySet, Policies: d.Policies, Obligations: d.Obligations,
		InputsDigest: from.Inputs, RightsDigest: from.Rights, TierFloor: rights.TierFloor, Parent: parent,
	}
	if body.Policies == nil {
		body.Policies = []string{}
	}
	if i.c.Checkpoint != nil {
		body.Checkpoint = i.c.Checkpoint()
	}
	p, err := i.sign(from.Action, body)
	if err == nil {
		p.Grounds = from
	}
	return p, err
}

func statement(action exeq.Digest, body *exeq.PermitBody) *exeq.Statement {
	return &exeq.Statement{
		Type: exeq.StatementType, PredicateType: exeq.PermitPredicate, Predicate: *body,
		Subject: []exeq.StatementSubject{{Name: "action", Digest: exeq.StatementSums{SHA256: action}}},
	}
}

// scratch holds buffers for what is signed, which nobody keeps.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// appendPAE appends DSSE's pre-authentication encoding. The library that has it brings the
// whole of x/crypto/ssh along, which every start of exeq would pay for; the
// suite has strangers verify what is signed here.
func appendPAE(b []byte, payloadType string, payload []byte) []byte {
	b = strconv.AppendInt(append(b, "DSSEv1 "...), int64(len(payloadType)), 10)
	b = append(append(append(b, ' '), payloadType...), ' ')
	b = append(strconv.AppendInt(b, int64(len(payload)), 10), ' ')
	return append(b, payload...)
}

func pae(payloadType string, payload []byte) []byte { return appendPAE(nil, payloadType, payload) }

// envelope writes the canonical form of an [exeq.Envelope]; nothing in it needs
// an escape.
func envelope(payload []byte, keyID string, sig []byte) []byte {
	b := make([]byte, 0, base64.StdEncoding.EncodedLen(len(payload))+len(keyID)+256)
	b = append(b, `{"payload":"`...)
	b = base64.StdEncoding.AppendEncode(b, payload)
	b = append(b, `","payloadType":"`+exeq.StatementPayload+`","signatures":[{"keyid":"`...)
	b = append(append(b, keyID...), `","sig":"`...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	return append(b, `"}]}`...)
}

func (i *Issuer) sign(action exeq.Digest, body exeq.PermitBody) (*exeq.Permit, error) {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	b, err := canon.Append((*s)[:0], statement(action, &body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exeq.ErrPermit, err)
	}
	n := len(b)
	b = appendPAE(b, exeq.StatementPayload, b)
	if cap(b) <= exeq.MaxPermitBytes {
		*s = b
	}
	sig := i.c.Key.Sign(b[n:])
	envelope := envelope(b[:n], i.c.Key.KeyID(), sig)
	if len(envelope) > exeq.MaxPermitBytes {
		return nil, fmt.Errorf("%w: %d bytes are over the limit of %d", exeq.ErrPermit, len(envelope), exeq.MaxPermitBytes)
	}
	return &exeq.Permit{Envelope: envelope, Action: action, Body: body}, nil
}

// Renew implements [exeq.Issuer].
func (i *Issuer) Renew(permit string, sequence uint64, challenge string, period time.Duration) (exeq.Renewal, error) {
	if period < MinLease || period > i.c.Lease {
		return exeq.Renewal{}, fmt.Errorf("%w: a renewal of %v is not within %v and the lease of %v", exeq.ErrPermit, period, MinLease, i.c.Lease)
	}
	n := exeq.Renewal{Permit: permit, Sequence: sequence, Challenge: challenge, Millis: period.Milliseconds(), Key: i.c.Key.KeyID()}
	msg, err := n.Signable()
	if err != nil {
		return exeq.Renewal{}, fmt.Errorf("%w: renewal: %w", exeq.ErrPermit, err)
	}
	n.Signature = base64.StdEncoding.EncodeToString(i.c.Key.Sign(msg))
	return n, nil
}

// Revoke implements [exeq.Issuer].
func (i *Issuer) Revoke(permit, reason string, at exeq.Time) (exeq.Revocation, error) {
	v := exeq.Revocation{Permit: permit, Reason: reason, Time: at, Key: i.c.Key.KeyID()}
	msg, err := v.Signable()
	if err != nil {
		return exeq.Revocation{}, fmt.Errorf("%w: revocation: %w", exeq.ErrPermit, err)
	}
	v.Signature = base64.StdEncoding.EncodeToString(i.c.Key.Sign(msg))
	return v, nil
}
