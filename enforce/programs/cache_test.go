//go:build linux

package programs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWriteAfterHash(t *testing.T) {
	dir := t.TempDir()
	s := later(openStore(t, filepath.Join(dir, "store")))
	defer s.Close()
	path := filepath.Join(dir, "p")
	write(t, path, "one")
	before := resolve(t, path)
	if d, err := s.Digest(before, nil); err != nil || d != digestOf("one") {
		t.Fatal(d, err)
	}
	if _, ok := s.cached(before.ID); !ok {
		t.Fatal("a settled file is not cached")
	}
	// Same size, same modification time, same inode.
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for { // until the clock that stamps changes has moved on
		if _, err := w.WriteAt([]byte("two"), 0); err != nil {
			t.Fatal(err)
		}
		if resolve(t, path).ID != before.ID {
			break
		}
	}
	w.Close()
	if err := os.Chtimes(path, time.Time{}, time.Unix(0, before.Mtime)); err != nil {
		t.Fatal(err)
	}
	after := resolve(t, path)
	if d, err := s.Digest(after, nil); err != nil || d != digestOf("two") {
		t.Errorf("after a write: %v, %v", d, err)
	}
	if c, err := s.Put(after, nil); err != nil || content(t, c) != "two" {
		t.Errorf("after a write: %+v, %v", c, err)
	}
}

// TestRacyChangeTime: a second write within the clock's grain may leave the
// identity as it was. Nothing that fresh may be cached.
func TestRacyChangeTime(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	defer s.Close()
	path := filepath.Join(dir, "p")
	fresh := 0
	for i := range 100 {
		text := fmt.Sprintf("%08d", i)
		write(t, path, text)
		f := resolve(t, path)
		if !settled(f.ID, time.Now()) {
			fresh++
		}
		d, err := s.Digest(f, nil)
		if err != nil || d != digestOf(text) {
			t.Fatalf("write %d: digest of something else (%v)", i, err)
		}
		c, err := s.Put(f, nil)
		if err != nil || content(t, c) != text {
			t.Fatalf("write %d: copy of something else (%v)", i, err)
		}
		c.File.Close()
	}
	if fresh == 0 {
		t.Error("no write was fresh")
	}
	now := time.Now()
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{-time.Hour, false}, {0, false}, {racyWindow, false}, {racyWindow + 1, true}, {time.Hour, true}} {
		if got := settled(Identity{Ctime: now.Add(-c.age).UnixNano()}, now); got != c.want {
			t.Errorf("a change %v ago: settled is %v", c.age, got)
		}
	}
	// Two changes within one second look like one where whole seconds are kept.
	whole := now.Truncate(time.Second)
	for after, want := range map[time.Duration]bool{racyWindow + 1: false, coarseTimes: false, coarseTimes + racyWindow + 1: true} {
		if got := settled(Identity{Ctime: whole.UnixNano()}, whole.Add(after)); got != want {
			t.Errorf("a change in the second that began %v ago: settled is %v", after, got)
		}
	}
}

func TestDigestsAreKept(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	path := filepath.Join(dir, "p")
	write(t, path, "one")
	f := resolve(t, path)
	s := later(openStore(t, store))
	if _, err := s.Digest(f, nil); err != nil {
		t.Fatal(err)
	}
	// Another process saves meanwhile: both are kept.
	other := filepath.Join(dir, "q")
	write(t, other, "two")
	g := resolve(t, other)
	s2 := later(openStore(t, store))
	if _, err := s2.Digest(g, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s2.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, store)
	for _, x := range []*File{f, g} {
		if _, ok := s.cached(x.ID); !ok {
			t.Errorf("the digest of %s was not kept", x.Path)
		}
	}
	s.Close()

	good, err := os.ReadFile(filepath.Join(store, cacheName))
	if err != nil {
		t.Fatal(err)
	}
	damage := [][]byte{nil, []byte("x"), good[:len(good)/2], good[:len(good)-1], append(bytes.Clone(good), '\n'), bytes.Repeat([]byte("["), 1<<20)}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		damage = append(damage, b)
	}
	for i, b := range damage {
		if err := os.WriteFile(filepath.Join(store, cacheName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore(store)
		if err != nil {
			t.Fatalf("damage %d: %v", i, err)
		}
		if _, ok := s.cached(f.ID); ok {
			t.Errorf("damage %d: %q was believed", i, b[:min(80, len(b))])
		}
		s.changed = false
		s.Close()
	}
}

// TestDamagedCopy: what lies under a digest in the store is that or is not
// given.
func TestDamagedCopy(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	s := later(openStore(t, store))
	path := filepath.Join(dir, "p")
	write(t, path, "one")
	c, err := s.Put(resolve(t, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.File.Close()
	if err := os.Chmod(c.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, c.Path, "two")
	if _, err := s.Get(c.Digest, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged copy: %v", err)
	}
	if c, err = s.Put(resolve(t, path), nil); err != nil || content(t, c) != "one" {
		t.Errorf("made again: %+v, %v", c, err)
	}
	if err := os.Remove(c.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, c.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(c.Digest, nil); err == nil {
		t.Error("a symbolic link in the store was followed")
	}
}

// TestPrune: who opens the store alone cleans it, nobody cleans it under
// another.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	s := openStore(t, store)
	var copies []*Copy
	changed := func(c *Copy) time.Time { return time.Unix(0, resolve(t, c.Path).ID.Ctime) }
	for i := range 4 {
		path := filepath.Join(dir, fmt.Sprint(i))
		write(t, path, strings.Repeat(fmt.Sprint(i), 1000))
		c, err := s.Put(resolve(t, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.File.Close()
		for i > 0 && !changed(c).After(changed(copies[i-1])) { // within one tick
			if err := os.Chmod(c.Path, 0o555); err != nil {
				t.Fatal(err)
			}
		}
		copies = append(copies, c)
	}
	left := filepath.Join(store, "new-left")
	write(t, left, "half")
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	s2 := openStore(t, store)
	if !there(left) {
		t.Error("cleaned while the store was in use")
	}
	if err := errors.Join(s.Close(), s2.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, store)
	defer s.Close()
	if there(left) {
		t.Error("a half-made copy was left")
	}
	if err := s.prune(2500); err != nil {
		t.Fatal(err)
	}
	for i, c := range copies {
		if there(c.Path) != (i >= 2) {
			t.Errorf("copy %d: there is %v", i, there(c.Path))
		}
	}
	if c, err := s.Put(resolve(t, filepath.Join(dir, "0")), nil); err != nil || content(t, c) != strings.Repeat("0", 1000) {
		t.Errorf("a pruned program: %v", err)
	}
}
