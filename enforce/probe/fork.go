//go:build linux

package probe

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// acts are the steps of the child of tryNamespaces, for messages.
var acts = [...]string{
	"done", "make the mounts noexec and private", "clone the mount tree", "make the clone executable again",
	"mount it", "make a socket",
}

// trial holds everything that the child touches, allocated before the fork.
type trial struct {
	report   int
	root     [2]byte
	empty    [1]byte
	restrict unix.MountAttr
	open     unix.MountAttr
	result   [2]uint32 // act, errno
}

// tryNamespaces clones a child into the namespaces of the tier and has it
// change mounts there: some systems allow the namespaces and refuse what makes
// them of use.
func tryNamespaces() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	r := os.NewFile(uintptr(p[0]), "probe")
	defer r.Close()
	t := &trial{
		report:   p[1],
		root:     [2]byte{'/', 0},
		restrict: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE},
		open:     unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Attr_clr: unix.MOUNT_ATTR_NOEXEC},
	}
	syscall.ForkLock.Lock()
	pid, errno := forkTrial(t)
	syscall.ForkLock.Unlock()
	unix.Close(p[1])
	if errno != 0 {
		return fmt.Errorf("make the namespaces: %w", errno)
	}
	var b [8]byte
	_, readErr := r.Read(b[:])
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(int(pid), &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if readErr != nil {
		return fmt.Errorf("the child in the namespaces died (status %#x)", uint32(ws))
	}
	act, code := binary.NativeEndian.Uint32(b[:4]), binary.NativeEndian.Uint32(b[4:])
	if act != 0 {
		return fmt.Errorf("in the namespaces: %s: %w", acts[act%uint32(len(acts))], unix.Errno(code))
	}
	return nil
}

//go:noinline
//go:norace
//go:nosplit
func forkTrial(t *trial) (uintptr, unix.Errno) {
	const flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | uintptr(unix.SIGCHLD)
	beforeFork()
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	t.child()
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// child runs after the fork: no allocation, no stack growth, raw calls only.
//
//go:noinline
//go:norace
//go:nosplit
func (t *trial) child() {
	const setattr = unsafe.Sizeof(t.restrict)
	var fd uintptr
	var errno unix.Errno
	act := uint32(1)
	_, _, errno = unix.RawSyscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(99), uintptr(unsafe.Pointer(&t.root)), unix.AT_RECURSIVE,
		uintptr(unsafe.Pointer(&t.restrict)), setattr, 0)
	if errno == 0 {
		act++
		fd, _, errno = unix.RawSyscall(unix.SYS_OPEN_TREE, ^uintptr(99), uintptr(unsafe.Pointer(&t.root)),
			unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.OPEN_TREE_CLOEXEC)
	}
	if errno == 0 {
		act++
		_, _, errno = unix.RawSyscall6(unix.SYS_MOUNT_SETATTR, fd, uintptr(unsafe.Pointer(&t.empty)), unix.AT_EMPTY_PATH,
			uintptr(unsafe.Pointer(&t.open)), setattr, 0)
	}
	if errno == 0 {
		act++
		_, _, errno = unix.RawSyscall6(unix.SYS_MOVE_MOUNT, fd, uintptr(unsafe.Pointer(&t.empty)), ^uintptr(99),
			uintptr(unsafe.Pointer(&t.root)), unix.MOVE_MOUNT_F_EMPTY_PATH, 0)
	}
	if errno == 0 {
		act++
		_, _, errno = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	}
	if errno == 0 {
		act = 0
	}
	t.result[0], t.result[1] = act, uint32(errno)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(t.report), uintptr(unsafe.Pointer(&t.result)), unsafe.Sizeof(t.result))
}

// tryExecMount maps a fresh file of dir executable, which a noexec mount
// refuses.
func tryExecMount(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := os.Getpagesize()
	if err := f.Truncate(int64(page)); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	runtime.KeepAlive(f)
	if err != nil {
		return fmt.Errorf("map a file of %s executable: %w", dir, err)
	}
	return unix.Munmap(m)
}
