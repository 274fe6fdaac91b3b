package server

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/record"
)

// waitForRevocation is how long a caller waits for one in one message.
const waitForRevocation = 20 * time.Second

// executions are what runs elsewhere under permits of an installation.
type executions struct {
	in     *standalone.Installation
	issuer exeq.Issuer
	log    *slog.Logger
	ending chan struct{} // closed when the server ends: nobody waits on

	mu   sync.Mutex
	live map[string]*remote
}

// remote is one execution elsewhere.
type remote struct {
	mu   sync.Mutex // held while its chain grows
	key  ed25519.PublicKey
	seq  int // of the last leaf; hash is its
	hash exeq.Digest
	runs bool      // its start is on record
	over bool      // its end is
	last time.Time // when its lease was renewed, or it began
}

// api registers what runs elsewhere needs.
func (s *Server) api() {
	x := s.executions
	s.post(api.PathAuthorize, exeq.MaxAPIBytes, func(ctx context.Context, body []byte) (any, error) {
		return decoded(body, func(a *api.Ask) (any, error) { return x.authorize(ctx, a) })
	})
	s.post(api.PathRecord, exeq.MaxAPIBytes, func(ctx context.Context, body []byte) (any, error) {
		return decoded(body, func(l *api.Leaves) (any, error) { return x.record(ctx, l) })
	})
	s.post(api.PathSign, exeq.MaxAPIBytes, func(ctx context.Context, body []byte) (any, error) {
		return decoded(body, func(m *api.Sign) (any, error) { return x.sign(ctx, m) })
	})
	s.post(api.PathRenew, exeq.MaxAPIBytes, func(ctx context.Context, body []byte) (any, error) {
		return decoded(body, func(r *api.Renew) (any, error) { return x.renew(ctx, r) })
	})
	s.get(api.PathKeys, func(*http.Request) (any, error) { return x.keys(), nil })
	s.get(api.PathPolicy, x.policy)
	s.get(api.PathRevocation, x.revocation)
	s.get(api.PathProof, func(r *http.Request) (any, error) {
		b, err := x.in.Proof(r.Context(), r.PathValue("execution"))
		return json.RawMessage(b), missing(err)
	})
	s.get(api.PathTrust, func(r *http.Request) (any, error) {
		t, err := x.in.Trust(r.Context())
		if err != nil {
			return nil, err
		}
		b, err := t.Encode()
		return json.RawMessage(b), err
	})
}

// decoded reads a message strictly.
func decoded[T any](body []byte, f func(*T) (any, error)) (any, error) {
	v := new(T)
	if err := canon.Decode(body, v, canon.Limits{Bytes: exeq.MaxAPIBytes, Depth: exeq.MaxDepth}); err != nil {
		return nil, bad(err)
	}
	return f(v)
}

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure{http.StatusNotFound, "no such execution is on record"}
	}
	return err
}

func refused(format string, args ...any) error {
	return failure{http.StatusForbidden, fmt.Sprintf(format, args...)}
}

func (x *executions) keys() api.Keys {
	return api.Keys{Issuer: x.in.Keys.Public(exeq.RoleIssuer), Promise: x.in.Keys.VerifierKey(exeq.RolePromise)}
}

// policy gives the active set, unless the caller has it.
func (x *executions) policy(r *http.Request) (any, error) {
	set, err := x.in.ActiveSet(r.Context())
	if err != nil {
		return nil, err
	}
	if r.Header.Get("If-None-Match") == `"`+set.PolicySet().String()+`"` {
		return nil, failure{http.StatusNotModified, ""}
	}
	source, err := set.Source().Canonical()
	return api.Policy{PolicySet: set.PolicySet(), Source: source}, err
}

