//go:build linux

package client

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// Scopes speaks to the node about mandatory scopes.
type Scopes struct {
	c  *Client
	id wire.Identity
}

// DialScopes asks the node behind the socket who it is.
func DialScopes(ctx context.Context, socket string) (*Scopes, error) {
	c := &Client{socket: socket}
	a, err := c.ask(ctx, &wire.Request{Hello: &struct{}{}})
	if err != nil {
		return nil, err
	}
	if a.Hello == nil || len(a.Hello.PublicKey) != ed25519.PublicKeySize || exeq.KeyID(a.Hello.PublicKey) != a.Hello.Audience.Node {
		return nil, fmt.Errorf("%w: the node does not say who it is", wire.ErrProtocol)
	}
	return &Scopes{c, *a.Hello}, nil
}

// Node is the node's key id, PublicKey its key.
func (s *Scopes) Node() string                 { return s.id.Audience.Node }
func (s *Scopes) PublicKey() ed25519.PublicKey { return s.id.PublicKey }

// Declare hands a statement over that is on record.
func (s *Scopes) Declare(ctx context.Context, envelope []byte, on *exeq.ScopeRecord) error {
	_, err := s.c.ask(ctx, &wire.Request{Declare: &wire.Declare{Envelope: envelope, Record: on}})
	return err
}

// List gives the scopes that concern whoever asks.
func (s *Scopes) List(ctx context.Context) ([]wire.HeldScope, error) {
	a, err := s.c.ask(ctx, &wire.Request{Scopes: &struct{}{}})
	if err != nil {
		return nil, err
	}
	return a.Scopes, nil
}

// Report gives what the node saw in a scope; its signature is verified.
func (s *Scopes) Report(ctx context.Context, of exeq.Scope) (*exeq.ScopeReport, error) {
	a, err := s.c.ask(ctx, &wire.Request{Report: &of})
	if err != nil {
		return nil, err
	}
	if a.Report == nil || a.Report.Scope != of || a.Report.Node != s.Node() {
		return nil, fmt.Errorf("%w: a report of something else", wire.ErrProtocol)
	}
	return a.Report, permit.VerifySigned(s.id.PublicKey, a.Report.Signable, a.Report.Signature)
}

// Open opens a scope to everything for a time (0 ms: closes it), and gives what
// the node has recorded of that.
func (s *Scopes) Open(ctx context.Context, o wire.Open) (*exeq.Opening, error) {
	a, err := s.c.ask(ctx, &wire.Request{Open: &o})
	if err != nil {
		return nil, err
	}
	if len(a.Openings) != 1 {
		return nil, fmt.Errorf("%w: no opening", wire.ErrProtocol)
	}
	return &a.Openings[0], s.verify(&a.Openings[0])
}

// Openings gives what was opened after the opening with the id, the oldest
// first; empty: since ever. There may be more.
func (s *Scopes) Openings(ctx context.Context, after string) ([]exeq.Opening, error) {
	a, err := s.c.ask(ctx, &wire.Request{Openings: &wire.Openings{After: after}})
	if err != nil {
		return nil, err
	}
	for i := range a.Openings {
		if err := s.verify(&a.Openings[i]); err != nil {
			return nil, err
		}
	}
	return a.Openings, nil
}

func (s *Scopes) verify(o *exeq.Opening) error {
	if o.Node != s.Node() {
		return fmt.Errorf("%w: an opening of another node", wire.ErrProtocol)
	}
	return permit.VerifySigned(s.id.PublicKey, o.Signable, o.Signature)
}
