package guard

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/exeq/exeq"
)

// testRights open a workspace but for one path.
func testRights(ws string) *exeq.Rights {
	all := exeq.Access{Read: true, Write: true}
	r := &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}}}
	for _, c := range []exeq.Cell{{Path: ws, At: all, Under: all}, {Path: ws + "/.envrc", At: exeq.Access{Read: true}, Under: exeq.Access{Read: true}}} {
		r.Cells = append(r.Cells, c)
	}
	return r
}

func TestOwnHome(t *testing.T) {
	r := testRights("/home/u")
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	got := r.Without(Look(Place{Workspace: "/home/u", Home: "/elsewhere", OwnHome: "/home/u"}).homeLosses(r)...)
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	if !r.Lookup("/home/u/.ssh/id").Read {
		t.Fatal("the rights open nothing: the test shows nothing")
	}
	if a := got.Lookup("/home/u/.ssh/id"); a.Read || a.Write {
		t.Errorf("the user's own .ssh: %+v", a)
	}
	if a := got.Lookup("/home/u/x"); !a.Read || !a.Write {
		t.Errorf("beside it: %+v", a)
	}
}

func TestLinks(t *testing.T) {
	ws, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// A chain by a directory that is a link, to what does not exist.
	for name, to := range map[string]string{".envrc": "d/one", "d": "e", "e/one": "../two/three"} {
		if err := os.MkdirAll(filepath.Join(ws, "e"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(ws, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := testRights(ws)
	got := r.Without(Look(Place{Workspace: ws, Home: "/zzz"}).linkLosses(r)...)
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{".envrc", "d", "e/one", "two/three", "two/three/x"} {
		if a := got.Lookup(ws + "/" + p); a.Write || !a.Read && p != ".envrc" {
			t.Errorf("%s: %+v", p, a)
		}
	}
	for _, p := range []string{"e", "e/two", "two", "d/x"} {
		if a := got.Lookup(ws + "/" + p); !a.Write {
			t.Errorf("%s: %+v", p, a)
		}
	}
	// A loop ends.
	f := follower{}
	if err := os.Symlink("loop", filepath.Join(ws, "loop")); err != nil {
		t.Fatal(err)
	}
	if passed, _ := f.follow(ws + "/loop/x"); len(passed) != maxLinks+1 {
		t.Errorf("%d links passed", len(passed))
	}
}

func TestLinksOfIndex(t *testing.T) {
	entry := func(version int, mode uint32, strip byte, name string) []byte {
		b := make([]byte, 62)
		binary.BigEndian.PutUint32(b[24:], mode)
		if version == 4 {
			return append(append(append(b, strip), name...), 0)
		}
		b = append(b, name...)
		return append(b, make([]byte, 8-len(b)%8)...)
	}
	for _, version := range []int{2, 3, 4} {
		b := append([]byte("DIRC"), 0, 0, 0, byte(version), 0, 0, 0, 3)
		names, strips := []string{"a/file", "a/module", "b/other"}, []byte{0, 0, 0}
		if version == 4 {
			names[1], strips[1] = "module", 4
			strips[2] = 8
		}
		b = append(b, entry(version, 0o100644, strips[0], names[0])...)
		b = append(b, entry(version, 0o160000, strips[1], names[1])...)
		b = append(b, entry(version, 0o160000, strips[2], names[2])...)
		want := []string{"a/module", "b/other"}
		if got := linksOf(b, 20); !reflect.DeepEqual(got, want) {
			t.Errorf("version %d: %q", version, got)
		}
		for n := range b { // cut short: no panic, nothing invented
			for _, p := range linksOf(b[:n], 20) {
				if p != want[0] && p != want[1] {
					t.Errorf("version %d cut at %d: %q", version, n, p)
				}
			}
		}
	}
}
