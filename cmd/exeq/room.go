//go:build linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What a run needs for itself. With less it would fail somewhere on its way.
const (
	leastDescriptors = 64
	leastFile        = 64 << 20 // of the store and the log
	leastMemory      = 2 << 30  // of addresses; few of them are ever used
)

// roomToWork says no, before anything is begun, where the limits of this
// process leave too little.
func roomToWork() error {
	for _, l := range []struct {
		resource   int
		least      uint64
		what, flag string
	}{
		{unix.RLIMIT_NOFILE, leastDescriptors, "open descriptors", "-n"},
		{unix.RLIMIT_FSIZE, leastFile, "bytes in a file", "-f"},
		{unix.RLIMIT_AS, leastMemory, "bytes of address space", "-v"},
	} {
		var have unix.Rlimit
		if err := unix.Getrlimit(l.resource, &have); err != nil {
			return err
		}
		if have.Cur < l.least {
			return fmt.Errorf("this process may have %d %s (ulimit %s), and exeq itself needs %d: nothing was run", have.Cur, l.what, l.flag, l.least)
		}
	}
	return nil
}
