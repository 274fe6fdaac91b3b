//go:build linux

package node

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
)

// TestCompile: places are what the rights give, and never more: of a directory
// and what may become one what holds for it and below it, of a file what holds
// for it; what the supervisor wants shut is.
func TestCompile(t *testing.T) {
	view, err := bpf.OpenView(os.Getpid())
	must(t, err)
	defer view.Close()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(at("d/shut/deep"), 0o755))
	must(t, os.WriteFile(at("f"), nil, 0o644))
	must(t, os.Symlink("d", at("link")))
	r, w, rw := exeq.Access{Read: true}, exeq.Access{Write: true}, exeq.Access{Read: true, Write: true}
	labelled := exeq.Access{Read: true, Labels: []string{"pii"}}
	rights := &exeq.Rights{Version: 1, Cells: []exeq.Cell{
		{Path: "/"},
		{Path: at("d"), At: rw, Under: r},
		{Path: at("d/new"), At: w, Under: exeq.Access{}},
		{Path: at("d/shut/deep"), At: rw, Under: rw},
		{Path: at("f"), At: rw, Under: exeq.Access{}},
		{Path: at("f/below"), At: rw, Under: rw},
		{Path: at("l"), At: labelled, Under: labelled},
		{Path: at("link/x"), At: rw, Under: rw},
		{Path: at("nothing/x"), At: rw, Under: rw},
	}}
	must(t, rights.Validate())
	all, narrowed, err := compile(rights, []string{at("d/shut")}, view)
	must(t, err)
	got := map[string]bpf.Access{}
	for _, p := range all {
		if _, again := got[p.Path]; again {
			t.Errorf("%s twice", p.Path)
		}
		got[p.Path] = p.Access
	}
	want := map[string]bpf.Access{
		"/": 0, at("d"): bpf.Read, at("d/new"): 0, at("d/shut"): 0, at("f"): bpf.Read | bpf.Write, at("l"): bpf.Read,
	}
	for p, a := range want {
		if has, ok := got[p]; !ok || has != a {
			t.Errorf("%s: %v, %v; want %v", p, has, ok, a)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	if len(narrowed) != 2 { // d and d/new
		t.Errorf("narrowed: %q", narrowed)
	}
	for _, shut := range []string{"relative", "/a/../b", ""} {
		if _, _, err := compile(rights, []string{shut}, view); err == nil {
			t.Errorf("shut %q is taken", shut)
		}
	}
}

// TestCompileEqual: on random trees and random rights the longest place gives no
// path more than the rights do, and where policy tells no directory from what
// lies below it, just what they do.
func TestCompileEqual(t *testing.T) {
	view, err := bpf.OpenView(os.Getpid())
	must(t, err)
	defer view.Close()
	checked := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		root := t.TempDir()
		paths := []string{root}
		for range 30 {
			up := paths[r.IntN(len(paths))]
			p := filepath.Join(up, string(rune('a'+r.IntN(5))))
			if st, err := os.Lstat(up); err != nil || !st.IsDir() || slices.Contains(paths, p) {
				continue
			}
			if r.IntN(3) == 0 {
				must(t, os.WriteFile(p, nil, 0o644))
			} else {
				must(t, os.Mkdir(p, 0o755))
			}
			paths = append(paths, p)
		}
		access := func() exeq.Access { return exeq.Access{Read: r.IntN(2) == 0, Write: r.IntN(2) == 0} }
		same := seed%2 == 0
		rights := &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}}}
		for range 12 {
			p := paths[r.IntN(len(paths))]
			if r.IntN(3) == 0 {
				p = filepath.Join(p, "absent")
			}
			if slices.ContainsFunc(rights.Cells, func(c exeq.Cell) bool { return c.Path == p }) {
				continue
			}
			c := exeq.Cell{Path: p, At: access(), Under: access()}
			if same {
				c.Under = c.At
			}
			rights.Cells = append(rights.Cells, c)
		}
		slices.SortFunc(rights.Cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
		must(t, rights.Validate())
		all, _, err := compile(rights, nil, view)
		must(t, err)
		held := map[string]bpf.Access{}
		for _, p := range all {
			held[p.Path] = p.Access
		}
		for _, p := range paths {
			for _, p := range []string{p, filepath.Join(p, "absent")} {
				if st, err := os.Lstat(filepath.Dir(p)); err != nil || !st.IsDir() {
					continue
				}
				at := p
				for _, ok := held[at]; !ok; _, ok = held[at] {
					at = filepath.Dir(at)
				}
				want := bpf.Access(0)
				a := rights.Lookup(p)
				if a.Read {
					want |= bpf.Read
				}
				if a.Write {
					want |= bpf.Write
				}
				checked++
				if got := held[at]; got&^want != 0 || same && got != want {
					t.Errorf("seed %d: %s: places give %b, rights %b", seed, p, got, want)
				}
			}
		}
	}
	if checked < 1000 {
		t.Errorf("only %d paths were compared", checked)
	}
}
