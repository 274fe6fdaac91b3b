//go:build unix

package osfile

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// locked makes a tree whose owner may not enter it, with a link out of it.
func locked(t *testing.T) (dir, outside string) {
	t.Helper()
	outside = t.TempDir()
	dir = filepath.Join(t.TempDir(), "tree")
	deep := filepath.Join(dir, "a", "b", "c")
	for _, err := range []error{
		os.MkdirAll(deep, 0o700), os.WriteFile(deep+"/x", nil, 0o600),
		os.Symlink(outside, dir+"/a/link"), os.WriteFile(outside+"/kept", nil, 0o600),
		os.Chmod(deep, 0), os.Chmod(dir+"/a/b", 0o100), os.Chmod(dir+"/a", 0o500), os.Chmod(outside, 0o500), os.Chmod(dir, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Chmod(outside, 0o700) })
	return dir, outside
}

// TestRemoveTree: what its owner shut is removed, and no link is followed. Root
// is never kept out, so there the test runs again as nobody.
func TestRemoveTree(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t, "TestRemoveTree")
		return
	}
	dir, outside := locked(t)
	if err := os.RemoveAll(dir); err == nil {
		t.Fatal("nothing was shut, so this shows nothing")
	}
	if err := RemoveTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	info, err := os.Stat(outside)
	if err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("what a link leads to was changed: %v %v", info, err)
	}
	if _, err := os.Stat(outside + "/kept"); err != nil {
		t.Error(err)
	}
}

// TestSweepShut: nor does it stay where a killed process left it.
func TestSweepShut(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t, "TestSweepShut")
		return
	}
	dir, _ := locked(t)
	SweepDirs(filepath.Dir(dir), "tree", func(dir string) {
		if err := RemoveTree(dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// asNobody runs one test of this binary as an ordinary user.
func asNobody(t *testing.T, name string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "osfile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.WriteFile(dir+"/test", self, 0o755), os.Chmod(dir, 0o755), os.Mkdir(dir+"/tmp", 0o777), os.Chmod(dir+"/tmp", 0o777))
	}
	if err != nil {
		t.Fatal("no copy of this test for an ordinary user: ", err)
	}
	cmd := exec.Command(dir+"/test", "-test.run=^"+name+"$", "-test.v")
	cmd.Dir, cmd.Env = "/", []string{"TMPDIR=" + dir + "/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
