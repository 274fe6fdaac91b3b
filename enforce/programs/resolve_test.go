//go:build linux

package programs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/internal/nobody"
)

// A peer is this test binary as a governed process: it opens paths itself and
// says what it got. Resolve, from outside, must come to the same.

const peerEnv = "EXEQ_PROGRAMS_PEER"

func TestMain(m *testing.M) {
	if kind := os.Getenv(peerEnv); kind != "" {
		if err := peerMain(kind); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type query struct {
	Dirfd  int
	Path   string
	Follow Follow
}

type answer struct {
	Errno    unix.Errno
	Dev, Ino uint64
	Path     string
}

type hello struct{ Cwd, Dirfd int }

func peerMain(kind string) error {
	if kind == "argv" {
		return json.NewEncoder(os.Stdout).Encode(os.Args)
	}
	if strings.HasPrefix(kind, "store-") {
		return peerStore(kind)
	}
	if kind == "namespaces" {
		root, err := os.Getwd()
		if err != nil {
			return err
		}
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(root, root, "", unix.MS_BIND, ""),
			unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""),
			unix.Chdir(root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"),
		); err != nil {
			return fmt.Errorf("make a root: %w", err)
		}
	}
	base := os.Getenv("EXEQ_PROGRAMS_BASE")
	if err := os.Chdir(filepath.Join(base, "a/b")); err != nil {
		return err
	}
	dirfd, err := unix.Open(filepath.Join(base, "d"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(hello{Dirfd: dirfd}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var q query
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return err
		}
		if err := out.Encode(q.answer()); err != nil {
			return err
		}
	}
	return in.Err()
}

func (q query) answer() (a answer) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if q.Follow == NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	path := q.Path
	switch { // O_PATH knows no AT_EMPTY_PATH
	case path == "" && q.Dirfd == unix.AT_FDCWD:
		path = "."
	case path == "":
		path, flags = fdPath(q.Dirfd), unix.O_PATH|unix.O_CLOEXEC
	}
	fd, err := unix.Openat(q.Dirfd, path, flags, 0)
	if err != nil {
		errors.As(err, &a.Errno)
		return a
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		errors.As(err, &a.Errno)
		return a
	}
	a.Dev, a.Ino = uint64(st.Dev), st.Ino
	a.Path, _ = os.Readlink(fdPath(fd))
	return a
}

type peer struct {
	Process
	dirfd int
	ask   func(query) answer
}

// startPeer lays a tree of every kind of link and starts a peer in it.
func startPeer(t *testing.T, kind string) peer {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base := root
	if kind == "namespaces" {
		base = "/"
	}
	for _, d := range []string{"a/b/c", "d/e", "proc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"a/f", "a/b/f", "a/b/c/f", "d/f", "d/e/f (deleted)"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"a/rel": "b/c", "a/up": "../d", "a/far": "../../../../../../..", "a/abs": filepath.Join(base, "d/e"), "a/b/root": "/",
		"a/b/loop": "loop", "a/b/ping": "pong", "a/b/pong": "ping", "d/file": "../a/f", "d/gone": "nowhere",
		"d/self": "/proc/self/cwd", "d/slash": "../a/b/", "d/e/chain": "../../a/up/e", "d/exe": "/proc/self/exe",
		"d/mounts": "/proc/mounts",
	} {
		if err := os.Symlink(text, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{peerEnv + "=" + kind, "EXEQ_PROGRAMS_BASE=" + base}
	cmd.Dir, cmd.Stderr = root, os.Stderr
	outside, err := os.Open(filepath.Join(root, "a/f"))
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	cmd.ExtraFiles = []*os.File{outside} // descriptor 3
	if kind != "plain" {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("peer: %v", err)
		}
	})
	dec := json.NewDecoder(out)
	var h hello
	if err := dec.Decode(&h); err != nil {
		t.Fatalf("peer did not start: %v", err)
	}
	enc := json.NewEncoder(in)
	return peer{Process{cmd.Process.Pid}, h.Dirfd, func(q query) (a answer) {
		t.Helper()
		if err := errors.Join(enc.Encode(q), dec.Decode(&a)); err != nil {
			t.Fatal(err)
		}
		return a
	}}
}

func (p peer) compare(t *testing.T, q query) {
	t.Helper()
	want := p.ask(q)
	f, err := p.Resolve(q.Dirfd, q.Path, q.Follow)
	defer f.Close()
	switch mount, merr := p.Mount(q.Dirfd, q.Path, q.Follow); {
	case merr == nil && (err != nil || f.Mount != mount):
		t.Errorf("%+v: on mount %d, resolved to %+v, %v", q, mount, f, err)
	case err == nil && q.Path != "" && (merr == unix.ENOENT || merr == unix.ENOTDIR):
		t.Errorf("%+v: resolved to %+v, its mount is not found: %v", q, f, merr)
	}
	if err != nil {
		var errno unix.Errno
		if !errors.As(err, &errno) || errno != want.Errno {
			t.Errorf("%+v: resolved to %v, the process gets %+v", q, err, want)
		}
		return
	}
	if want.Errno != 0 || f.ID.Dev != want.Dev || f.ID.Ino != want.Ino {
		t.Errorf("%+v: resolved to %s {%d %d}, the process gets %+v", q, f.Path, f.ID.Dev, f.ID.Ino, want)
		return
	}
	if strings.HasPrefix(want.Path, "/") && f.Path != want.Path {
		t.Errorf("%+v: path %s, the process sees %s", q, f.Path, want.Path)
	}
}

func TestResolveAsTheProcess(t *testing.T) {
	for _, kind := range []string{"plain", "pid namespace", "namespaces"} {
		t.Run(kind, func(t *testing.T) {
			p := startPeer(t, kind)
			cwd := func(path string) query { return query{unix.AT_FDCWD, path, FollowLast} }
			for _, path := range []string{
				"/", ".", "..", "../..", "f", "./f", "f/", "f/.", "c/", "c/f", "../rel", "../rel/f", "../rel/../f", "../up/e", "../abs",
				"../far", "../far/etc", "loop", "ping", "root", "root/", "root/..", "../../d/file", "../../d/file/", "../../d/gone",
				"../../d/self", "../../d/self/c", "../../d/slash", "../../d/e/chain", "../../d/mounts", "../../d/e/f (deleted)",
				"nothing", "nothing/below", "f/below", "", strings.Repeat("x", 300), strings.Repeat("./", 2100),
				"/proc", "/proc/self", "/proc/self/", "/proc/self/cwd", "/proc/self/cwd/../f", "/proc/self/root", "/proc/self/root/proc/self/cwd",
				"/proc/thread-self/cwd/c", "/proc/self/fd", "/proc/self/ns", "/proc/mounts", "/proc/net", "/proc/self/exe",
				fmt.Sprintf("/proc/self/fd/%d/e", p.dirfd), fmt.Sprintf("/proc/self/fd/%d", p.dirfd), "../../d/exe", "/proc/self/nothing",
				"/dev/null", "/bin/sh", "/etc/alternatives/awk", "/lib64/ld-linux-x86-64.so.2",
			} {
				p.compare(t, cwd(path))
				p.compare(t, query{unix.AT_FDCWD, path, NoFollow})
				p.compare(t, query{p.dirfd, path, FollowLast})
			}
			p.compare(t, query{999, "x", FollowLast})
			if _, err := p.Resolve(999, "", FollowLast); !errors.Is(err, unix.EBADF) {
				t.Errorf("a descriptor that is not there: %v", err)
			}
			p.compare(t, query{999, "/proc", FollowLast})
			parts := []string{"a", "b", "c", "d", "e", "f", "rel", "up", "far", "abs", "root", "self", "slash", "chain", "file", "..", "..", "..", ".",
				"", "proc", "self", "cwd", "root", "proc/self/cwd", "exe", "gone", "loop", "f (deleted)"}
			rng := rand.New(rand.NewPCG(3, 5))
			for range 3000 {
				var path []string
				for range 1 + rng.IntN(9) {
					path = append(path, parts[rng.IntN(len(parts))])
				}
				q := query{unix.AT_FDCWD, strings.Join(path, "/"), Follow(rng.IntN(2))}
				if rng.IntN(3) == 0 {
					q.Dirfd = p.dirfd
				}
				if p.compare(t, q); t.Failed() {
					return
				}
			}
		})
	}
}

// TestNotTheSupervisorsOwn: /proc/self on behalf of a process is that process.
func TestNotTheSupervisorsOwn(t *testing.T) {
	p := startPeer(t, "plain")
	f, err := p.Resolve(unix.AT_FDCWD, "/proc/self/environ", FollowLast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !f.Process() {
		t.Error("a file of proc is not known as one")
	}
	if want := fmt.Sprintf("/proc/%d/environ", p.PID); f.Path != want || f.Stale {
		t.Errorf("path %s, want %s", f.Path, want)
	}
}

// TestForeign: a descriptor from outside the process's mount namespace is known
// as one, although its path leads to the same file inside.
func TestForeign(t *testing.T) {
	for kind, want := range map[string]bool{"plain": false, "pid namespace": true, "namespaces": true} {
		p := startPeer(t, kind)
		for _, path := range []string{"", "/proc/self/fd/3"} {
			f, err := p.Resolve(3, path, FollowLast)
			if err != nil {
				t.Fatal(err)
			}
			if f.Foreign != want || f.Stale != want {
				t.Errorf("%s, %q: foreign is %v, stale %v", kind, path, f.Foreign, f.Stale)
			}
			f.Close()
		}
		for _, path := range []string{"f", "/proc/self/cwd/f", "/"} {
			f, err := p.Resolve(unix.AT_FDCWD, path, FollowLast)
			if err != nil {
				t.Fatal(err)
			}
			if f.Foreign || f.Stale {
				t.Errorf("%s, %q: foreign is %v, stale %v", kind, path, f.Foreign, f.Stale)
			}
			f.Close()
		}
	}
}

func TestResolveNew(t *testing.T) {
	p := startPeer(t, "namespaces")
	for _, c := range []struct {
		path, dir, base string
		err             error
	}{
		{"new", "/a/b", "new", nil},
		{"../new", "/a", "new", nil},
		{"../rel/new", "/a/b/c", "new", nil},
		{"f", "/a/b/f", "", nil},
		{"nowhere/new", "", "", unix.ENOENT},
		{"new/", "", "", unix.ENOENT},
		{"f/new", "", "", unix.ENOTDIR},
		{"/d/gone", "/d", "nowhere", nil}, // through a dangling link
		{"loop", "", "", unix.ELOOP},
	} {
		f, base, err := p.ResolveNew(unix.AT_FDCWD, c.path, FollowLast)
		if !errors.Is(err, c.err) || err == nil != (c.err == nil) {
			t.Errorf("%s: %v, want %v", c.path, err, c.err)
			continue
		}
		if err == nil && (base != c.base || !strings.HasSuffix(f.Path, c.dir)) {
			t.Errorf("%s: %s and %q, want %s and %q", c.path, f.Path, base, c.dir, c.base)
		}
		f.Close()
	}
}

func TestStale(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	write := func(p string) {
		if err := os.WriteFile(p, []byte(p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fd := func() int {
		n, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(n) })
		return n
	}
	stale := func(n int) bool {
		f, err := ownProcess().Resolve(n, "", FollowLast)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return f.Stale
	}
	write(path)
	n := fd()
	if stale(n) {
		t.Error("a file in its place is stale")
	}
	write(path + "2")
	if err := os.Rename(path+"2", path); err != nil {
		t.Fatal(err)
	}
	if !stale(n) {
		t.Error("a file whose name another took is not stale")
	}
	n = fd()
	if err := os.Link(path, path+"3"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !stale(n) {
		t.Error("a removed name of a file that has another is not stale")
	}
	memfd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	if !stale(memfd) {
		t.Error("a memfd is not stale")
	}
}

func TestAsNobody(t *testing.T) { nobody.Rerun(t, "^Test[^A]") }
