//go:build linux

package programs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func resolve(t *testing.T, path string) *File {
	t.Helper()
	f, err := ownProcess().Resolve(unix.AT_FDCWD, path, FollowLast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// write makes or rewrites a program.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func digestOf(content string) exeq.Digest { return sha256.Sum256([]byte(content)) }

// later gives the store a clock by which every file is long settled.
func later(s *Store) *Store {
	s.now = func() time.Time { return time.Now().Add(time.Hour) }
	return s
}

func content(t *testing.T, c *Copy) string {
	t.Helper()
	b, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	defer s.Close()
	path := filepath.Join(dir, "p")
	write(t, path, "one")
	if err := unix.Chmod(path, 0o4775); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1_000_000_000, 123)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	f := resolve(t, path)
	c, err := s.Put(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.File.Close()
	st, err := os.Stat(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Digest != digestOf("one") || content(t, c) != "one" || st.Mode() != 0o555 || !st.ModTime().Equal(old) {
		t.Errorf("digest %v, content %q, mode %v, time %v", c.Digest, content(t, c), st.Mode(), st.ModTime())
	}
	if p := f.Privileged(); p != "set-user-ID" {
		t.Errorf("privileged: %q", p)
	}
	again, err := s.Put(f)
	if err != nil || again.Path != c.Path {
		t.Errorf("second time: %+v, %v", again, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "store", "new-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		t.Error(err)
	}
}

// TestSwapHasNoEffect: between resolving and reading, the path leads elsewhere.
func TestSwapHasNoEffect(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	defer s.Close()
	path := filepath.Join(dir, "p")
	evil := filepath.Join(dir, "evil")
	swaps := map[string]func(){
		"rename over": func() { os.Rename(evil, path) },
		"symlink":     func() { os.Remove(path); os.Symlink(evil, path) },
		"directory":   func() { os.Remove(path); os.Mkdir(path, 0o755) },
		"gone":        func() { os.Remove(path) },
	}
	for name, swap := range swaps {
		os.RemoveAll(path)
		write(t, path, "good "+name)
		write(t, evil, "evil")
		f := resolve(t, path)
		swap()
		if now, err := os.ReadFile(path); err == nil && string(now) != "evil" {
			t.Fatalf("%s: the control swap did not work: %q", name, now)
		}
		d, err := s.Digest(f)
		if err != nil || d != digestOf("good "+name) {
			t.Errorf("%s: digest %v, %v", name, d, err)
		}
		c, err := s.Put(f)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Digest != digestOf("good "+name) || content(t, c) != "good "+name {
			t.Errorf("%s: the copy holds %q", name, content(t, c))
		}
		c.File.Close()
	}
}

// TestCopyIsWhatItsDigestSays: a writer changes the file all the time; every
// copy has the digest of its own bytes.
func TestCopyIsWhatItsDigestSays(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	defer s.Close()
	path := filepath.Join(dir, "p")
	block := func(c byte) []byte { return bytes.Repeat([]byte{c}, 1<<20) }
	if err := os.WriteFile(path, block('a'), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer w.Close()
		for c := byte('a'); ; c++ {
			select {
			case <-stop:
				return
			default:
				w.WriteAt(block('a'+c%26), 0)
			}
		}
	})
	seen := map[exeq.Digest]bool{}
	for range 40 {
		c, err := s.Put(resolve(t, path))
		if err != nil {
			t.Error(err)
			break
		}
		b := content(t, c)
		if sha256.Sum256([]byte(b)) != c.Digest {
			t.Error("a copy has another digest than its bytes")
		}
		seen[c.Digest] = true
		c.File.Close()
	}
	close(stop)
	wg.Wait()
	if len(seen) < 2 {
		t.Errorf("the writer had no effect: %d digests", len(seen))
	}
}

func TestWriteAfterHash(t *testing.T) {
	dir := t.TempDir()
	s := later(openStore(t, filepath.Join(dir, "store")))
	defer s.Close()
	path := filepath.Join(dir, "p")
	write(t, path, "one")
	before := resolve(t, path)
	if d, err := s.Digest(before); err != nil || d != digestOf("one") {
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
	if d, err := s.Digest(after); err != nil || d != digestOf("two") {
		t.Errorf("after a write: %v, %v", d, err)
	}
	if c, err := s.Put(after); err != nil || content(t, c) != "two" {
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
		d, err := s.Digest(f)
		if err != nil || d != digestOf(text) {
			t.Fatalf("write %d: digest of something else (%v)", i, err)
		}
		c, err := s.Put(f)
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
}

func TestDigestsAreKept(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	path := filepath.Join(dir, "p")
	write(t, path, "one")
	f := resolve(t, path)
	s := later(openStore(t, store))
	if _, err := s.Digest(f); err != nil {
		t.Fatal(err)
	}
	// Another process saves meanwhile: both are kept.
	other := filepath.Join(dir, "q")
	write(t, other, "two")
	g := resolve(t, other)
	s2 := later(openStore(t, store))
	if _, err := s2.Digest(g); err != nil {
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
		s.dirfd.Close()
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
	c, err := s.Put(resolve(t, path))
	if err != nil {
		t.Fatal(err)
	}
	c.File.Close()
	if err := os.Chmod(c.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, c.Path, "two")
	if _, err := s.Get(c.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged copy: %v", err)
	}
	if c, err = s.Put(resolve(t, path)); err != nil || content(t, c) != "one" {
		t.Errorf("made again: %+v, %v", c, err)
	}
	if err := os.Remove(c.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, c.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(c.Digest); err == nil {
		t.Error("a symbolic link in the store was followed")
	}
}

func TestStoreThatOthersReach(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("mode 0750: %v", err)
	}
	link := dir + "-link"
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(link); err == nil {
		t.Error("a symbolic link was followed")
	}
}

func TestStoreOnNoexecMount(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{"store-noexec": "noexec mount", "store-exec": ""} {
		cmd := exec.Command(exe)
		cmd.Env = []string{peerEnv + "=" + kind}
		cmd.Dir = t.TempDir()
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || want == "" && len(out) > 0 {
			t.Errorf("%s: %s (%v)", kind, out, err)
		}
	}
}

func peerStore(kind string) error {
	var flags uintptr
	if kind == "store-noexec" {
		flags = unix.MS_NOEXEC
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=0700"); err != nil {
		return err
	}
	s, err := OpenStore(dir + "/store")
	if err != nil {
		fmt.Print(err)
		return nil
	}
	return s.Close()
}

func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := later(openStore(t, filepath.Join(dir, "store")))
	defer s.Close()
	path := filepath.Join(dir, "p")
	write(t, path, strings.Repeat("x", 1<<20))
	f := resolve(t, path)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c, err := s.Put(f)
			if err != nil {
				t.Error(err)
				return
			}
			c.File.Close()
			if d, err := s.Digest(f); err != nil || d != c.Digest {
				t.Error(d, err)
			}
		})
	}
	wg.Wait()
}

func TestWhatHasNoDigest(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	defer s.Close()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/null"} {
		f := resolve(t, path)
		if _, err := s.Digest(f); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := s.Put(f); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

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
}
