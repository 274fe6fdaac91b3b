//go:build linux

package programs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
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
	c, err := s.Put(f, nil)
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
	// The clock says that nothing is settled: a copy needs no settling.
	s.now = func() time.Time { return time.Unix(0, 0) }
	for what, mode := range map[string]uint32{"made": 0, "opened to others": 0o111} {
		if err := c.Allow(mode); err != nil {
			t.Fatal(err)
		}
		var now unix.Stat_t
		if err := unix.Stat(c.Path, &now); err != nil {
			t.Fatal(err)
		}
		if d, ok := s.cached(identityOf(&now)); !ok || d != c.Digest || now.Mode&mode != mode {
			t.Errorf("just %s, the copy has to be read again (%v %v)", what, d, ok)
		}
	}
	again, err := s.Put(f, nil)
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
		d, err := s.Digest(f, nil)
		if err != nil || d != digestOf("good "+name) {
			t.Errorf("%s: digest %v, %v", name, d, err)
		}
		c, err := s.Put(f, nil)
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
		c, err := s.Put(resolve(t, path), nil)
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
			c, err := s.Put(f, nil)
			if err != nil {
				t.Error(err)
				return
			}
			c.File.Close()
			if d, err := s.Digest(f, nil); err != nil || d != c.Digest {
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
		if _, err := s.Digest(f, nil); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := s.Put(f, nil); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
