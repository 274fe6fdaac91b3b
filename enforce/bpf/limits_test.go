//go:build linux

package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIdentify: what is approved is one state of one file, and a file that can
// change without a sign is not approved at all.
func TestIdentify(t *testing.T) {
	g := newGate(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o755); err != nil {
		t.Fatal(err)
	}
	first := identify(t, g, path)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if first.Ino != st.Ino || first.Size != 4096 || first.CtimeSec != st.Ctim.Sec || int64(first.CtimeNsec) != st.Ctim.Nsec {
		t.Errorf("the kernel says %+v, stat %+v", first, st)
	}
	at := time.Unix(first.CtimeSec, int64(first.CtimeNsec))
	if first.Settled(at.Add(10*time.Millisecond)) || !first.Settled(at.Add(30*time.Millisecond)) || first.Settled(at.Add(-time.Hour)) {
		t.Error("settled at the wrong times")
	}
	if again := identify(t, g, path); again != first {
		t.Errorf("unchanged: %+v, then %+v", first, again)
	}

	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := g.Identify(r); !errors.Is(err, ErrWriters) {
		t.Errorf("open for writing: %v", err)
	}
	m, err := unix.Mmap(int(w.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	m[1] = 1 // dirty: later writes change no time
	if _, err := g.Identify(r); !errors.Is(err, ErrWriters) {
		t.Errorf("mapped for writing: %v", err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	if again, err := g.Identify(r); err != nil || again == first {
		t.Errorf("written through a mapping: %+v, %v", again, err)
	}

	for _, what := range []string{"/dev/null", t.TempDir()} {
		f, err := os.Open(what)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Identify(f); err == nil {
			t.Errorf("%s was taken for a program", what)
		}
		f.Close()
	}
	f, _ := os.Open(path)
	f.Close()
	if _, err := g.Identify(f); err == nil {
		t.Error("a closed descriptor was taken")
	}
}

// TestLimits shows what this package does not hold by itself, so that
// docs/kernel-tiers.md says no more and no less: when one of these fails, the
// page must change.
func TestLimits(t *testing.T) {
	g := newGate(t)
	dir, _ := governed(t, g, real(t, "sh"))
	tmp := t.TempDir()
	marker(t, filepath.Join(tmp, "prog"))
	if got := shell(t, dir, tmp, "./prog >/dev/null 2>&1; echo $?"); got != "137\n" {
		t.Fatalf("inside: %q", got)
	}
	// Who may write a cgroup.procs outside leaves.
	if got := shell(t, dir, tmp, "echo $$ >"+cgroupRoot(t)+"/cgroup.procs && ./prog >/dev/null 2>&1; echo $?"); got != "99\n" {
		t.Errorf("leaving the cgroup: %q", got)
	}
	// A script is the business of its interpreter.
	script := filepath.Join(tmp, "script")
	if err := os.WriteFile(script, []byte("#!"+real(t, "sh")+"\necho text\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, dir, tmp, "./script"); got != "text\n" {
		t.Errorf("an unknown script of a known interpreter: %q", got)
	}
}
