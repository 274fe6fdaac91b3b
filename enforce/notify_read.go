//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// going gives what ends a look at a file for a call: that its thread or the
// execution is gone, or that the thread was told to end. It cannot take that
// signal before it is answered, and what it executes, it executes blocked.
func (n *notifier) going(q *notification) programs.Going {
	return func() error {
		switch {
		case n.ctx.Err() != nil, !n.valid(q):
			return unix.ESRCH
		case toldToEnd(int(q.pid)):
			return unix.EINTR
		}
		return nil
	}
}

// unread says why a program was not looked at, where that is its own fault,
// and gives what answers the call.
func (n *notifier) unread(a exeq.Activity, err error) error {
	if !errors.Is(err, programs.ErrTooLarge) {
		return err
	}
	n.gate.Seen(a, false)
	n.deny(fmt.Sprintf("%s %s denied: Exeq looks at no program of more than %d GiB", a.Action, a.Resource.ID, int64(exeq.MaxProgramBytes)>>30))
	return unix.EPERM
}

// ends are the signals that tell a program to end. One that waits is heard even
// where it is blocked, as shells block what they get between fork and execve;
// any other may wait for as long as a look takes.
const ends = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGTERM-1)

// toldToEnd reports whether such a signal waits for a thread or its process.
func toldToEnd(tid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return true
	}
	var pending, ignored uint64
	for line := range strings.Lines(string(b)) {
		name, set, _ := strings.Cut(line, ":")
		bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
		if err != nil {
			continue
		}
		switch name {
		case "SigPnd", "ShdPnd":
			pending |= bits
		case "SigIgn":
			ignored = bits
		}
	}
	return pending&^ignored&ends != 0
}
