//go:build linux

package enforce

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// TestMountsOfTheHost: a mount of the host's that goes while an execution runs
// is nobody's fault; a cover that goes, since what it covers was removed or
// replaced outside, is one.
func TestMountsOfTheHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	for _, falls := range []struct {
		how string
		do  func(b *box, covered string) error
	}{
		{"removed", func(_ *box, covered string) error { return os.Remove(covered) }},
		{"replaced", func(b *box, covered string) error { return os.Rename(b.write("new", "y", 0o644), covered) }},
	} {
		t.Run(falls.how, func(t *testing.T) {
			b := newBox(t)
			point := filepath.Join(t.TempDir(), "point")
			if err := errors.Join(os.Mkdir(point, 0o755), unix.Mount("none", point, "tmpfs", 0, "")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(point, unix.MNT_DETACH) })
			covered := b.write("covered", "x", 0o644)
			b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", covered+"=")
			a := newAlive(t)
			r := b.launchWith(a, "sh", "-c", "echo up; exec sleep 1000")
			a.line(t)
			same := func() bool {
				t.Helper()
				ev, err := r.Evidence(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				return ev.Environment.Mounts == r.Applied().Environment.Mounts && len(ev.Faults) == 0
			}
			if !same() {
				t.Fatal("nothing changed, and the mounts did")
			}
			if err := errors.Join(unix.Unmount(point, 0), os.Remove(point)); err != nil {
				t.Fatal(err)
			}
			if !same() {
				t.Error("a mount of the host's went, and the execution's changed")
			}
			if err := falls.do(b, covered); err != nil {
				t.Fatal(err)
			}
			if same() {
				t.Error("a cover went, and nothing changed")
			}
		})
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
