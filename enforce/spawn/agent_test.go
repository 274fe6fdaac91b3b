//go:build linux

package spawn

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func start(t *testing.T, flags uintptr) *Agent {
	t.Helper()
	g, err := Start(flags, func(g *Agent, l *List) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestListsRunInTheAgent(t *testing.T) {
	g := start(t, 0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(func(l *List) {
		b := l.Arena.Bytes([]byte("hello"))
		pid := l.Result(l.Do("getpid", unix.SYS_GETPID))
		l.Do("pidfd_open", unix.SYS_PIDFD_OPEN, Load(pid), V(0))
		l.Do("write", unix.SYS_WRITE, g.FD(0), V(l.Arena.Addr(b)), V(5))
		l.Do("close", unix.SYS_CLOSE, g.FD(0))
	}, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var b [16]byte
	if n, _ := r.Read(b[:]); string(b[:n]) != "hello" {
		t.Fatalf("read %q", b[:n])
	}
}

func TestStepsFailByName(t *testing.T) {
	g := start(t, 0)
	missing := func(l *List) *Op {
		return l.Do("open it", unix.SYS_OPENAT, V(unix.AT_FDCWD), V(l.Arena.Str("/nonexistent")), V(0))
	}
	err := g.Run(func(l *List) { missing(l) })
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "open it") {
		t.Fatalf("got %v", err)
	}
	for name, refine := range map[string]func(*Op){
		"absent":  func(o *Op) { o.Flags = Absent },
		"ignore":  func(o *Op) { o.Flags = Ignore },
		"refused": func(o *Op) { o.Flags = Refused },
		"want":    func(o *Op) { o.Want = int32(unix.ENOENT) },
		"skip":    func(o *Op) { o.Flags, o.OnError = Absent, 1 },
	} {
		if err := g.Run(func(l *List) {
			refine(missing(l))
			if name == "skip" {
				missing(l)
			}
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, refine := range map[string]func(*Op){
		"refused": func(o *Op) { o.Flags = Refused },
		"want":    func(o *Op) { o.Want = int32(unix.EPERM) },
	} {
		if err := g.Run(func(l *List) { refine(l.Do("getpid", unix.SYS_GETPID)) }); err == nil {
			t.Errorf("%s: a success that should have failed passed", name)
		}
	}
}

func TestForksReport(t *testing.T) {
	g := start(t, unix.CLONE_NEWUSER)
	if err := g.Keep(func(l *List) {
		command := g.NewList()
		command.Do("execve", unix.SYS_EXECVE, V(l.Arena.Str("/bin/sh")), V(l.Arena.Strs([]string{"sh", "-c", "exit 7"})), V(l.Arena.Strs(nil)))
		in := g.NewList()
		in.Tell("ready", g.Events(), EventReady, 5)
		g.ForkCommand(in, unix.CLONE_CLEAR_SIGHAND, command)
		g.ForkInit(l, unix.CLONE_NEWPID, in)
	}); err != nil {
		t.Fatal(err)
	}
	want := [][2]uint32{{EventReady, 5}, {EventStatus, 7 << 8}}
	for _, w := range want {
		var b [8]byte
		if n, err := unix.Read(g.EventFD(), b[:]); n != 8 || err != nil {
			t.Fatal(n, err)
		}
		if got := [2]uint32{uint32(b[0]) | uint32(b[1])<<8, uint32(b[4]) | uint32(b[5])<<8}; got != w {
			t.Errorf("event %v, want %v", got, w)
		}
	}
	if err := g.Wake(); err != nil {
		t.Fatal(err)
	}
}

// The lease: init dies when the deadline passes, and only then.
func TestDeadlineKills(t *testing.T) {
	g := start(t, unix.CLONE_NEWUSER)
	if err := g.Keep(func(l *List) {
		command := g.NewList()
		command.Do("pause", unix.SYS_PPOLL)
		in := g.NewList()
		g.ForkCommand(in, unix.CLONE_CLEAR_SIGHAND, command)
		g.ForkInit(l, unix.CLONE_NEWPID, in)
	}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(g.InitPID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	g.SetDeadline(now.Nano() + 30e6)
	if err := g.Wake(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	if !g.Lapsed() {
		t.Error("init ended, but not by the lease")
	}
}

// TestHeapStaysOut: what this process has on its heap is not in a clone's
// memory, so that it can neither be read there nor costs a copy.
func TestHeapStaysOut(t *testing.T) {
	secrets := make([][]byte, 64)
	for i := range secrets {
		secrets[i] = []byte(strings.Repeat("secret ", 1<<10))
	}
	g := start(t, 0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for i, s := range secrets {
		p := uintptr(unsafe.Pointer(&s[0]))
		if err := g.Run(func(l *List) {
			l.Do("write", unix.SYS_WRITE, g.FD(0), V(p), V(7)).Want = int32(unix.EFAULT)
			l.Do("close", unix.SYS_CLOSE, g.FD(0))
		}, int(w.Fd())); err != nil {
			t.Fatalf("secret %d: %v", i, err)
		}
	}
	// The same step, here: what it was refused for is the memory.
	if _, _, errno := unix.Syscall(unix.SYS_WRITE, w.Fd(), uintptr(unsafe.Pointer(&secrets[0][0])), 7); errno != 0 {
		t.Fatal(errno)
	}
	runtime.KeepAlive(secrets)
}
