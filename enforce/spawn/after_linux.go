//go:build amd64 || arm64

package spawn

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// After has a program started as soon as this process has ended, however it
// ends: in a session of its own, in dir, its standard streams on /dev/null and
// files as its descriptors from 3 on. It returns at once; that the program
// cannot be executed nobody learns. [errors.ErrUnsupported]: this kernel, or a
// container's filter, has no clone3.
//
// What waits for the end is a clone that shares this process's memory, so that
// it costs nothing to make, and that is given back by the clone as it executes
// the program, while whoever waited for this process goes on. It is to be
// called last.
func After(program string, argv, env []string, dir string, files ...*os.File) error {
	us, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == unix.ENOSYS {
		err = errors.Join(err, errors.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("spawn: pidfd: %w", err)
	}
	defer unix.Close(us)
	a := newSuccessor()
	l := &List{Arena: a, names: new([]string)}
	l.Do("setsid", unix.SYS_SETSID)
	null := l.Result(l.Do("open /dev/null", unix.SYS_OPENAT, V(unix.AT_FDCWD), V(a.Str(os.DevNull)), V(unix.O_RDWR|unix.O_CLOEXEC)))
	for i := range 3 {
		l.Do("dup3", unix.SYS_DUP3, Load(null), V(i), V(0))
	}
	// Out of the way of the numbers that they are to have.
	last := 3 + len(files)
	var high []Ref
	move := func(fd int) {
		high = append(high, l.Result(l.Do("fcntl", unix.SYS_FCNTL, V(fd), V(unix.F_DUPFD_CLOEXEC), V(last+1))))
	}
	for _, f := range files {
		move(int(f.Fd()))
	}
	move(us)
	for i := range files {
		l.Do("dup3", unix.SYS_DUP3, Load(high[i]), V(3+i), V(0))
	}
	l.Do("dup3", unix.SYS_DUP3, Load(high[len(files)]), V(last), V(unix.O_CLOEXEC))
	l.Do("close_range", unix.SYS_CLOSE_RANGE, V(last+1), V(uint32(1<<32-1)), V(0))
	l.Do("chdir", unix.SYS_CHDIR, V(a.Str(dir)))
	// Until our caller can know: what is closed when we end is closed before that,
	// and whoever went on then could take the processor from us.
	end := unix.PollFd{Fd: int32(last), Events: unix.POLLIN}
	l.Do("wait", unix.SYS_PPOLL, V(a.Struct(unsafe.Pointer(&end), unsafe.Sizeof(end))), V(1), V(0), V(0))
	mask := a.Reserve(8)
	l.Do("signal mask", unix.SYS_RT_SIGPROCMASK, V(unix.SIG_SETMASK), V(a.Addr(mask)), V(0), V(8))
	l.Do("execve", unix.SYS_EXECVE, V(a.Str(program)), V(a.Strs(argv)), V(a.Strs(env)))
	at := l.place()
	args := cloneArgs{Flags: unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND, ExitSignal: uint64(unix.SIGCHLD),
		Stack: uint64(a.Addr(a.Reserve(successorStack+stackAlign))+stackAlign-1) &^ (stackAlign - 1), StackSize: successorStack}
	p := a.Struct(unsafe.Pointer(&args), unsafe.Sizeof(args))

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, a.Addr(mask), 8, 0, 0)
	syscall.ForkLock.Lock()
	pid := cloneBeside(p, unsafe.Sizeof(args), a.base, uintptr(at))
	syscall.ForkLock.Unlock()
	if pid < 0 {
		return fmt.Errorf("spawn: clone3: %w", errors.Join(unix.Errno(-pid), errors.ErrUnsupported))
	}
	successors = append(successors, a)
	return nil
}

// successors are what clones go on using.
var successors []*Arena

const (
	successorStack  = 16 << 10 // nosplit code needs less than 1 KiB
	stackAlign      = 16
	successorMemory = successorStack + 64<<10
)

// newSuccessor is an arena that need not outlive this process's memory.
func newSuccessor() *Arena {
	mem := make([]byte, successorMemory)
	return &Arena{mem: mem, base: unsafe.Pointer(&mem[0]), next: int(unsafe.Sizeof(header{}))}
}

//go:nosplit
//go:norace
func cloneBeside(args, size uintptr, base unsafe.Pointer, at uintptr) int {
	beforeFork() // no signal finds the clone while it shares our memory
	pid := clone3(args, size, base, at)
	afterFork()
	return pid
}

// clone3 makes the clone, which goes on in succeed, on the stack of args, and
// never returns. It gives a pid or a negative errno.
//
//go:noescape
func clone3(args, size uintptr, base unsafe.Pointer, at uintptr) int

// succeed is the clone. It has no Go runtime; see run.go.
//
//go:nosplit
//go:norace
//go:nocheckptr
func succeed(base unsafe.Pointer, at uintptr) {
	run(base, at, uintptr(RoleCommand))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}