// authorize gives a permit to a node, whose key is on record before it.
func (x *executions) authorize(ctx context.Context, a *api.Ask) (any, error) {
	switch {
	case a.Request == nil:
		return nil, bad(errors.New("request: is missing"))
	case a.Request.Action != exeq.ActionRun:
		return nil, bad(fmt.Errorf("request.action: permits are for run, not for %q", a.Request.Action))
	case len(a.Key) != ed25519.PublicKeySize || exeq.KeyID(a.Key) != a.Audience.Node:
		return nil, bad(errors.New("key: is not the key that audience.node names"))
	case a.Audience.BootID == "" || a.Audience.Epoch == "":
		return nil, bad(errors.New("audience: needs bootId and epoch"))
	}
	if err := a.Request.Validate(); err != nil {
		return nil, bad(err)
	}
	if err := x.in.Know(ctx, a.Key); err != nil {
		return nil, err
	}
	inputs := exeq.Inputs{Tier: a.Tier, Time: exeq.At(time.Now()), Session: exeq.Session{Labels: []string{}}}
	given, err := x.in.Authorize(ctx, a.Audience, a.Request, inputs)
	switch {
	case errors.Is(err, exeq.ErrDenied):
		d := given.Decision
		d.Verdict = denial(d.Verdict)
		return api.Answer{Execution: given.ID, Decision: d, Reason: err.Error()}, nil
	case err != nil:
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.live[given.ID] = &remote{key: slices.Clone(a.Key), hash: exeq.LeafHash(given.Record.Leaf), last: time.Now()}
	return api.Answer{Execution: given.ID, Decision: given.Decision, Permit: given.Permit.Envelope, Record: given.Record, Rights: given.Rights}, nil
}

// find gives an execution that this server permitted, also before it was started
// anew: then from the record.
func (x *executions) find(ctx context.Context, id string) (*remote, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r, ok := x.live[id]; ok {
		return r, nil
	}
	leaves, err := x.in.Store.Leaves(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := x.reread(ctx, leaves)
	if err != nil {
		return nil, err
	}
	x.live[id] = r
	return r, nil
}

// reread makes an execution of its leaves.
func (x *executions) reread(ctx context.Context, leaves []record.Stored) (*remote, error) {
	if len(leaves) == 0 || leaves[0].Leaf.Kind != exeq.KindPermit {
		return nil, failure{http.StatusNotFound, "no such execution is on record"}
	}
	p, err := standalone.PermitOf(leaves)
	if err != nil {
		return nil, err
	}
	if p.Body.Audience.Node == exeq.KeyID(x.in.Keys.Public(exeq.RoleNode)) {
		return nil, refused("the execution runs at the server itself, which holds it alone")
	}
	last := leaves[len(leaves)-1]
	r := &remote{
		seq: last.Leaf.Seq, hash: exeq.LeafHash(last.Bytes), last: time.Now(),
		runs: slices.ContainsFunc(leaves, func(l record.Stored) bool { return l.Leaf.Kind == exeq.KindStart }),
		over: last.Leaf.Kind == exeq.KindEnd || last.Leaf.Kind == exeq.KindDenial,
	}
	known, err := x.in.Store.Foundations(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range known {
		if k.Leaf.Kind != exeq.KindKey || k.Leaf.Body.Role != exeq.RoleNode {
			continue
		}
		if pub, err := base64.StdEncoding.DecodeString(k.Leaf.Body.PublicKey); err == nil && len(pub) == ed25519.PublicKeySize && exeq.KeyID(pub) == p.Body.Audience.Node {
			r.key = pub
		}
	}
	if r.key == nil {
		return nil, fmt.Errorf("the key of the permit's audience is not on record")
	}
	return r, nil
}

// record takes the next leaves of an execution's chain: what its node signed, and
// of the issuer what sign signed.
func (x *executions) record(ctx context.Context, l *api.Leaves) (any, error) {
	if len(l.Entries) == 0 || len(l.Entries) > exeq.MaxEvaluations {
		return nil, bad(fmt.Errorf("entries: want 1 to %d", exeq.MaxEvaluations))
	}
	entries := make([]exeq.Entry, len(l.Entries))
	for i, e := range l.Entries {
		leaf, err := exeq.ParseLeaf(e.Leaf)
		if err != nil {
			return nil, bad(fmt.Errorf("entries[%d].leaf: %w", i, err))
		}
		entries[i] = exeq.Entry{Leaf: *leaf, Bytes: e.Leaf, Disclosures: e.Disclosures}
		if err := opens(&entries[i]); err != nil {
			return nil, bad(fmt.Errorf("entries[%d]: %w", i, err))
		}
		if leaf.Execution != entries[0].Leaf.Execution {
			return nil, bad(fmt.Errorf("entries[%d].leaf: is of another execution", i))
		}
	}
	r, err := x.find(ctx, entries[0].Leaf.Execution)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seq, hash, runs, over := r.seq, r.hash, r.runs, r.over
	for i := range entries {
		leaf := &entries[i].Leaf
		switch {
		case over:
			return nil, refused("entries[%d].leaf: the end of the execution is on record", i)
		case leaf.Seq != seq+1 || leaf.Prev != hash:
			return nil, refused("entries[%d].leaf: does not continue the execution's chain", i)
		}
		if err := x.signed(leaf, entries[i].Bytes, r.key); err != nil {
			return nil, refused("entries[%d].leaf: %v", i, err)
		}
		seq, hash, over = leaf.Seq, exeq.LeafHash(entries[i].Bytes), leaf.Kind == exeq.KindEnd || leaf.Kind == exeq.KindDenial
		runs = runs || leaf.Kind == exeq.KindStart
	}
	promises, err := x.in.Store.Record(ctx, entries...)
	if err != nil {
		// Their fate is not known: what is on record says where the chain stands.
		x.forget(entries[0].Leaf.Execution)
		return nil, err
	}
	if runs && !r.runs {
		r.last = time.Now()
	}
	r.seq, r.hash, r.runs, r.over = seq, hash, runs, over
	if over {
		x.forget(entries[0].Leaf.Execution)
	}
	return api.Promises{Promises: promises}, nil
}

func (x *executions) forget(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.live, id)
}

// opens checks that disclosures open the leaf's own commitments, each once.
func opens(e *exeq.Entry) error {
	seen := map[string]bool{}
	for _, d := range e.Disclosures {
		sum, err := d.Digest()
		if err != nil || d.Leaf != e.Leaf.ID || seen[d.Field] || sum != e.Leaf.Commitments[d.Field] {
			return fmt.Errorf("disclosures: %.40q does not open the leaf", d.Field)
		}
		seen[d.Field] = true
	}
	if len(seen) != len(e.Leaf.Commitments) {
		return errors.New("disclosures: some commitment is not opened")
	}
	return nil
}

// signed checks who signed a leaf: the permit's audience what it numbers, the
// issuer what ends trust.
func (x *executions) signed(l *exeq.Leaf, exact []byte, node ed25519.PublicKey) error {
	key := node
	switch l.Kind {
	case exeq.KindStart, exeq.KindActivity, exeq.KindAppraisal, exeq.KindEnd:
	case exeq.KindRevoke, exeq.KindDenial:
		key = x.in.Keys.Public(exeq.RoleIssuer)
	default:
		return fmt.Errorf("a leaf of kind %q is not an execution's to write", l.Kind)
	}
	msg, err := l.SignableOf(exact)
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(l.Signature)
	if err != nil || l.Key != exeq.KeyID(key) || len(sig) != ed25519.SignatureSize || !ed25519.Verify(key, msg, sig) {
		return errors.New("is not signed by the key that it should be signed by")
	}
	return nil
}

// sign puts the issuer's name to the end of trust in an execution, and to nothing
// else: to a revocation or a denial that continues the chain of one.
func (x *executions) sign(ctx context.Context, m *api.Sign) (any, error) {
	leaf, err := exeq.ParseSignable(m.Message)
	if err != nil {
		return nil, bad(err)
	}
	if leaf.Kind != exeq.KindRevoke && leaf.Kind != exeq.KindDenial {
		return nil, refused("message: the issuer signs revocations and denials here, not %q", leaf.Kind)
	}
	key := x.in.Keys.Signer(exeq.RoleIssuer)
	r, err := x.find(ctx, leaf.Execution)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if leaf.Key != key.KeyID() || r.over || leaf.Seq <= r.seq {
		return nil, refused("message: does not continue the chain of an execution that runs")
	}
	return api.Signed{Signature: key.Sign(m.Message)}, nil
}

// renew gives the next part of a lease, unless the execution was revoked or is
// over. That what runs there is as it should be is its node's to say, by asking.
func (x *executions) renew(ctx context.Context, n *api.Renew) (any, error) {
	r, err := x.find(ctx, n.Permit)
	if err != nil {
		return nil, err
	}
	if v, err := x.in.Revocation(n.Permit); err != nil || v != nil {
		return nil, refused("permit: it was revoked")
	}
	r.mu.Lock()
	over := r.over
	r.last = time.Now()
	r.mu.Unlock()
	if over {
		return nil, refused("permit: the end of its execution is on record")
	}
	renewal, err := x.issuer.Renew(n.Permit, n.Sequence, n.Challenge, time.Duration(n.Millis)*time.Millisecond)
	if err != nil {
		return nil, bad(err)
	}
	return renewal, nil
}

// revocation waits for one, for a while.
func (x *executions) revocation(r *http.Request) (any, error) {
	id := r.PathValue("execution")
	if _, err := x.find(r.Context(), id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), waitForRevocation)
	defer cancel()
	select {
	case v := <-x.in.Revocations(ctx, id):
		return v, nil
	case <-ctx.Done():
		return nil, failure{http.StatusNoContent, ""}
	case <-x.ending:
		return nil, failure{http.StatusNoContent, ""}
	}
}
