//go:build linux

package enforce

import (
	"bufio"
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Without a pid namespace the execution's processes are among those of the
// host. Ancestry would miss what is being handed over while one looks; they are
// known by a limit that has no other meaning, is random, inherited, and that
// the filter lets nobody change (filter.Mark).

// member reports whether a process belongs to the execution.
func (r *running) member(pid int) bool {
	fd, err := unix.Openat(r.procFD, strconv.Itoa(pid)+"/limits", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "limits")
	defer f.Close()
	mark := strconv.FormatUint(r.mark, 10)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if limit, ok := bytes.CutPrefix(lines.Bytes(), []byte("Max file locks")); ok {
			fields := bytes.Fields(limit)
			return len(fields) >= 2 && string(fields[1]) == mark
		}
	}
	return false
}
