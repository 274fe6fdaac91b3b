//go:build linux

// Victim tries what its arguments name, one after the other, and says of each
// what the kernel answered: 0, or an errno. It is one static program, so that
// what holds it is tried and nothing that a shell or a library does besides.
//
// After "again FILE" it tries them all at once, each over and over until it is
// killed, and writes into FILE only what succeeded, and how often it has tried.
package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var attempts = map[string]func(arg string) error{
	"wait": func(string) error {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("waiting")
		<-c
		return nil
	},
	"exec": func(path string) error {
		p, err := os.StartProcess(path, []string{path}, &os.ProcAttr{})
		if err != nil {
			return err
		}
		s, err := p.Wait()
		if err == nil && !s.Success() {
			err = fmt.Errorf("it ended: %s", s)
		}
		return err
	},
	"read":  func(path string) error { return open(path, unix.O_RDONLY) },
	"list":  func(path string) error { return open(path, unix.O_RDONLY|unix.O_DIRECTORY) },
	"write": func(path string) error { return open(path, unix.O_WRONLY|unix.O_CREAT) },
	"rename": func(path string) error {
		if err := os.Rename(path, path+"-moved"); err != nil {
			return err
		}
		return os.Rename(path+"-moved", path)
	},
	"handle": func(path string) error {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
		if err != nil {
			return err
		}
		at, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		defer unix.Close(at)
		fd, err := unix.OpenByHandleAt(at, h, unix.O_RDONLY)
		if err == nil {
			unix.Close(fd)
		}
		return err
	},
	"map": func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		defer unix.Close(fd)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		if err == nil {
			unix.Munmap(b)
		}
		return err
	},
	"connect": func(addr string) error {
		a, err := netip.ParseAddrPort(addr)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()})
	},
	"unix": func(path string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	},
	"packet": func(string) error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	},
	"ptrace": func(pid string) error {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return err
		}
		if err := unix.PtraceSeize(n); err != nil {
			return err
		}
		if err := unix.PtraceInterrupt(n); err != nil {
			return err
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(n, &ws, unix.WALL, nil); err != nil {
			return err
		}
		return unix.PtraceDetach(n)
	},
	"signal": func(pid string) error {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return err
		}
		return unix.Kill(n, unix.SIGCONT)
	},
	"mount": func(dir string) error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		return unix.Unmount(dir, 0)
	},
	// A child, since it would change what this one is.
	"userns": func(string) error {
		p, err := os.StartProcess("/proc/self/exe", []string{"victim"}, &os.ProcAttr{
			Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}})
		if err != nil {
			return err
		}
		_, err = p.Wait()
		return err
	},
	"bpf": func(string) error {
		attr := struct{ kind, key, value, max, flags uint32 }{2, 4, 4, 1, 0} // an array
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno != 0 {
			return errno
		}
		return unix.Close(int(fd))
	},
	"perf": func(string) error {
		fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
			Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}, 0, -1, -1, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	},
	"uring": func(string) error { // with a thread of the kernel's own
		var params [120]byte
		params[8] = 2 // IORING_SETUP_SQPOLL
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
		if errno != 0 {
			return errno
		}
		return unix.Close(int(fd))
	},
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// again goes on until it is killed. None of them waits for another, since one may
// have to wait for an answer that nobody gives any more. FILE has two fields a
// line: an attempt that succeeded; or "tried" and a number, up to now.
func again(file string, args []string) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var tried atomic.Int64
	for i := 0; i+1 < len(args); i += 2 {
		go func() {
			said := false
			for range time.Tick(50 * time.Millisecond) {
				if attempts[args[i]](args[i+1]) == nil && !said {
					said = true
					fmt.Fprintf(f, "%s %s\n", args[i], args[i+1])
				}
				tried.Add(1)
			}
		}()
	}
	for range time.Tick(20 * time.Millisecond) {
		fmt.Fprintf(f, "tried %d\n", tried.Load())
	}
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "again" {
		again(os.Args[2], os.Args[3:])
	}
	for i := 1; i+1 < len(os.Args); i += 2 {
		name, arg := os.Args[i], os.Args[i+1]
		err := attempts[name](arg)
		answer := "0"
		if errno := unix.Errno(0); errors.As(err, &errno) {
			answer = unix.ErrnoName(errno)
		} else if err != nil {
			answer = err.Error()
		}
		fmt.Printf("%s %s: %s\n", name, arg, answer)
	}
}
