//go:build linux

package bpf

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot finds the cgroup v2 hierarchy.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if i := strings.Index(line, " - cgroup2 "); i > 0 {
			return f[4]
		}
	}
	t.Skip("no cgroup v2 hierarchy is mounted")
	return ""
}

// bpffs mounts a bpf file system of the test's own.
func bpffs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount a bpf file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// newGate loads a gate at the root of the hierarchy, and skips only where the
// kernel lacks what it needs.
func newGate(t *testing.T) *Gate {
	t.Helper()
	g, err := Load(filepath.Join(bpffs(t), "gate"), cgroupRoot(t))
	var lacks *FeatureError
	if errors.As(err, &lacks) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// newCgroup makes a cgroup, which is killed and removed at the end.
func newCgroup(t *testing.T, below string) string {
	t.Helper()
	dir, err := os.MkdirTemp(below, "exeq-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		waitEmpty(dir, 10*time.Second)
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// governed makes a governed cgroup in which the programs may run.
func governed(t *testing.T, g *Gate, programs ...string) (string, Cgroup) {
	t.Helper()
	dir := newCgroup(t, cgroupRoot(t))
	c, err := g.Govern(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	var files []File
	for _, p := range programs {
		files = append(files, identify(t, g, p))
	}
	if err := g.SetPrograms(c, files); err != nil {
		t.Fatal(err)
	}
	return dir, c
}

func identify(t *testing.T, g *Gate, path string) File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x, err := g.Identify(f)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// in makes a command that starts in the cgroup ("": in the test's own).
func in(t *testing.T, cgroup, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cgroup != "" {
		f, err := openCgroup(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	return cmd
}

// killed says whether the command was ended by SIGKILL.
func killed(err error) bool {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return false
	}
	s := e.Sys().(syscall.WaitStatus)
	return s.Signaled() && s.Signal() == syscall.SIGKILL
}

// copyProgram copies a program to a place where it may be changed.
func copyProgram(t *testing.T, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

func real(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	if p, err = filepath.EvalSymlinks(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// bareSocket makes an unconnected internet socket of the test's own.
func bareSocket(t *testing.T, kind int) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "socket")
}
