//go:build linux

package probe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/landlock"
)

func itoa(n int) string { return strconv.Itoa(n) }

// onThread runs f on an operating system thread of its own that ends with f:
// filters, rulesets and no_new_privs are properties of a thread, so they can
// be tried in this process without staying.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread would never end. While this goroutine holds it,
			// the next one gets another.
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // still locked: the runtime ends the thread
	}()
	return <-done
}

// tryLandlock restricts a thread to nothing and expects an open to fail.
func tryLandlock() (abi int, err error) {
	abi, err = landlock.ABI()
	if err != nil {
		return 0, err
	}
	if abi < landlock.MinABI {
		return abi, fmt.Errorf("ABI %d, Exeq needs %d", abi, landlock.MinABI)
	}
	return abi, onThread(func() error {
		fd, err := landlock.Nothing()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := landlock.Restrict(fd); err != nil {
			return err
		}
		d, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(d)
			return errors.New("an open that no rule allows went through")
		}
		if err != unix.EACCES {
			return fmt.Errorf("a forbidden open: %w (want EACCES)", err)
		}
		return nil
	})
}

// Notification structures of <linux/seccomp.h>, which x/sys does not name.
type (
	notif struct {
		id    uint64
		pid   uint32
		flags uint32
		data  filter.Data
	}
	notifResp struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
	notifAddFD struct {
		id         uint64
		flags      uint32
		srcfd      uint32
		newfd      uint32
		newfdFlags uint32
	}
)

const notifAddFDRequest = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD

// tryNotify has a thread's memfd_create answered by another thread with a
// descriptor of a file of its own.
func tryNotify() error {
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MEMFD_CREATE, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(filter.Notify)},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(filter.Allow)},
	}
	file, err := os.Open("/proc/self/stat")
	if err != nil {
		return err
	}
	defer file.Close()
	listener := make(chan int, 1)
	answered := make(chan error, 1)
	go func() { answered <- answer(<-listener, int(file.Fd())) }()
	return onThread(func() error {
		l, err := filter.Install(prog, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
		listener <- l
		if err != nil {
			return err
		}
		name := [...]byte{'x', 0}
		fd, _, errno := unix.Syscall(unix.SYS_MEMFD_CREATE, uintptr(unsafe.Pointer(&name)), 0, 0)
		if err := <-answered; err != nil {
			return err
		}
		if errno != 0 {
			return fmt.Errorf("the answered call: %w", errno)
		}
		defer unix.Close(int(fd))
		var a, b unix.Stat_t
		if err := errors.Join(unix.Fstat(int(fd), &a), unix.Fstat(int(file.Fd()), &b)); err != nil {
			return err
		}
		if a.Dev != b.Dev || a.Ino != b.Ino {
			return errors.New("the answered call gave another file")
		}
		return nil
	})
}

func answer(listener, file int) error {
	if listener < 0 {
		return errors.New("no listener")
	}
	defer unix.Close(listener) // the waiting call then answers ENOSYS
	var n notif
	if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if n.data.Number != unix.SYS_MEMFD_CREATE {
		return fmt.Errorf("received call %d", n.data.Number)
	}
	add := notifAddFD{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcfd: uint32(file), newfdFlags: unix.O_CLOEXEC}
	if err := ioctl(listener, notifAddFDRequest, unsafe.Pointer(&add)); err != nil {
		return fmt.Errorf("add descriptor: %w", err)
	}
	return nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); errno != unix.EINTR {
			if errno == 0 {
				return nil
			}
			return errno
		}
	}
}
