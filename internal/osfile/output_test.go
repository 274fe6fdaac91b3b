//go:build unix

package osfile

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func put(path, text string) error {
	o, err := NewOutput(path)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Put([]byte(text))
}

func mustPut(t *testing.T, path, text string) {
	t.Helper()
	if err := put(path, text); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOutputReplaces: whole, with the permission bits that the file had, and
// without changing what its other names lead to.
func TestOutputReplaces(t *testing.T) {
	dir := t.TempDir()
	name, other := filepath.Join(dir, "f"), filepath.Join(dir, "other")
	mustPut(t, name, "one")
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(name, other); err != nil {
		t.Fatal(err)
	}
	mustPut(t, name, "two")
	if got := content(t, name) + content(t, other); got != "twoone" {
		t.Errorf("the file and its other name have %q", got)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

// TestOutputRefuses: what is neither, and leaves it as it was.
func TestOutputRefuses(t *testing.T) {
	dir := t.TempDir()
	name, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	mustPut(t, name, "one")
	for path, target := range map[string]string{
		link: name, filepath.Join(dir, "dangling"): filepath.Join(dir, "new"),
		filepath.Join(dir, "stdout"): "/dev/stdout", filepath.Join(dir, "null"): "/dev/null",
	} {
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := put(path, "two"); err == nil || !strings.Contains(err.Error(), target) {
			t.Errorf("%s: %v", path, err)
		}
		if to, err := os.Readlink(path); err != nil || to != target {
			t.Errorf("%s: %q, %v", path, to, err)
		}
	}
	if got := content(t, name); got != "one" {
		t.Errorf("the link's target has %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, "new")); err == nil {
		t.Error("a dangling link was followed")
	}
	socket := filepath.Join(dir, "socket")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{socket, dir, filepath.Join(name, "below"), "/dev/fd/x", "/dev/fd/-1"} {
		if err := put(path, "two"); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if info, err := os.Lstat(socket); err != nil || info.Mode()&os.ModeSocket == 0 {
		t.Errorf("the socket was replaced: %v, %v", info, err)
	}
}

// TestOutputWritesThrough: a FIFO stays one, and its reader gets all of it and
// then the end, also where the name was given to something else meanwhile.
func TestOutputWritesThrough(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		f, err := os.Open(name)
		if err != nil {
			read <- err.Error()
			return
		}
		defer f.Close()
		b, _ := io.ReadAll(f)
		read <- string(b)
	}()
	o, err := NewOutput(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name, name+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("victim", name); err != nil {
		t.Fatal(err)
	}
	if err := o.Put([]byte("text")); err != nil {
		t.Fatal(err)
	}
	o.Close()
	if got := <-read; got != "text" {
		t.Errorf("read %q", got)
	}
	if info, err := os.Lstat(name + "2"); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the FIFO was replaced: %v, %v", info, err)
	}
	if err := put("/dev/full", "text"); err != nil && strings.Contains(err.Error(), "no such file") {
		t.Skip("no /dev/full here")
	} else if err == nil {
		t.Error("/dev/full took it")
	}
	if info, err := os.Lstat("/dev/full"); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the device was replaced: %v, %v", info, err)
	}
}

// TestOutputDescriptor: only what our caller gave is written to, not what we
// opened ourselves.
func TestOutputDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	path := "/dev/fd/" + strconv.Itoa(int(w.Fd()))
	if err := put(path, "own"); err == nil || !strings.Contains(err.Error(), "was given") {
		t.Errorf("a descriptor of our own: %v", err)
	}
	given, err := syscall.Dup(int(w.Fd())) // without close-on-exec, as one that was inherited
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(given)
	mustPut(t, "/dev/fd/"+strconv.Itoa(given), "given")
	b := make([]byte, 16)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "given" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}
