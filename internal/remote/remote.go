// Package remote assembles the flow of an execution that a server decides about,
// records and renews, and that is enforced here. It holds no logic of the flow.
package remote

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api"
	"github.com/exeq/exeq/attest"
	"github.com/exeq/exeq/client"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/policy"
)

// askAgain is how long a server that was not reached is left alone.
const askAgain = 100 * time.Millisecond

// Here is the enforcing side: its key and its burn list.
type Here struct {
	Audience exeq.Audience
	Public   ed25519.PublicKey // of Key
	Key      exeq.Signer
	Burner   permit.Burner
}

// server is what a Governor asks of the server, for one execution. Safe for
// concurrent use.
type server struct {
	*client.Client
	here   Here
	issuer ed25519.PublicKey
	log    *slog.Logger

	mu    sync.Mutex
	set   *policy.Set
	told  time.Time // when the server last said that set is in force
	actor string
}

// Governor is the flow of one execution under a server. The server's keys are
// asked for first; from then on signatures count, not the connection.
func Governor(ctx context.Context, c *client.Client, here Here, e exeq.Enforcer, log *slog.Logger) (*exeq.Governor, error) {
	keys, err := c.Keys(ctx)
	if err != nil {
		return nil, err
	}
	promise, err := note.NewVerifier(keys.Promise)
	if err != nil {
		return nil, fmt.Errorf("the server's promise key: %w", err)
	}
	s := &server{Client: c, here: here, issuer: keys.Issuer, log: log}
	admitter, err := permit.NewAdmitter(permit.AdmitterConfig{
		Issuer: s.issuer, Promise: promise, Audience: here.Audience, Tier: e.Tier(), Burner: here.Burner,
	})
	if err != nil {
		return nil, err
	}
	return &exeq.Governor{
		Policies: s, Issuer: s, Recorder: recorder{s}, Authority: s,
		Admitter: admitter, Enforcer: e, Appraiser: attest.Appraiser{},
		IssuerKey: signer{s}, NodeKey: here.Key,
		Actor: func(exeq.Entity) string { return s.known() }, Revocations: s.revocations,
		Log: log, Tick: exeq.DefaultTick, Lease: exeq.DefaultLease,
	}, nil
}

func (s *server) known() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor
}

// Authorize implements [exeq.Authority].
func (s *server) Authorize(ctx context.Context, r *exeq.Request, t exeq.Tier) (*exeq.Authorization, error) {
	a, err := s.Client.Authorize(ctx, &api.Ask{Audience: s.here.Audience, Key: s.here.Public, Request: r, Tier: t})
	if err != nil {
		return nil, err
	}
	out := &exeq.Authorization{ID: a.Execution, Decision: a.Decision, Record: a.Record, Rights: a.Rights}
	if !a.Decision.Verdict.Permits() {
		out.Decision.Reason = a.Reason
		return out, fmt.Errorf("%w by the server: %s", exeq.ErrDenied, a.Reason)
	}
	if a.Record == nil || a.Rights == nil {
		return nil, errors.New("the server permits without a record or rights")
	}
	if out.Permit, err = exeq.ParsePermit(a.Permit); err != nil {
		return nil, fmt.Errorf("the server's permit: %w", err)
	}
	leaf, err := exeq.ParseLeaf(a.Record.Leaf)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.actor = leaf.Actor
	s.mu.Unlock()
	return out, nil
}

// Active implements [exeq.PolicySource]: the server's set, as long as the server
// says that it is in force. A server that cannot be reached for less than a lease
// has not changed its mind.
func (s *server) Active(ctx context.Context) (exeq.Decider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var have exeq.Digest
	if s.set != nil {
		have = s.set.PolicySet()
	}
	p, err := s.Policy(ctx, have)
	if err == nil && p != nil {
		s.set, err = load(p)
	}
	switch {
	case err == nil:
		s.told = time.Now()
	case s.set == nil || client.Answered(err) || time.Since(s.told) > exeq.DefaultLease:
		return nil, err
	}
	return s.set, nil
}

func load(p *api.Policy) (*policy.Set, error) {
	src, err := policy.DecodeSource(p.Source)
	if err != nil {
		return nil, err
	}
	set, err := policy.Load(src)
	if err == nil && set.PolicySet() != p.PolicySet {
		err = errors.New("the server's policy set is not the one that it names")
	}
	return set, err
}

// Issue implements [exeq.Issuer]: permits come with the server's decision.
func (s *server) Issue(string, *exeq.Request, *exeq.Inputs, *exeq.Decision, *exeq.Rights, string) (*exeq.Permit, error) {
	return nil, errors.New("permits are the server's to issue")
}

// Renew implements [exeq.Issuer]. A server that is not reached is asked again as
// long as its answer could be worth something; one that refuses is not.
func (s *server) Renew(id string, sequence uint64, challenge string, period time.Duration) (exeq.Renewal, error) {
	ctx, cancel := context.WithTimeout(context.Background(), period)
	defer cancel()
	for {
		r, err := s.Client.Renew(ctx, &api.Renew{Permit: id, Sequence: sequence, Challenge: challenge, Millis: period.Milliseconds()})
		if err == nil {
			return *r, nil
		}
		if client.Answered(err) {
			return exeq.Renewal{}, err
		}
		select {
		case <-ctx.Done():
			return exeq.Renewal{}, err
		case <-time.After(askAgain):
		}
	}
}

// Revoke implements [exeq.Issuer].
func (s *server) Revoke(string, string, exeq.Time) (exeq.Revocation, error) {
	return exeq.Revocation{}, errors.New("revocations are the server's to issue")
}

// revocations hands on what the issuer signed, and nothing else.
func (s *server) revocations(ctx context.Context, id string) <-chan exeq.Revocation {
	ch := make(chan exeq.Revocation, 1)
	go func() {
		for ctx.Err() == nil {
			v, err := s.Revocation(ctx, id)
			if err == nil && v != nil {
				if err = permit.CheckRevocation(s.issuer, id, *v); err == nil {
					ch <- *v
					return
				}
			}
			if err != nil {
				if ctx.Err() == nil {
					s.log.Warn("revocations cannot be asked for; the lease ends by itself", "err", err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(exeq.DefaultTick):
				}
			}
		}
	}()
	return ch
}

// recorder implements [exeq.Recorder] where the record is the server's.
type recorder struct{ s *server }

// Record implements [exeq.Recorder].
func (r recorder) Record(ctx context.Context, entries ...exeq.Entry) ([]exeq.Promise, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	l := &api.Leaves{}
	for _, e := range entries {
		l.Entries = append(l.Entries, api.Entry{Leaf: e.Bytes, Disclosures: e.Disclosures})
	}
	p, err := r.s.Client.Record(ctx, l)
	if err == nil && len(p.Promises) != len(entries) {
		err = fmt.Errorf("%d promises for %d leaves", len(p.Promises), len(entries))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exeq.ErrRecord, err)
	}
	return p.Promises, nil
}

// signer is the issuer's key where trust ends. What it cannot have signed carries
// no signature, and is not recorded.
type signer struct{ s *server }

// KeyID implements [exeq.Signer].
func (k signer) KeyID() string { return exeq.KeyID(k.s.issuer) }

// Sign implements [exeq.Signer].
func (k signer) Sign(message []byte) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), exeq.MaxMergeDelay)
	defer cancel()
	out, err := k.s.Client.Sign(ctx, &api.Sign{Message: message})
	if err != nil {
		k.s.log.Warn("the server did not sign the end of trust", "err", err)
		return nil
	}
	return out.Signature
}
