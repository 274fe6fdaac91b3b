//go:build linux

package bpf

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestScopeCost prints what starting a program takes beside a scope and in one:
// the least of some batches, in turns, each after a gate that nobody is behind.
// It fails where they do not work; the figures are for reading.
func TestScopeCost(t *testing.T) {
	tmp := openDir(t)
	deep := filepath.Join(tmp, "a", "b", "c")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	prog := marker(t, filepath.Join(deep, "prog"))
	root := newCgroup(t, cgroupRoot(t))
	c, err := CgroupOf(root)
	if err != nil {
		t.Fatal(err)
	}
	of := Scope{ScopeCgroup, uint64(c)}
	best := map[string]int{}
	measure := func(name, cgroup string) {
		t.Helper()
		out := tryAll(t, cgroup, "cost", deep)["exec"]
		n, err := strconv.Atoi(out)
		if err != nil {
			t.Fatalf("%s: %s", name, out)
		}
		if best[name] == 0 || n < best[name] {
			best[name] = n
		}
	}
	d, err := os.Open(tmp)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rounds := 3
	if _, err := os.Stat("/job.json"); err == nil {
		rounds = 1 // emulated: it is slow, and says nothing
	}
	for range rounds {
		g := newGate(t)
		measure("gate", root)
		s := newScopes(t, g)
		measure("no rule", root)
		tree, err := g.IdentifyTree(d)
		if err != nil {
			t.Fatal(err)
		}
		own := identify(t, g, self(t))
		if err := s.SetLife(of, []File{own, identify(t, g, prog)}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Set(of, Rule{Serial: 1, Enforce: true}); err != nil {
			t.Fatal(err)
		}
		measure("beside", "")
		measure("by file", root)
		if err := s.SetLife(of, []File{own}, []Tree{tree}); err != nil {
			t.Fatal(err)
		}
		measure("by tree", root)
		if err := s.Lift(of); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := g.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"gate", "no rule", "beside", "by file", "by tree"} {
		t.Logf("%-8s start of a program %8d ns ×%.2f", name, best[name], float64(best[name])/float64(best["gate"]))
	}
}
