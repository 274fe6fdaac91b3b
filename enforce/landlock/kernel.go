//go:build linux

package landlock

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ABI asks the kernel for its Landlock ABI; 0 with an error if it has none.
func ABI() (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, fmt.Errorf("landlock: %w (kernel built or booted without it)", errno)
	}
	return int(n), nil
}

const (
	// MinABI is the oldest ABI that Build accepts: before 3 truncation is not
	// governed, so write rights would not hold.
	MinABI = 3
	// netABI governs TCP bind and connect, scopeABI abstract unix sockets and
	// signals.
	netABI   = 4
	ioctlABI = 5
	scopeABI = 6
)

// File system access bits by what an Access grants. Making device nodes is
// handled and never granted.
const (
	fileRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE
	fileWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	fileExec  = unix.LANDLOCK_ACCESS_FS_EXECUTE
	dirRead   = fileRead | unix.LANDLOCK_ACCESS_FS_READ_DIR
	dirWrite  = fileWrite | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	neverGranted = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
)

// handledFS gives every file system bit that abi governs, of those we know.
func handledFS(abi int) uint64 {
	h := uint64(dirRead | dirWrite | fileExec | neverGranted)
	if abi < ioctlABI {
		h &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return h
}

// bitsOf gives the access bits for a on a directory or another file.
func bitsOf(a Access, dir bool) (b uint64) {
	if a&Read != 0 {
		b |= pick(dir, dirRead, fileRead)
	}
	if a&Write != 0 {
		b |= pick(dir, dirWrite, fileWrite)
	}
	if a&Exec != 0 {
		b |= fileExec
	}
	return b
}

func pick(dir bool, yes, no uint64) uint64 {
	if dir {
		return yes
	}
	return no
}

func createRuleset(a *unix.LandlockRulesetAttr) (int, error) {
	// The size up to Scoped: older kernels refuse a longer attribute whose
	// tail is not zero, newer ones take a shorter one.
	size := unsafe.Offsetof(a.Quiet_access_fs)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(a)), size, 0)
	if errno != 0 {
		return -1, fmt.Errorf("landlock: create ruleset: %w", errno)
	}
	return int(fd), nil
}

// AddPath grants the access bits beneath the file or directory that parent
// (an O_PATH descriptor) stands for.
func AddPath(ruleset, parent int, bits uint64) error {
	attr := unix.LandlockPathBeneathAttr{Allowed_access: bits, Parent_fd: int32(parent)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock: add rule: %w", errno)
	}
	return nil
}

// rule type of struct landlock_net_port_attr, which x/sys does not name.
const ruleNetPort = 2

func addPort(ruleset int, bits uint64, port uint16) error {
	attr := struct{ access, port uint64 }{bits, uint64(port)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), ruleNetPort,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock: add port %d: %w", port, errno)
	}
	return nil
}

// Restrict puts ruleset in force for the calling thread and all it will start,
// for good. The caller locks its OS thread; no_new_privs is set.
func Restrict(ruleset int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("landlock: no_new_privs: %w", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: restrict: %w", errno)
	}
	return nil
}

// openPath opens a path that holds no symbolic link, the last component
// included, without access to its content.
func openPath(path string) (fd int, st unix.Stat_t, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err = unix.Openat2(unix.AT_FDCWD, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	if err == unix.ENOSYS {
		fd, err = walkPath(path) // inside an execution, whose filter has no openat2
	}
	if err != nil {
		return -1, st, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fd, st, nil
}

// walkPath opens a path as openPath does, one component after the other.
func walkPath(path string) (int, error) {
	at, err := openPart(unix.AT_FDCWD, "/")
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if err != nil || part == "" {
			break
		}
		var st unix.Stat_t
		if err = unix.Fstat(at, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			err = unix.ELOOP
		}
		var next int
		if err == nil {
			next, err = openPart(at, part)
		}
		unix.Close(at)
		at = next
	}
	if err != nil {
		return -1, err
	}
	return at, nil
}

func openPart(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
