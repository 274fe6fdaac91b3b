//go:build linux

package enforce

import (
	"os"
	"strings"
	"testing"
)

// What is said of refused writes is true: nothing is said of a write that
// nothing could cover and that was made.
func TestRefusedWritesSaid(t *testing.T) {
	b := newBox(t)
	b.write("fixed", "as before", 0o644)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("fixed")+"=r", b.path("absent")+"=r", b.path("never")+"=r")
	for changedSince(b.path("fixed"), coarseNow()) { // until the file is older than what comes
	}
	b.run("sh", "-c", "echo x >absent; (echo x >fixed); exit 3")
	if got, err := os.ReadFile(b.path("absent")); err != nil || string(got) != "x\n" {
		t.Fatalf("the path that nothing covered was not written: %q %v", got, err)
	}
	said := b.msgs.String()
	if strings.Contains(said, "write "+b.path("absent")) {
		t.Errorf("a write that succeeded is called denied: %s", said)
	}
	if !strings.Contains(said, "write "+b.path("fixed")+" denied") {
		t.Errorf("a write that was refused goes unsaid: %q", said)
	}
}

// A file is new by its ctime, whichever way it came.
func TestChangedSince(t *testing.T) {
	dir := t.TempDir()
	before := coarseNow()
	if changedSince(dir+"/file", before) {
		t.Error("nothing stands there")
	}
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !changedSince(dir+"/file", before) || changedSince(dir+"/file", coarseNow()+1e9) {
		t.Error("the file's time is not told")
	}
}
