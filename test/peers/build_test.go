//go:build linux

// Package peers lets strangers check what Exeq makes: programs and libraries
// of other people, each in a module of its own so that the product's stays
// small, verify permits, the log, witnessing and decisions.
package peers

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// build makes a package of the module in dir once per content of its go.sum
// and gives the program's path. The first build of cosign takes minutes.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(filepath.Join(dir, "main.go"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	to := filepath.Join(cache(t), filepath.Base(dir)+"-"+hash([]byte(runtime.Version()), []byte(pkg), sum, own))
	once(t, to, func() {
		cmd := exec.Command("go", "build", "-trimpath", "-o", to+".new", pkg)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	})
	return to
}

func hash(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// once makes the file to by way of to.new unless it exists; several test
// processes may ask at once.
func once(t *testing.T, to string, make func()) {
	t.Helper()
	lock, err := os.Create(to + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(to); err == nil {
		return
	}
	make()
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

func cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "exeq-peers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a program and gives what it printed and whether it succeeded.
func run(t *testing.T, env []string, name string, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out), err == nil
}

func write(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
