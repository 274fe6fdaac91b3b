//go:build linux

package bpf

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// End revokes the governed cgroup at path, kills everything in it and below it,
// and returns when nothing is left, or with an error when the time is over. The
// map comes first, so that what is forked while the killing goes on can execute
// and reach nothing. Safe to repeat.
func (g *Gate) End(path string, within time.Duration) error {
	c, err := CgroupOf(path)
	if err != nil {
		return fmt.Errorf("%w: %w", exeq.ErrEnforce, err)
	}
	// A gate that cannot be flipped is no reason to let it run.
	flip := g.Revoke(c)
	if err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("%w: end %s: %w", exeq.ErrEnforce, path, err)
	}
	if err := waitEmpty(path, within); err != nil {
		return fmt.Errorf("%w: end %s: %w", exeq.ErrEnforce, path, err)
	}
	return flip
}

// waitEmpty waits until the cgroup has no process.
func waitEmpty(path string, within time.Duration) error {
	f, err := os.Open(filepath.Join(path, "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()
	// The kernel holds a notice back for 10 ms after the last one: look by
	// ourselves in between, the more rarely the longer it takes.
	for began := time.Now(); ; {
		// Reading arms the poll: a change after it is seen.
		b := make([]byte, 256)
		n, err := unix.Pread(int(f.Fd()), b, 0)
		if err != nil {
			return err
		}
		if bytes.Contains(b[:n], []byte("populated 0")) {
			return nil
		}
		took := time.Since(began)
		left := within - took
		if left <= 0 {
			return fmt.Errorf("still populated after %s: %w", within, os.ErrDeadlineExceeded)
		}
		p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		wait := min(max(took/8, 50*time.Microsecond), 10*time.Millisecond)
		ts := unix.NsecToTimespec(int64(min(left, wait)))
		if _, err := unix.Ppoll(p, &ts, nil); err != nil && err != unix.EINTR {
			return err
		}
	}
}
