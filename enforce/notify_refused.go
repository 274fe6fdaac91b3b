//go:build linux

package enforce

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/landlock"
)

// Writes are refused by Landlock and mounts, which say nothing. Of those that
// pass by here anyway the person is told why, once the command has failed:
// programs try much that they can do without, and what a terminal shows
// meanwhile is theirs. Nothing depends on it, so what another thread makes of
// the arguments meanwhile does not matter.

// maxRefused bounds the lines about refused writes of one execution: a program
// that tries a thousand files is not worth a thousand.
const maxRefused = 16

// refusal is a write that the rights or the kernel do not give.
type refusal struct {
	path  string
	named bool // the name is made or removed, which is a write of its directory
}

// continueWriting lets the kernel do a call that writes, and notes it where it
// is refused.
func (n *notifier) continueWriting(q *notification, args []argument) {
	names := absolute(int(q.pid), args)
	n.resume(q)
	n.noteWrites(names, args)
}

// absolute gives the paths that arguments mean, "" where that cannot be told.
// It is asked while the thread waits: once answered it may be gone.
func absolute(pid int, args []argument) []string {
	names := make([]string, len(args))
	for i, a := range args {
		if names[i] = a.name; filepath.IsAbs(a.name) {
			continue
		}
		base := "cwd"
		if a.dirfd != unix.AT_FDCWD {
			base = "fd/" + strconv.Itoa(a.dirfd)
		}
		names[i] = ""
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, base)); err == nil && filepath.IsAbs(dir) {
			names[i] = dir + "/" + a.name
		}
	}
	return names
}

func (n *notifier) noteWrites(names []string, args []argument) {
	for i, name := range names {
		if name != "" && !n.refusedEnough() {
			n.noteWrite(name, args[i].use)
		}
	}
}

// maxKept bounds what is kept to make those lines of: names of one directory
// share one.
const maxKept = 16 * maxRefused

func (n *notifier) refusedEnough() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.refused) >= maxKept
}

func (n *notifier) writable(p string) bool { return n.rights.Lookup(exeq.EncodeBytes(p)).Write }

// gives reports whether nothing is in the way of a write.
func (n *notifier) gives(r refusal) bool {
	dir := filepath.Dir(r.path)
	if r.named && (!n.writable(dir) || n.less[dir] != "") {
		return false
	}
	return n.writable(r.path) && (r.named || n.less[r.path] == "")
}

func (n *notifier) noteWrite(name string, use use) {
	if name = filepath.Clean(name); name == "/" || strings.HasPrefix(name, "/proc/") || n.gives(refusal{name, true}) {
		return
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return // it fails for another reason
	}
	name = filepath.Join(dir, filepath.Base(name))
	r := refusal{name, use != alters}
	if real, err := os.Lstat(name); err == nil {
		if use == makes {
			return // EEXIST
		}
		if r.named = use == removes || use == puts; !r.named && real.Mode()&os.ModeSymlink != 0 {
			if r.path, err = filepath.EvalSymlinks(name); err != nil {
				return
			}
		}
	} else if use == alters || use == removes {
		return // ENOENT
	}
	n.noteRefused(r)
}

// noteRefused keeps a write that is refused.
func (n *notifier) noteRefused(r refusal) {
	if n.gives(r) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.refused, r) && len(n.refused) < maxKept {
		n.refused = append(n.refused, r)
	}
}

// aside are directories below the home that tools write to without being asked,
// and do without. Who sees another reason for a failure does not need this one.
var aside = []string{"/.config/go/telemetry"}

// sayRefused says what was refused, when nothing asks any more: not of a path
// that nothing could cover, nor of one that was written after all. Names of one
// directory share a line.
func (n *notifier) sayRefused(uncovered []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	type group struct {
		refusal
		dir  string
		more int
	}
	var groups, others []group
	for _, r := range n.refused {
		bare := func(p string) bool { return within(r.path, p) }
		if slices.ContainsFunc(uncovered, bare) || changedSince(r.path, n.began) {
			continue
		}
		dir, into := filepath.Dir(r.path), &groups
		for _, a := range aside {
			if at := strings.Index(r.path, a+"/"); at >= 0 {
				dir, into = r.path[:at]+a, &others
			}
		}
		i := slices.IndexFunc(*into, func(g group) bool { return g.dir == dir })
		if i < 0 {
			*into = append(*into, group{r, dir, 0})
			continue
		}
		(*into)[i].more++
	}
	if len(groups) == 0 && n.denials.Load() == 0 {
		groups = others
	}
	for _, g := range groups[:min(len(groups), maxRefused)] {
		n.say(n.whyRefused(g.refusal, g.dir, g.more))
	}
}

// whyRefused words a refused write and others in the same directory. What has
// to be permitted is the directory, where a name is made or removed: the kernel
// knows no smaller right.
func (n *notifier) whyRefused(r refusal, dir string, more int) string {
	head := "write " + exeq.EncodeBytes(r.path)
	if more > 0 {
		head += fmt.Sprintf(" and %d more in %s", more, exeq.EncodeBytes(dir))
	}
	head += " denied: "
	reason := func(p string) string {
		id := exeq.EncodeBytes(p)
		m := n.gate.Explain(context.Background(), exeq.Activity{
			Action: exeq.ActionWrite, Resource: exeq.Resource{Type: "Path", ID: id}, Dir: filepath.Dir(p),
		})
		return strings.TrimPrefix(m, "write "+id+" denied: ")
	}
	at := []string{r.path}
	if r.named || more > 0 {
		at = []string{dir, r.path}
	}
	for _, p := range at {
		why := reason(p)
		if why == "" {
			continue
		}
		const advice = "to allow it add"
		hint := ""
		if r.named && p == dir {
			hint = "names are made, moved and removed by writing to their directory; "
		}
		if !n.rights.Lookup(exeq.EncodeBytes(p)).Read {
			hint += "reading is not permitted there either; "
		}
		return head + strings.Replace(why, advice, hint+advice, 1)
	}
	less := n.less[r.path]
	if r.named {
		less = n.less[filepath.Dir(r.path)]
	}
	if less == "" {
		less = "what was there when the execution started was given less"
	}
	return head + "policy permits it, and the kernel was not given it: " + less
}

// kernelLess says where the kernel gives less of writing than the rights do.
func kernelLess(r *landlock.Report) map[string]string {
	less := map[string]string{}
	for _, d := range r.Narrowed {
		if d.Access&landlock.Write != 0 {
			less[d.Path] = d.Reason
		}
	}
	for _, m := range r.Missing {
		if m.Grant&landlock.Write != 0 {
			less[m.Path] = "it was not there when the execution started"
		}
	}
	return less
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
