//go:build linux

package bpf

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFresh: of a mount namespace that somebody else made, only what is mounted
// there alone makes a place: a file system of the machine's does not, under
// whatever name it is mounted.
func TestFresh(t *testing.T) {
	g := newGate(t)
	tmp := t.TempDir()
	for _, d := range []string{"own", "host", "proc"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.Command("sh", "-c", `mount -t tmpfs tmpfs "$1/own" && : > "$1/own/below" && mount --bind /usr "$1/host" && mount --bind /proc "$1/proc" && echo ready && cat`, "sh", tmp)
	sh.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); sh.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	view, err := OpenView(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	own, err := OpenView(sh.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	fresh := func(places ...Place) (map[lsmProgram]uint32, map[lsmPlaceName]uint32) {
		t.Helper()
		s := placeSet{g: g, c: 1, view: view, inodes: map[lsmProgram]uint32{}, names: map[lsmPlaceName]uint32{}, known: map[string]lsmProgram{}}
		if err := s.fresh(own, places); err != nil {
			t.Fatal(err)
		}
		return s.inodes, s.names
	}
	if inodes, names := fresh(Place{filepath.Join(tmp, "own"), Read | Write}, Place{filepath.Join(tmp, "own/below"), Read}, Place{filepath.Join(tmp, "own/absent"), 0}); len(inodes) != 2 || len(names) != 2 {
		t.Errorf("of its own: %v, %v", inodes, names)
	}
	for _, p := range []string{"/usr", filepath.Join(tmp, "host"), filepath.Join(tmp, "host/lib"), filepath.Join(tmp, "host/absent"),
		filepath.Join(tmp, "proc"), filepath.Join(tmp, "proc/sys"), filepath.Join(tmp, "proc/absent")} {
		if inodes, names := fresh(Place{p, Read | Write}); len(inodes)+len(names) != 0 {
			t.Errorf("%s, which is the machine's: %v, %v", p, inodes, names)
		}
	}
}
