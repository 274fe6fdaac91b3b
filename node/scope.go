//go:build linux

package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// scopes are the mandatory scopes that the node holds. What is in force is in
// the kernel and outlives the node; why it is, is in the statements in dir.
type scopes struct {
	n   *Node
	dir string
	top string // of the cgroup hierarchy

	mu     sync.Mutex
	kernel *bpf.Scopes // nil: on this boot there was none yet
	held   map[exeq.Scope]*scope
	// lost is what the kernel holds and no statement speaks of, or only one that
	// is older. It stays as it is until a newer statement comes.
	lost   map[bpf.Scope]bpf.Rule
	signed map[exeq.Digest]rehearsed // reports that were given out
	hooks  error                     // why the hooks are not whole
}

// scope is one of them, or (mode lift) what was lifted: its serial stays.
type scope struct {
	kept   keptScope
	body   *exeq.ScopeBody
	at     bpf.Scope // in the kernel; zero: it is nowhere
	until  time.Duration
	alive  *life // as the kernel has it
	faults []string
	report *report
}

// rehearsed is what a report said that was signed.
type rehearsed struct {
	scope exeq.Scope
	time  time.Duration
}

func newScopes(n *Node) *scopes {
	return &scopes{n: n, dir: filepath.Join(n.c.State, "scopes"), held: map[exeq.Scope]*scope{}, lost: map[bpf.Scope]bpf.Rule{}, signed: map[exeq.Digest]rehearsed{}}
}

func (s *scope) active() bool { return s.body.Mode != exeq.ScopeLift }

// rule is what the kernel is to hold.
func (s *scope) rule() bpf.Rule {
	return bpf.Rule{Serial: s.body.Serial, Enforce: s.body.Mode == exeq.ScopeEnforce, OpenUntil: s.until}
}

