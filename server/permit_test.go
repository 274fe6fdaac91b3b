package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/permit"
)

// burns is the burn list of a made-up enforcement point.
type burns struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (b *burns) Burn(_ context.Context, id, nonce string, _ exeq.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[id] || b.seen[nonce] {
		return exeq.ErrReplayed
	}
	b.seen[id], b.seen[nonce] = true, true
	return nil
}

// granted is an answer with a permit.
type granted struct {
	Decision bool
	Context  struct {
		Exeq struct {
			Verdict exeq.Verdict
			Permit  *struct {
				Execution string
				Envelope  json.RawMessage
				Record    *exeq.PermitRecord
				Rights    *exeq.Rights
			}
		}
	}
}

// question asks for a permit to run a program, for one audience.
func question(program, audience string) string {
	return `{"subject":{"type":"Agent","id":"local"},"action":{"name":"run"},
		"resource":{"type":"Program","id":"` + program + `","properties":{"sha256":"` + strings.Repeat("ab", 32) + `"}},
		"context":{"workspace":"/work","home":"/home/dev","tmp":"/tmp/x","command":"` + program + `","cwd":"/work","argv":["` + program + `"],"tier":"rootless",
		"exeq":{"permit":` + audience + `}}}`
}

// asked is the request that question describes, as the enforcement point makes it.
func asked(program string) *exeq.Request {
	var sum exeq.Digest
	if err := sum.UnmarshalText([]byte(strings.Repeat("ab", 32))); err != nil {
		panic(err)
	}
	return &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "local"}, Action: exeq.ActionRun,
		Resource: exeq.Resource{Type: "Program", ID: program, SHA256: sum}, Argv: []string{program}, Dir: "/work",
		Context: exeq.Context{Workspace: "/work", Home: "/home/dev", Tmp: "/tmp/x", Command: program},
	}
}

// TestPermit: an answer carries a permit that its enforcement point believes by
// signatures alone, for what it asked, once; and it is on record.
func TestPermit(t *testing.T) {
	p := serve(t)
	me := exeq.Audience{Node: strings.Repeat("1", 64), BootID: "boot", Epoch: "epoch"}
	var g granted
	p.ask(one, question("/usr/bin/true", `{"node":"`+me.Node+`","bootId":"boot","epoch":"epoch"}`), &g)
	given := g.Context.Exeq.Permit
	if !g.Decision || given == nil {
		t.Fatalf("no permit: %+v", g)
	}
	admitter := func(to exeq.Audience) *permit.Admitter {
		a, err := permit.NewAdmitter(permit.AdmitterConfig{
			Issuer: p.inst.Keys.Public(exeq.RoleIssuer), Promise: p.inst.Keys.NoteVerifier(exeq.RolePromise),
			Audience: to, Tier: exeq.TierRootless, Burner: &burns{seen: map[string]bool{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	parsed, err := exeq.ParsePermit(given.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	other := me
	other.Epoch = "another"
	if err := admitter(other).Admit(t.Context(), parsed, given.Record, asked("/usr/bin/true"), given.Rights); !errors.Is(err, exeq.ErrPermit) {
		t.Errorf("admitted by another enforcement point: %v", err)
	}
	mine := admitter(me)
	if err := mine.Admit(t.Context(), parsed, given.Record, asked("/usr/bin/false"), given.Rights); !errors.Is(err, exeq.ErrPermit) {
		t.Errorf("admitted for another program: %v", err)
	}
	if err := mine.Admit(t.Context(), parsed, given.Record, asked("/usr/bin/true"), given.Rights); err != nil {
		t.Errorf("not admitted: %v", err)
	}
	if err := mine.Admit(t.Context(), parsed, given.Record, asked("/usr/bin/true"), given.Rights); !errors.Is(err, exeq.ErrReplayed) {
		t.Errorf("admitted twice: %v", err)
	}
	p.onRecord(given.Execution, exeq.KindPermit)
}

// TestNoPermit: what is not permitted is denied on record, and what is no action
// that starts something yields nothing.
func TestNoPermit(t *testing.T) {
	p := serve(t)
	const to = `{"node":"n","bootId":"b","epoch":"e"}`
	for name, q := range map[string]string{
		"another agent's tier": strings.Replace(question("/usr/bin/true", to), `"rootless"`, `"best"`, 1),
		"a relative program":   question("true", to),
		"no epoch":             question("/usr/bin/true", `{"node":"n","bootId":"b"}`),
		"no digest":            strings.Replace(question("/usr/bin/true", to), `"sha256"`, `"sha1"`, 1),
		"a read":               strings.Replace(question("/usr/bin/true", to), `"run"`, `"read"`, 1),
	} {
		var g granted
		if p.ask(one, q, &g); g.Decision || g.Context.Exeq.Permit != nil {
			t.Errorf("%s: %+v", name, g)
		}
	}
	if n := p.leaves(exeq.KindPermit); n != 0 {
		t.Errorf("%d permits are on record", n)
	}
	var g granted
	p.ask(one, question("/home/dev/.ssh/evil", to), &g)
	if g.Decision || g.Context.Exeq.Permit != nil {
		t.Errorf("a program that the starter policy does not permit: %+v", g)
	}
	if n := p.leaves(exeq.KindDenial); n != 1 {
		t.Errorf("%d denials are on record, want 1", n)
	}
}

// TestManyPermits: each of many at once is one of its own, and all reach the log.
func TestManyPermits(t *testing.T) {
	p := serve(t)
	var mu sync.Mutex
	ids := map[string]bool{}
	var all sync.WaitGroup
	const n = 64
	for range n {
		all.Go(func() {
			var g granted
			p.ask(one, question("/usr/bin/true", `{"node":"n","bootId":"b","epoch":"e"}`), &g)
			mu.Lock()
			defer mu.Unlock()
			if given := g.Context.Exeq.Permit; given != nil {
				ids[given.Execution] = true
			}
		})
	}
	all.Wait()
	if len(ids) != n || p.leaves(exeq.KindPermit) != n {
		t.Errorf("%d permits, %d on record, want %d", len(ids), p.leaves(exeq.KindPermit), n)
	}
	if err := p.inst.Store.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.inst.Store.Fsck(t.Context()); err != nil {
		t.Error(err)
	}
}

// onRecord requires one leaf of a kind of an execution.
func (p *point) onRecord(id string, k exeq.Kind) {
	p.t.Helper()
	all, err := p.inst.Store.Follow(p.t.Context(), 0, 1000)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, l := range all {
		if l.Leaf.Execution == id && l.Leaf.Kind == k {
			return
		}
	}
	p.t.Errorf("no %s of %s is on record", k, id)
}

// leaves counts those of a kind.
func (p *point) leaves(k exeq.Kind) (n int) {
	p.t.Helper()
	all, err := p.inst.Store.Follow(p.t.Context(), 0, 1000)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, l := range all {
		if l.Leaf.Kind == k {
			n++
		}
	}
	return n
}
