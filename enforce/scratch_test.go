//go:build linux

package enforce

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScratch: what a killed supervisor left is removed by the next launch,
// what a living one has is not, and nothing is left of either in the end.
func TestScratch(t *testing.T) {
	b := newBox(t)
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
