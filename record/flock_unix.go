//go:build unix

package record

import (
	"os"
	"syscall"
)

// flock locks an open file for this process, across processes.
func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