// declare takes a statement, whoever brings it: durable first, in force second,
// and seen to bite.
func (s *scopes) declare(d *wire.Declare) error {
	body, _, signature, err := exeq.ParseScope(d.Envelope)
	if err != nil {
		return fmt.Errorf("%w: %w", permit.ErrMalformed, err)
	}
	t, err := s.issuer(signature.KeyID)
	if err != nil {
		return err
	}
	if body, err = permit.VerifyScope(t.issuer, t.promise, s.n.id.audience.Node, d.Envelope, d.Record); err != nil {
		return err
	}
	if err := permit.ScopeInWindow(body, s.n.burnt.clock()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := &scope{body: body, kept: keptScope{1, t.issuer, t.key, d.Envelope, d.Record}}
	was := s.held[body.Scope]
	if err := s.follows(was, fresh); err != nil {
		return err
	}
	var alive *life
	if fresh.active() {
		if alive, err = s.live(body); err != nil {
			return err
		}
		if len(alive.faults) > 0 {
			return fmt.Errorf("%w: %s", wire.ErrScopeLife, strings.Join(alive.faults, "; "))
		}
	}
	fresh.report = nextReport(was, fresh)
	if err := s.write(fresh); err != nil {
		return err
	}
	s.held[body.Scope] = fresh
	if was != nil {
		fresh.at = was.at
	}
	s.n.log.Warn("scope", "scope", body.Scope, "mode", body.Mode, "serial", body.Serial, "issuer", signature.KeyID)
	if err := s.apply(fresh, alive); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	return s.prove(fresh)
}

// issuer gives the one with the key, if it may declare scopes.
func (s *scopes) issuer(keyID string) (*trusted, error) {
	all, err := readTrust(s.n.c.Trust)
	if err != nil {
		s.n.log.Error("no scope is taken", "err", err)
		return nil, wire.ErrScopeIssuer
	}
	for _, t := range all {
		if t.scopes && exeq.KeyID(t.issuer) == keyID {
			return t, nil
		}
	}
	return nil, wire.ErrScopeIssuer
}

// follows says whether a statement may take the place of what there is.
func (s *scopes) follows(was, fresh *scope) error {
	b := fresh.body
	if was != nil {
		if was.body.Serial >= b.Serial {
			return fmt.Errorf("%w: serial %d, there is %d", wire.ErrScopeSerial, b.Serial, was.body.Serial)
		}
		// Another issuer's scope is his to change, as long as anything is believed
		// that he signs.
		if key := exeq.KeyID(was.kept.Issuer); was.active() && key != exeq.KeyID(fresh.kept.Issuer) {
			all, err := readTrust(s.n.c.Trust)
			if err != nil || slices.ContainsFunc(all, func(t *trusted) bool { return exeq.KeyID(t.issuer) == key }) {
				return fmt.Errorf("%w: it is declared by %.12s", wire.ErrScopeIssuer, key)
			}
		}
	}
	at := s.place(b.Scope)
	if r, lost := s.lost[at]; lost && r.Serial >= b.Serial {
		return fmt.Errorf("%w: serial %d, the kernel holds %d", wire.ErrScopeSerial, b.Serial, r.Serial)
	}
	_, lost := s.lost[at]
	switch {
	case !fresh.active() && was == nil && !lost:
		return wire.ErrNoScope
	case was == nil && len(s.held) >= maxScopes:
		return fmt.Errorf("%w: %d scopes are held", wire.ErrBusy, len(s.held))
	}
	return s.wasRehearsed(was, b)
}

// wasRehearsed: the host is not enforced before it is known what would die.
func (s *scopes) wasRehearsed(was *scope, b *exeq.ScopeBody) error {
	if b.Scope.Kind != exeq.ScopeHost || b.Mode != exeq.ScopeEnforce || b.WithoutRehearsal {
		return nil
	}
	if was != nil && was.body.Mode == exeq.ScopeEnforce && b.Covers(was.body) {
		return nil // it denies no more than it did
	}
	need := time.Duration(b.RehearsalMillis) * time.Millisecond
	if need == 0 {
		need = exeq.DefaultRehearsal
	}
	if was == nil || !was.active() || was.report == nil {
		return fmt.Errorf("%w: declare it with mode rehearse first", wire.ErrRehearsal)
	}
	r, ok := s.signed[b.Rehearsal]
	switch {
	case !ok || r.scope != b.Scope:
		return fmt.Errorf("%w: the statement names no report that this node gave of it since it started", wire.ErrRehearsal)
	case was.body.Mode == exeq.ScopeRehearse && !b.Covers(was.body):
		return fmt.Errorf("%w: what was rehearsed lived by more", wire.ErrRehearsal)
	case r.time < need:
		return fmt.Errorf("%w: for %s, and it is to be %s", wire.ErrRehearsal, r.time.Round(time.Second), need)
	}
	return nil
}

// place gives where the kernel has a scope; zero where its cgroup is not there.
func (s *scopes) place(of exeq.Scope) bpf.Scope {
	switch of.Kind {
	case exeq.ScopeHost:
		return bpf.Scope{Kind: bpf.ScopeHost}
	case exeq.ScopeUID:
		n, err := strconv.ParseUint(of.Subject, 10, 32)
		if err == nil {
			return bpf.Scope{Kind: bpf.ScopeUID, Number: n}
		}
	case exeq.ScopeCgroup:
		if c, err := bpf.CgroupOf(s.cgroup(of)); err == nil {
			return bpf.Scope{Kind: bpf.ScopeCgroup, Number: uint64(c)}
		}
	}
	return bpf.Scope{}
}

func (s *scopes) cgroup(of exeq.Scope) string {
	raw, err := exeq.DecodeBytes(of.Subject)
	if err != nil {
		return "" // it was validated
	}
	return filepath.Join(s.top, raw)
}

// apply puts a scope in force as it stands; s.mu is held.
func (s *scopes) apply(x *scope, alive *life) error {
	if err := s.open(); err != nil {
		return err
	}
	at := s.place(x.body.Scope)
	if !x.active() {
		for _, old := range []bpf.Scope{x.at, at} {
			if old.Kind != 0 {
				if err := s.kernel.Lift(old); err != nil {
					return err
				}
				delete(s.lost, old)
			}
		}
		x.at, x.faults = bpf.Scope{}, nil
		return nil
	}
	x.alive, x.faults = alive, slices.Clone(alive.faults)
	if at.Kind == 0 {
		x.faults = append(x.faults, "its cgroup is not there")
	} else {
		if err := s.kernel.SetLife(at, alive.files, alive.trees); err != nil {
			return err
		}
		if err := s.kernel.Set(at, x.rule()); err != nil {
			return err
		}
		delete(s.lost, at)
	}
	if x.at != at && x.at.Kind != 0 { // the cgroup was removed, and made again
		if err := s.kernel.Lift(x.at); err != nil {
			return err
		}
	}
	x.at = at
	return nil
}

// open has the kernel's half in place.
func (s *scopes) open() error {
	if s.kernel != nil {
		return nil
	}
	k, err := bpf.OpenScopes(s.pins(), s.n.gate)
	if err != nil {
		return err
	}
	// The node is part of every machine's life that has one.
	own, err := s.n.itself()
	if err == nil {
		err = k.SetLife(bpf.Scope{}, []bpf.File{own}, nil)
	}
	var a *bpf.Attempts
	if err == nil {
		a, err = k.Attempts()
	}
	if err != nil {
		return errors.Join(err, k.Close())
	}
	s.kernel = k
	s.n.done.Go(func() { s.watch(a) })
	return nil
}

func (s *scopes) pins() string { return bpf.ScopesDir(s.n.c.Pins) }

// prove shows that what is in force bites, or does not yet.
func (s *scopes) prove(x *scope) error {
	if !x.active() || x.at.Kind == 0 {
		return nil
	}
	if err := s.kernel.SelfTest(x.at, s.cgroup(x.body.Scope), x.body.Mode == exeq.ScopeEnforce); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	return nil
}

// list tells what is held to whom it concerns.
func (s *scopes) list(p *peer) []wire.HeldScope {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := boottime()
	out := []wire.HeldScope{}
	for _, x := range s.held {
		if !s.sees(p, x) {
			continue
		}
		h := wire.HeldScope{Scope: x.body.Scope, Mode: x.body.Mode, Serial: x.body.Serial, Issuer: exeq.KeyID(x.kept.Issuer), Faults: slices.Clone(x.faults)}
		if s.hooks != nil {
			h.Faults = append(h.Faults, s.hooks.Error())
		}
		if x.until > now {
			h.OpenMillis = (x.until - now).Milliseconds()
		}
		if x.report != nil {
			h.RehearsedMillis = x.report.kept.Rehearsed.Milliseconds()
			for _, a := range x.report.attempts {
				switch a.Verdict {
				case bpf.ScopeDenied:
					h.Denied += a.Count
				case bpf.ScopeWould:
					h.Would += a.Count
				case bpf.ScopeOpened:
					h.Opened += a.Count
				}
			}
		}
		out = append(out, h)
	}
	if p.uid == 0 {
		for at, r := range s.lost {
			out = append(out, lostScope(at, r))
		}
	}
	slices.SortFunc(out, func(a, b wire.HeldScope) int {
		return strings.Compare(a.Scope.Kind+" "+a.Scope.Subject, b.Scope.Kind+" "+b.Scope.Subject)
	})
	return out
}

// lostScope is one of which no statement speaks. A cgroup has no path there.
func lostScope(at bpf.Scope, r bpf.Rule) wire.HeldScope {
	h := wire.HeldScope{Mode: exeq.ScopeRehearse, Serial: r.Serial, Faults: []string{"the kernel holds it and its statement is gone: it stays until a newer one comes"}}
	switch h.Scope.Subject = strconv.FormatUint(at.Number, 10); at.Kind {
	case bpf.ScopeHost:
		h.Scope = exeq.Scope{Kind: exeq.ScopeHost}
	case bpf.ScopeUID:
		h.Scope.Kind = exeq.ScopeUID
	case bpf.ScopeCgroup:
		h.Scope.Kind, h.Scope.Subject = exeq.ScopeCgroup, "number "+h.Scope.Subject
	}
	if r.Enforce {
		h.Mode = exeq.ScopeEnforce
	}
	return h
}

// sees: root, who may open it, and who speaks for its issuer.
func (s *scopes) sees(p *peer, x *scope) bool {
	if p.uid == 0 || x.body.BreakGlass.Opens(p.uid) {
		return true
	}
	t, err := s.issuer(exeq.KeyID(x.kept.Issuer))
	return err == nil && t.serves(p.uid)
}

// opens: the user may open some scope, and is heard for that.
func (s *scopes) opens(uid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.held {
		if x.body.BreakGlass.Opens(uid) {
			return true
		}
	}
	return false
}
