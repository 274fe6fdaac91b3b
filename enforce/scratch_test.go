//go:build linux

package enforce

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq/internal/osfile"
)

// TestProps: they are made once, and what was done to them is seen: what runs
// then has its own.
func TestProps(t *testing.T) {
	b := newBox(t)
	scratch := filepath.Join(filepath.Dir(b.dir), "state")
	dir := filepath.Join(scratch, propsName)
	runs := func() {
		t.Helper()
		if code, out := b.run("true"); code != 0 {
			t.Fatalf("exit %d: %s", code, out)
		}
		if left, _ := filepath.Glob(filepath.Join(scratch, scratchPrefix+"*")); len(left) > 0 {
			t.Fatalf("left behind: %q", left)
		}
	}
	inode := func() string {
		info, err := os.Stat(filepath.Join(dir, "canary"))
		if err != nil {
			t.Fatal(err)
		}
		return osfile.ChangeOf(info)
	}
	runs()
	made := inode()
	runs()
	if now := inode(); now != made {
		t.Fatalf("made again: %s, then %s", made, now)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, harm := range map[string]func() error{
		"a canary of other bytes": func() error {
			b := canaryProgram()
			b[len(b)-1]++
			return os.WriteFile(at("canary"), b, 0)
		},
		"a canary that cannot be executed": func() error { return os.Chmod(at("canary"), 0o644) },
		"another kind": func() error {
			return errors.Join(os.Remove(at("canary")), os.Symlink("/bin/true", at("canary")))
		},
		"no canary":           func() error { return os.Remove(at("canary")) },
		"no place for covers": func() error { return os.Remove(at("covers")) },
		"a link to covers":    func() error { return errors.Join(os.Remove(at("covers")), os.Symlink("/tmp", at("covers"))) },
		"open to others":      func() error { return os.Chmod(dir, 0o777) },
	} {
		removeAll(dir)
		runs()
		if err := checkProps(dir); err != nil {
			t.Fatalf("%s: before: %v", name, err)
		}
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if err := checkProps(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		runs()
	}
}

// TestScratch: what a killed supervisor left is removed by the next launch,
// what a living one has is not, and nothing is left of either in the end.
func TestScratch(t *testing.T) {
	b := newBox(t)
	// Each execution is to have a directory of its own.
	if err := os.MkdirAll(filepath.Join(filepath.Dir(b.dir), "state", propsName), 0o700); err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(filepath.Dir(b.dir), "state")
	mine := func() (names []string) {
		entries, err := os.ReadDir(scratch)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), scratchPrefix) {
				names = append(names, e.Name())
			}
		}
		return names
	}
	a := newAlive(t)
	c := b.supervised(a, b.helper("forkbomb", "1")...)
	if got := a.line(t); got != "forked\n" {
		t.Fatal(got)
	}
	left := mine()
	if len(left) != 1 {
		t.Fatalf("a living execution has %q", left)
	}
	if code, out := b.run("true"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if got := mine(); len(got) != 1 || got[0] != left[0] {
		t.Fatalf("beside a living execution: %q, want %q", got, left)
	}
	c.Process.Kill()
	c.Wait()
	a.wantEnd(t)
	if got := mine(); len(got) != 1 {
		t.Fatalf("a killed supervisor left %q: the test shows nothing", got)
	}
	if code, out := b.run("true"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if got := mine(); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}
