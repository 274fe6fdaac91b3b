package permit

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// MaxScopeWindow bounds the time in which a scope's statement may be handed
// over, and so how long whoever carries it can hold it back.
const MaxScopeWindow = time.Hour

// SignScope signs a statement of a scope, valid from now for the window, and
// gives its envelope and what it says. It is inert until it is on record.
func SignScope(key exeq.Signer, body exeq.ScopeBody, now time.Time, window time.Duration) ([]byte, *exeq.ScopeBody, error) {
	if window <= 0 || window > MaxScopeWindow {
		return nil, nil, fmt.Errorf("%w: a window of %v", ErrWindow, window)
	}
	body.Version, body.ID = 1, exeq.NewID()
	body.NotBefore, body.NotAfter = exeq.At(now), exeq.At(now.Add(window))
	if body.Policies == nil {
		body.Policies = []string{}
	}
	if err := body.Validate(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", exeq.ErrPermit, err)
	}
	s, err := exeq.NewScopeStatement(&body)
	if err != nil {
		return nil, nil, err
	}
	payload, err := canon.Marshal(s)
	if err != nil {
		return nil, nil, err
	}
	e := envelope(payload, key.KeyID(), key.Sign(pae(exeq.StatementPayload, payload)))
	if len(e) > exeq.MaxScopeBytes {
		return nil, nil, fmt.Errorf("%w: %d bytes are over the limit of %d", exeq.ErrPermit, len(e), exeq.MaxScopeBytes)
	}
	return e, &body, nil
}

// VerifyScope verifies a statement that is on record: signature, promise, node.
// It does not look at the window: see ScopeInWindow.
func VerifyScope(issuer ed25519.PublicKey, promise note.Verifier, node string, envelope []byte, on *exeq.ScopeRecord) (*exeq.ScopeBody, error) {
	body, payload, signed, err := exeq.ParseScope(envelope)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if signed.KeyID != exeq.KeyID(issuer) || !verify(issuer, pae(exeq.StatementPayload, payload), signed.Sig) {
		return nil, ErrSignature
	}
	if body.Node != node {
		return nil, ErrAudience
	}
	if w := body.NotAfter.Sub(body.NotBefore.Time); w <= 0 || w > MaxScopeWindow {
		return nil, fmt.Errorf("%w: %v", ErrWindow, w)
	}
	return body, scopeOnRecord(body, envelope, on, promise)
}

// ScopeInWindow says whether the statement may be handed over now.
func ScopeInWindow(b *exeq.ScopeBody, now time.Time) error {
	switch {
	case now.Add(MaxSkew).Before(b.NotBefore.Time):
		return ErrEarly
	case !now.Before(b.NotAfter.Time):
		return ErrExpired
	}
	return nil
}

// scopeOnRecord verifies that a promised leaf commits to this very statement.
func scopeOnRecord(b *exeq.ScopeBody, envelope []byte, on *exeq.ScopeRecord, key note.Verifier) error {
	if on == nil {
		return ErrUnrecorded
	}
	leaf, err := exeq.ParseLeaf(on.Leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	var committed string
	if err := json.Unmarshal(on.Scope.Value, &committed); err != nil || committed != string(envelope) {
		return fmt.Errorf("%w: the leaf commits to another statement", ErrUnrecorded)
	}
	have, there := leaf.Commitments["scope"]
	opened, err := on.Scope.Digest()
	switch {
	case leaf.Kind != exeq.KindScope || leaf.Body.Event != string(b.Mode):
		return fmt.Errorf("%w: its leaf tells of something else", ErrUnrecorded)
	case on.Scope.Leaf != leaf.ID || on.Scope.Field != "scope" || err != nil || !there || have != opened:
		return fmt.Errorf("%w: the leaf does not commit to it", ErrUnrecorded)
	}
	at, err := CheckPromise(key, &on.Promise, on.Leaf)
	if err != nil {
		return err
	}
	if at.Before(b.NotBefore.Add(-MaxSkew)) || at.After(b.NotAfter.Add(exeq.MaxClockStepBack)) {
		return fmt.Errorf("%w: the promise is of %s, not of the statement's window", ErrUnrecorded, at)
	}
	return nil
}

// VerifySigned verifies what a node signed of scopes.
func VerifySigned(node ed25519.PublicKey, signable func() ([]byte, error), sig string) error {
	msg, err := signable()
	if err != nil {
		return err
	}
	if raw, err := base64.StdEncoding.Strict().DecodeString(sig); err != nil || len(node) != ed25519.PublicKeySize || !ed25519.Verify(node, msg, raw) {
		return ErrSignature
	}
	return nil
}
