//go:build linux

package node

import (
	"os"
	"path/filepath"
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
