//go:build linux

package enforce

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// TestMountsOfTheHost: a mount of the host's that goes while an execution runs
// is nobody's fault; a cover that goes, since what it covers was removed
// outside, is one.
func TestMountsOfTheHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	b := newBox(t)
	point := filepath.Join(t.TempDir(), "point")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			unix.Unmount(point, unix.MNT_DETACH)
		}
	})
	covered := b.path("covered")
	if err := os.Mkdir(covered, 0o755); err != nil {
		t.Fatal(err)
	}
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", covered+"=")
	a := newAlive(t)
	r := b.launchWith(a, "sh", "-c", "echo up; sleep 1000")
	a.line(t)
	same := func() bool {
		t.Helper()
		ev, err := r.Evidence(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return ev.Environment.Mounts == r.Applied().Environment.Mounts
	}
	if !same() {
		t.Fatal("nothing changed, and the mounts did")
	}
	if err := unix.Unmount(point, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if err := os.Remove(point); err != nil {
		t.Fatal(err)
	}
	if !same() {
		t.Error("a mount of the host's went, and the execution's changed")
	}
	if err := os.Remove(covered); err != nil {
		t.Fatal(err)
	}
	if same() {
		t.Error("a cover went, and nothing changed")
	}
}

// TestDirectoryOfItsOwn: who works where an execution has a file system of its
// own is told so.
func TestDirectoryOfItsOwn(t *testing.T) {
	b := newBox(t)
	dir, err := os.MkdirTemp("/dev/shm", "exeq-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	b.dir = dir
	b.setup = func(l *exeq.Launch) { l.Scratch, l.Hidden = t.TempDir(), nil }
	if _, err := b.start("true"); err == nil || !strings.Contains(err.Error(), "work in another") {
		t.Errorf("launch in %s: %v", dir, err)
	}
}
