//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is also the governed program of many tests: argument 1 is
// "helper", argument 2 names one of these. Each prints "ok" if what it tried
// succeeded, else the error.
var helpers = map[string]func(args []string) error{
	"exec": func(a []string) error {
		out, err := exec.Command(a[0], a[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	},
	"open":  func(a []string) error { _, err := os.ReadFile(a[0]); return err },
	"stat":  func(a []string) error { _, err := os.Stat(a[0]); return err },
	"write": func(a []string) error { return os.WriteFile(a[0], []byte("x"), 0o644) },
	"chmod": func(a []string) error { return os.Chmod(a[0], 0o777) },
	"dial": func(a []string) error {
		c, err := net.DialTimeout(a[0], a[1], time.Second)
		if err == nil {
			b := make([]byte, 5)
			_, err = io.ReadFull(c, b)
			fmt.Printf("%s ", b)
		}
		return err
	},
	"userns": func([]string) error { return unix.Unshare(unix.CLONE_NEWUSER | unix.CLONE_NEWNS) },
	"cloneuserns": func([]string) error {
		c := exec.Command("/bin/true")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS}
		return c.Run()
	},
	"mount":   func([]string) error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
	"umount":  func(a []string) error { return unix.Unmount(a[0], unix.MNT_DETACH) },
	"iouring": func([]string) error { return errnoOf(unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)) },
	"memfd": func(a []string) error {
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(a[0])
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "memfd")
		if _, err := f.Write(b); err != nil {
			return err
		}
		unix.Fchmod(fd, 0o755)
		return exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd)).Run()
	},
	"mapexec": func(a []string) error {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		return err
	},
	"mprotect": func(a []string) error {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
	},
	"ptrace": func([]string) error { return unix.PtraceAttach(1) },
	"readmem": func([]string) error {
		for _, f := range []string{"mem", "environ", "maps"} {
			if b, err := os.ReadFile("/proc/1/" + f); err == nil && len(b) > 0 {
				return nil
			}
		}
		return errors.New("nothing to read")
	},
	"killinit": func([]string) error { return unix.Kill(1, unix.SIGKILL) },
	"signalall": func([]string) error {
		return unix.Kill(-1, 0)
	},
	"swapmem":   swapMemory,
	"swapwrite": swapWrite,
	"swapbuild": swapBuild,
	"swappath": func(a []string) error {
		return swapRace(a[0], a[1], a[2])
	},
	"listen": func([]string) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go func() {
			c, err := l.Accept()
			if err == nil {
				c.Write([]byte("hello"))
				c.Close()
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		_, err = io.ReadAll(c)
		return err
	},
	"unixpair": func(a []string) error {
		l, err := net.Listen("unix", a[0])
		if err != nil {
			return err
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Write([]byte("hello"))
				c.Close()
			}
		}()
		c, err := net.Dial("unix", a[0])
		if err != nil {
			return err
		}
		_, err = io.ReadAll(c)
		return err
	},
	"env": func(a []string) error {
		fmt.Print(os.Getenv(a[0]), " ")
		return nil
	},
	"busy": func([]string) error {
		fmt.Println("busy")
		for {
			runtime.Gosched()
		}
	},
	"caps": func([]string) error {
		b, err := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "Cap") && !strings.HasSuffix(strings.TrimSpace(line), "\t0000000000000000") {
				return nil // has some
			}
		}
		if err == nil {
			err = errors.New("none")
		}
		return err
	},
	"fds": func([]string) error {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		for _, e := range es {
			if n, _ := strconv.Atoi(e.Name()); n > 2 {
				if l, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.Contains(l, "/proc/") && !strings.Contains(l, "eventpoll") && !strings.Contains(l, "eventfd") && !strings.Contains(l, "/sys/fs/cgroup/") {
					fmt.Print(l, " ")
					return nil // one that was inherited
				}
			}
		}
		return errors.New("only standard ones")
	},
	"forkbomb": forkMany,
}

func errnoOf(_, _ uintptr, e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// flipping gives a path argument that another thread changes all the time from
// one path to the other.
func flipping(one, other string) (p unsafe.Pointer, stop func()) {
	buf := make([]byte, max(len(one), len(other))+1)
	var stopped atomic.Bool
	begun := make(chan struct{})
	flip := func(s string) {
		for i := range buf {
			c := byte(0)
			if i < len(s) {
				c = s[i]
			}
			buf[i] = c
		}
	}
	go func() {
		runtime.LockOSThread()
		flip(one)
		close(begun)
		for !stopped.Load() {
			flip(other)
			flip(one)
		}
	}()
	<-begun
	return unsafe.Pointer(&buf[0]), func() { stopped.Store(true) }
}

// swapMemory executes a path that changes to the forbidden one.
func swapMemory(a []string) error {
	p, stop := flipping(a[0], a[1])
	defer stop()
	return spawnMany(200, p)
}

// spawnMany forks children that execute the path at p and reports whether any
// of them became the forbidden program, which exits with 77.
func spawnMany(rounds int, p unsafe.Pointer) error {
	argv := []uintptr{uintptr(p), 0}
	envv := []uintptr{0}
	for range rounds {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			unix.RawSyscall(unix.SYS_EXECVE, uintptr(p), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])))
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(int(pid), &ws, 0, nil); err != nil {
			return err
		}
		if ws.ExitStatus() == 77 {
			return nil // won
		}
	}
	return errors.New("never won")
}

// swapRace renames the forbidden program over the approved path and back while
// children execute that path.
func swapRace(path, good, bad string) error {
	var stop atomic.Bool
	done := make(chan bool)
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, from := range []string{good, bad} {
				os.Remove(path + ".new")
				os.Link(from, path+".new")
				os.Rename(path+".new", path)
			}
		}
	}()
	p := append([]byte(path), 0)
	err := spawnMany(100, unsafe.Pointer(&p[0]))
	stop.Store(true)
	<-done
	return err
}

// forkMany starts args[0] processes that cannot be found by their parents:
// double forks in sessions of their own.
func forkMany(a []string) error {
	n, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	for range n {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
			grandchild, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if grandchild != 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			for {
				unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
		var ws unix.WaitStatus
		unix.Wait4(int(pid), &ws, 0, nil)
	}
	fmt.Println("forked")
	select {}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		if os.Args[2] == "supervise" {
			supervise(os.Args[3:])
			return
		}
		err := helpers[os.Args[2]](os.Args[3:])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ok")
		return
	}
	os.Exit(m.Run())
}

var _ = netip.Addr{}
