//go:build linux

package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestScopeOutlives: scopes hold while nobody has them, under a new gate, and
// with what came before them; programs of before go.
func TestScopeOutlives(t *testing.T) {
	dir := bpffs(t)
	load := func(name string) *Gate {
		t.Helper()
		g, err := Load(filepath.Join(dir, name), cgroupRoot(t))
		var lacks *FeatureError
		if errors.As(err, &lacks) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := load("gate")
	s, err := OpenScopes(filepath.Join(dir, "scopes"), g)
	if err != nil {
		t.Fatal(err)
	}
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	dies := func(when string) {
		t.Helper()
		if out, err := as(t, madeUp, "", prog).Output(); len(out) != 0 || !killed(err) {
			t.Errorf("%s: %q, %v", when, out, err)
		}
	}
	of := Scope{ScopeUID, uint64(madeUp)}
	if err := s.Set(of, Rule{Serial: 7, Enforce: true}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	dies("closed")
	// The gate is replaced.
	if err := os.RemoveAll(filepath.Join(dir, "gate")); err != nil {
		t.Fatal(err)
	}
	dies("the gate gone")
	g = load("gate")
	t.Cleanup(func() { g.Close() })
	for range 2 {
		if s, err = OpenScopes(filepath.Join(dir, "scopes"), g); err != nil {
			t.Fatal(err)
		}
		dies("taken up")
		if rules, err := s.Rules(); err != nil || rules[of] != (Rule{Serial: 7, Enforce: true}) {
			t.Errorf("taken up: %v, %v", rules, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if links, _ := filepath.Glob(filepath.Join(dir, "scopes", "links-*")); len(links) != 1 {
		t.Errorf("programs of before: %v", links)
	}
	if s, err = OpenScopes(filepath.Join(dir, "scopes"), g); err != nil {
		t.Fatal(err)
	}
	// Under the new gate, a permit passes.
	cgroup := newCgroup(t, cgroupRoot(t))
	c, err := g.Govern(cgroup, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Allow(c, identify(t, g, prog)); err != nil {
		t.Fatal(err)
	}
	if out, err := as(t, madeUp, cgroup, prog).Output(); len(out) == 0 {
		t.Errorf("under a permit: %q, %v", out, err)
	}
	if out, err := as(t, madeUp, cgroup, real(t, "true")).Output(); !killed(err) {
		t.Errorf("under a permit, what it does not name: %q, %v", out, err)
	}
	if err := s.Remove(); err == nil {
		t.Error("removed while in force")
	}
	if err := errors.Join(s.Check(), s.Lift(of), s.Remove(), g.Lift(c)); err != nil {
		t.Fatal(err)
	}
	if out, err := as(t, madeUp, "", prog).Output(); len(out) == 0 {
		t.Errorf("removed: %q, %v", out, err)
	}
}

// TestScopeBroken: pins that are not whole are said to be, and hold on.
func TestScopeBroken(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	of := Scope{ScopeUID, uint64(madeUp)}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	if err := os.Remove(filepath.Join(s.dir, "map-"+scopeMapLives)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenScopes(s.dir, g); !errors.Is(err, ErrBroken) {
		t.Errorf("a map is missing: %v", err)
	}
	if out, err := as(t, madeUp, "", prog).Output(); len(out) != 0 || !killed(err) {
		t.Errorf("broken: %q, %v", out, err)
	}
	if err := os.Remove(filepath.Join(s.at, scopeProgBorn)); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); !errors.Is(err, ErrBroken) {
		t.Errorf("a link's pin is missing: %v", err)
	}
	if err := errors.Join(s.Restore(), s.Check()); err != nil {
		t.Error(err)
	}
	// All pins go, under the hands of one who has them open.
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if out, err := as(t, madeUp, "", prog).Output(); len(out) != 0 || !killed(err) {
		t.Errorf("pins gone: %q, %v", out, err)
	}
	if err := s.Check(); !errors.Is(err, ErrBroken) {
		t.Errorf("pins gone: %v", err)
	}
	if err := errors.Join(s.Restore(), s.Check()); err != nil {
		t.Error(err)
	}
	if again, err := OpenScopes(s.dir, g); err != nil {
		t.Error(err)
	} else if rules, err := again.Rules(); err != nil || rules[of] != (Rule{Serial: 1, Enforce: true}) {
		t.Errorf("restored: %v, %v", rules, err)
	} else {
		again.Close()
	}
}

// TestScopeHost: on the whole host, root included, and the gate's own test of
// itself passes. Only in a machine of its own.
func TestScopeHost(t *testing.T) {
	if _, err := os.Stat("/job.json"); err != nil || os.Getppid() != 1 {
		t.Skip("not in the machine of test/vm: a host scope would hold everybody here")
	}
	g := newGate(t)
	s := newScopes(t, g)
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	sh := real(t, "sh")
	of := Scope{Kind: ScopeHost}
	if err := s.SetLife(of, []File{identify(t, g, sh), identify(t, g, self(t))}, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := in(t, "", prog).Output(); len(out) == 0 {
		t.Fatalf("without a scope: %q, %v", out, err)
	}
	cgroup, _ := governed(t, g)
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	for _, uid := range []int{0, madeUp} {
		if out, err := as(t, uid, "", prog).Output(); len(out) != 0 || !killed(err) {
			t.Errorf("user %d: %q, %v", uid, out, err)
		}
	}
	if out, err := in(t, "", sh, "-c", "echo lives").Output(); string(out) != "lives\n" {
		t.Errorf("what the host lives by: %q, %v", out, err)
	}
	if err := g.SelfTest(cgroup); err != nil {
		t.Error(err)
	}
	if err := s.Lift(of); err != nil {
		t.Fatal(err)
	}
	if out, err := in(t, "", prog).Output(); len(out) == 0 {
		t.Errorf("lifted: %q, %v", out, err)
	}
}
