//go:build unix

package osfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLock: an open file description has a lock against every other one.
func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a, b := open(), open()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(Lock(a, Try))
	if err := Lock(b, Try); !errors.Is(err, ErrHeld) {
		t.Fatalf("a second exclusive lock: %v", err)
	}
	must(Lock(a, Shared))
	must(Lock(b, Shared))
	if err := Lock(b, Try); !errors.Is(err, ErrHeld) {
		t.Fatalf("exclusive beside shared: %v", err)
	}
	must(a.Close())
	must(Lock(b, Exclusive))
}

// TestNoFollow: the last part of a path is not followed.
func TestNoFollow(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile(link, os.O_RDONLY|NoFollow, 0); err == nil {
		f.Close()
		t.Fatal("a link was followed")
	}
}
