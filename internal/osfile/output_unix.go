//go:build unix

package osfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// noTerminal: a terminal that is written to does not become ours.
const noTerminal = syscall.O_NOCTTY

// descriptor gives what a path names that means one of our own descriptors, or
// nil. Links that lead there do not count: only our caller may say which.
func descriptor(path string) (*os.File, error) {
	n := -1
	switch path {
	case "/dev/stdout":
		n = 1
	case "/dev/stderr":
		n = 2
	default:
		for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
			if s, ok := strings.CutPrefix(path, dir); ok {
				var err error
				if n, err = strconv.Atoi(s); err != nil || n < 0 {
					return nil, fmt.Errorf("%q is no descriptor", s)
				}
			}
		}
	}
	if n < 0 {
		return nil, nil
	}
	// What we opened ourselves closes when we execute; what was given does not.
	if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil, fmt.Errorf("no descriptor %d was given", n)
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Dup(n)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), path), nil
}
