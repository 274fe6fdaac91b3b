//go:build unix

package standalone

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/exeq/exeq"
)

// TestOwnBinary: a binary that was replaced, removed or renamed while it runs
// stays protected by its name, and what cannot be told is an error.
func TestOwnBinary(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		return p
	}
	link := func(name, to string) string {
		p := filepath.Join(dir, name)
		if err := os.Symlink(to, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	kept, moved, odd := file("kept"), file("moved"), file("odd (deleted)")
	gone := filepath.Join(dir, "gone")
	for _, test := range []struct {
		name, started, exe string
		want               []string // nil: an error
	}{
		{"in place", kept, link("l1", kept), []string{kept}},
		{"replaced", kept, link("l2", kept+" (deleted)"), []string{kept}},
		{"removed", gone, link("l3", gone+" (deleted)"), []string{gone}},
		{"renamed", gone, link("l4", moved), []string{gone, moved}},
		{"named so", odd, link("l5", odd), []string{odd}},
		{"started by a link", link("l6", kept), link("l7", kept), []string{kept}},
		{"no /proc", kept, filepath.Join(dir, "none"), []string{kept}},
		{"no link", kept, kept, nil},
		{"outside of the root", kept, link("l8", "(unreachable)/x"), nil},
		{"a loop", link("l9", "l9"), link("l10", kept), nil},
	} {
		got, err := ownBinary(test.started, test.exe)
		if (err == nil) != (test.want != nil) || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all := exeq.Access{Read: true, Write: true}
	open := &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}, {Path: exeq.EncodeBytes(filepath.Dir(self)), At: all, Under: all}}}
	got, err := (&Installation{}).protect(open)
	if err != nil {
		t.Fatal(err)
	}
	if id := exeq.EncodeBytes(self); !open.Lookup(id).Write || got.Lookup(id).Write {
		t.Errorf("%s: %+v, then %+v", id, open.Lookup(id), got.Lookup(id))
	}
}
