//go:build linux

package enforce

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Writes are refused by Landlock and mounts, which say nothing. Of those that
// pass by here anyway the person is told why, once the command has failed:
// programs try much that they can do without, and what a terminal shows
// meanwhile is theirs. Nothing depends on it, so what another thread makes of
// the arguments meanwhile does not matter.

// maxRefused bounds the lines about refused writes of one execution: a program
// that tries a thousand files is not worth a thousand.
const maxRefused = 16

// refusal is a write that the rights do not have, and what to say of it.
type refusal struct{ path, message string }

// continueWriting lets the kernel do a call that writes, and notes it where the
// rights do not have it.
func (n *notifier) continueWriting(q *notification, args []argument) {
	n.resume(q)
	n.mu.Lock()
	full := len(n.refused) >= maxRefused
	n.mu.Unlock()
	if full {
		return
	}
	for _, a := range args {
		n.tellRefused(int(q.pid), a)
	}
}

func (n *notifier) tellRefused(pid int, a argument) {
	name := a.name
	if !filepath.IsAbs(name) {
		base := "cwd"
		if a.dirfd != unix.AT_FDCWD {
			base = "fd/" + strconv.Itoa(a.dirfd)
		}
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, base))
		if err != nil || !filepath.IsAbs(dir) {
			return
		}
		name = dir + "/" + name
	}
	writable := func(p string) bool { return n.rights.Lookup(exeq.EncodeBytes(p)).Write }
	if name = filepath.Clean(name); writable(name) || strings.HasPrefix(name, "/proc/") {
		return
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return // it fails for another reason
	}
	if name = filepath.Join(dir, filepath.Base(name)); writable(name) {
		return
	}
	if real, err := filepath.EvalSymlinks(name); err == nil && writable(real) {
		return
	}
	n.noteRefused(pid, name)
}

// noteRefused keeps why the rights do not have a write to a path.
func (n *notifier) noteRefused(pid int, name string) {
	n.mu.Lock()
	full := len(n.refused) >= maxRefused
	n.mu.Unlock()
	if full {
		return
	}
	message := n.gate.Explain(n.ctx, exeq.Activity{
		Action: exeq.ActionWrite, Resource: exeq.Resource{Type: "Path", ID: exeq.EncodeBytes(name)}, Dir: filepath.Dir(name), PID: pid,
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := (refusal{name, message}); message != "" && len(n.refused) < maxRefused && !slices.Contains(n.refused, r) {
		n.refused = append(n.refused, r)
	}
}

// sayRefused says what was refused, when nothing asks any more: not of a path
// that nothing could cover, nor of one that was written after all.
func (n *notifier) sayRefused(uncovered []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.refused {
		bare := func(p string) bool { return within(r.path, p) }
		if !slices.ContainsFunc(uncovered, bare) && !changedSince(r.path, n.began) {
			n.say(r.message)
		}
	}
}

// changedSince reports whether something stands at a path that was made or
// changed at that time or later.
func changedSince(name string, began int64) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Ctim.Nano() >= began
}

// coarseNow is the clock that files' times are taken from.
func coarseNow() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		return 0
	}
	return ts.Nano()
}
