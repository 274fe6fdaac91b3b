//go:build linux

package programs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq"
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
		got, err := LookPath(c.command, env, dir, "")
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
	if _, err := LookPath("prog", env, "relative", ""); err == nil {
		t.Error("a relative directory was taken")
	}
	if _, err := LookPath("prog", dir+"/one", dir, ""); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that is not executable: %v", err)
	}
	_, err = LookPath("prog", ".:"+dir+"/nowhere", dir, "")
	if err == nil || !strings.Contains(err.Error(), "found ./prog through a relative PATH entry: name it ./prog") {
		t.Errorf("a relative entry: %v", err)
	}
	// A directory that may not be looked into hides nothing and fails nothing.
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := LookPath("prog", locked+":"+dir+"/two", dir, ""); err != nil {
		t.Error(err)
	} else {
		got.File.Close()
	}
	if _, err := LookPath("absent", locked, dir, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent, beside a locked directory: %v", err)
	}
}

// The digest of a large program comes from the store's record, of exactly the
// file that was hashed, and from a record that is whole and the user's alone.
func TestLookPathRecalls(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store, path := filepath.Join(dir, "store"), filepath.Join(dir, "prog")
	text := strings.Repeat("one\n", 4096)
	write(t, path, text)
	look := func() exeq.Digest {
		t.Helper()
		c, err := LookPath(path, "", "/", store)
		if err != nil {
			t.Fatal(err)
		}
		c.File.Close()
		return c.SHA256
	}
	record := func(d exeq.Digest) {
		t.Helper()
		s := openStore(t, store)
		s.remember(resolve(t, path).ID, d)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if look() != digestOf(text) { // nothing is on record
		t.Error("a digest of something else")
	}
	mark := digestOf("told by the record alone")
	record(mark)
	if look() != mark {
		t.Error("what is on record is read again")
	}
	// Attacks: a record that others could have written, one that was changed.
	if err := os.Chmod(store, 0o777); err != nil {
		t.Fatal(err)
	}
	if look() == mark {
		t.Error("a record in a directory of everybody's is believed")
	}
	if err := os.Chmod(store, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(store, cacheName)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if look() != digestOf(text) {
			t.Fatalf("a record with byte %d changed is believed", i)
		}
	}
	// An attack: other bytes of the same size and modification time, in place and
	// by another file of that name.
	record(mark)
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for before := resolve(t, path).ID; resolve(t, path).ID == before; {
		text = strings.Repeat("two\n", 4096)
		write(t, path, text)
		if err := os.Chtimes(path, was.ModTime(), was.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	if look() != digestOf(text) {
		t.Error("a program that was written since is not read again")
	}
	record(mark)
	text = strings.Repeat("six\n", 4096)
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if look() != digestOf(text) {
		t.Error("a program that was replaced is not read again")
	}
	record(mark)
	if text = "small"; os.WriteFile(path, []byte(text), 0o755) != nil || look() != digestOf(text) {
		t.Error("a small program is not read")
	}
}
