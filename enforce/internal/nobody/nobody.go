//go:build linux

// Package nobody runs a test binary once more as an ordinary user.
package nobody

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// UID is the ordinary user's.
const UID = 65534

const env = "EXEQ_TEST_AS_NOBODY"

// Rerun, called by a test as root, runs the tests that match pattern as
// nobody and fails unless they pass. As another user, or inside the second
// run, it does nothing: the tests run as that user anyway.
func Rerun(t *testing.T, pattern string) {
	t.Helper()
	if os.Getuid() != 0 || os.Getenv(env) != "" {
		return
	}
	dir, err := os.MkdirTemp("", "exeq-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	exe := filepath.Join(dir, "tests")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(exe, self); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, UID, UID); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v", "-test.run", pattern}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.Command(exe, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env+"=1", "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: UID, Gid: UID}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("as uid %d: %v\n%s", UID, err, out.Bytes())
	}
	if n := strings.Count(out.String(), "--- PASS"); n == 0 {
		t.Fatalf("as uid %d nothing ran\n%s", UID, out.Bytes())
	} else {
		t.Logf("as uid %d: %d tests passed", UID, n)
	}
}

func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Chmod(0o755)
}
