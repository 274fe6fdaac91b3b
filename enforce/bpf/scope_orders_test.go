//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// fill makes the map of descents as full as so many processes would.
func (s *Scopes) fill(t *testing.T) {
	t.Helper()
	m := s.maps[scopeMapDescents]
	n := int(m.MaxEntries())
	keys, values := make([]uint64, n), make([]scopeDescent, n)
	for i := range keys {
		keys[i], values[i].Of[0] = uint64(i+1), scopeSubject{Kind: uint32(ScopeUID), Number: 1} // no address of the kernel's
	}
	// Some are there already, so that not all find room.
	if done, err := m.BatchUpdate(keys, values, nil); err == nil || done == 0 {
		t.Fatalf("%d of %d descents: %v: there is room for all", done, n, err)
	}
}

// TestScopeOrders: a child that could not be marked, and would leave the scope when
// it changes user and cgroup, is ordered to be killed; but not where the scope is only
// rehearsed, or open.
func TestScopeOrders(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	py := python(t)
	of := Scope{ScopeUID, uint64(madeUp)}
	if err := s.SetLife(of, []File{identify(t, g, py)}, nil); err != nil {
		t.Fatal(err)
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	cmd := as(t, madeUp, "", py, "-I", "-S", "-c", `
import os, sys
def child():
    p = os.fork()
    if p == 0:
        os._exit(0)
    os.waitpid(p, 0)
    return p
print("here", flush=True)
for line in sys.stdin:
    print(child(), flush=True)`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	out := bufio.NewReader(stdout)
	if s, err := out.ReadString('\n'); s != "here\n" {
		t.Fatal(s, err)
	}
	r, err := g.Orders()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.fill(t)
	fork := func() string {
		t.Helper()
		fmt.Fprintln(stdin)
		child, err := out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(child)
	}
	child := fork()
	e, err := r.Next(time.Now().Add(10 * time.Second))
	if err != nil || !e.Alive || e.Cgroup != 0 || e.Verb != "move" || e.Why != "left" || fmt.Sprint(e.PID) != child {
		t.Errorf("child %s: %+v, %v", child, e, err)
	}
	for name, rule := range map[string]Rule{"rehearsed": {Serial: 2}, "open": {Serial: 3, Enforce: true, OpenUntil: 1 << 62}} {
		if err := s.Set(of, rule); err != nil {
			t.Fatal(err)
		}
		fork()
		if e, err := r.Next(time.Now()); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %+v, %v, want no order", name, e, err)
		}
	}
}
