//go:build linux

package programs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "two/prog"), "two")
	write(t, filepath.Join(dir, "prog"), "here")
	if err := os.WriteFile(filepath.Join(dir, "one/prog"), []byte("not executable"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("two/prog", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	env := dir + "/one::.:relative:" + dir + "/nowhere:" + dir + "/two"
	for _, c := range []struct{ command, path, want string }{
		{"prog", dir + "/two/prog", "two"}, {"./prog", dir + "/prog", "here"}, {"link", "", ""}, {"./link", dir + "/two/prog", "two"},
		{"two/../prog", dir + "/prog", "here"}, {dir + "/two/prog", dir + "/two/prog", "two"}, {"absent", "", ""}, {"", "", ""}, {"./one", "", ""},
		{"one/prog", "", ""}, {"./prog/", "", ""},
	} {
		got, err := LookPath(c.command, env, dir)
		if c.want == "" {
			if err == nil {
				t.Errorf("%q: found %s", c.command, got.Path)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.command, err)
			continue
		}
		b := make([]byte, 64)
		n, _ := got.File.Read(b)
		if got.Path != c.path || got.SHA256 != digestOf(c.want) || string(b[:n]) != c.want {
			t.Errorf("%q: %s %v %q", c.command, got.Path, got.SHA256, b[:n])
		}
		got.File.Close()
	}
	if _, err := LookPath("prog", env, "relative"); err == nil {
		t.Error("a relative directory was taken")
	}
	if _, err := LookPath("prog", dir+"/one", dir); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that is not executable: %v", err)
	}
	_, err = LookPath("prog", ".:"+dir+"/nowhere", dir)
	if err == nil || !strings.Contains(err.Error(), "found ./prog through a relative PATH entry: name it ./prog") {
		t.Errorf("a relative entry: %v", err)
	}
	// A directory that may not be looked into hides nothing and fails nothing.
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := LookPath("prog", locked+":"+dir+"/two", dir); err != nil {
		t.Error(err)
	} else {
		got.File.Close()
	}
	if _, err := LookPath("absent", locked, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent, beside a locked directory: %v", err)
	}
}
