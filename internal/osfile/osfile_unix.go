//go:build unix

package osfile

import (
	"os"
	"syscall"
)

// NoFollow, added to the flags of [os.OpenFile], refuses a link at the end of
// the path.
const NoFollow = syscall.O_NOFOLLOW

// Lock locks an open file across processes (flock(2)) until it is closed or
// locked otherwise.
func Lock(f *os.File, k Kind) error {
	how := map[Kind]int{Shared: syscall.LOCK_SH, Exclusive: syscall.LOCK_EX, Try: syscall.LOCK_EX | syscall.LOCK_NB}[k]
	for {
		switch err := syscall.Flock(int(f.Fd()), how); err {
		case syscall.EINTR:
		case syscall.EWOULDBLOCK:
			return ErrHeld
		default:
			return err
		}
	}
}
