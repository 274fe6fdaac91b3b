//go:build unix

package standalone

import (
	"os"
	"path/filepath"
	"testing"
)

// Sweep removes what no living supervisor holds, and nothing else.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	used, cleanup, err := newTemporary(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	left, err := os.MkdirTemp("", temporaryPrefix)
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	link, other := filepath.Join(os.TempDir(), temporaryPrefix+"link"), filepath.Join(os.TempDir(), "exeq-other")
	for _, err := range []error{
		os.WriteFile(left+"/file", nil, 0o600), os.WriteFile(outside+"/file", nil, 0o600),
		os.Symlink(outside, link), os.Symlink(outside, left+"/link"), os.Mkdir(other, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	Sweep()
	for _, p := range []string{used, other, outside + "/file"} {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("%s was removed", p)
		}
	}
	if _, err := os.Lstat(left); !os.IsNotExist(err) {
		t.Errorf("%s was left: %v", left, err)
	}
	cleanup()
	if _, err := os.Lstat(used); !os.IsNotExist(err) {
		t.Errorf("its own cleanup left it: %v", err)
	}
}

// TestSweepOfOthers: a name does not make somebody else's directory root's.
func TestSweepOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make and remove somebody else's directory")
	}
	t.Setenv("TMPDIR", t.TempDir())
	theirs := filepath.Join(os.TempDir(), temporaryPrefix+"theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	Sweep()
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("root removed another's directory: %v", err)
	}
}
