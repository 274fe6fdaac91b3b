//go:build linux

package enforce

import (
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/programs"
)

// observer remembers what it has told, so that each file is told once. It is
// for learning what rights a command needs, not for holding it to any: the
// kernel reads the path again after it.
type observer struct {
	mu   sync.Mutex
	seen map[told]bool
}

// told is one use of one path.
type told struct{ action, path string }

// observe tells the gate which files a call is about to use. It reports
// whether there is nothing else to do about the call.
func (n *notifier) observe(q *notification) bool {
	a := q.args
	fd := func(i int) int { return int(int32(a[i])) }
	const here = unix.AT_FDCWD
	switch filter.Name(int(q.nr)) {
	case "open":
		n.seeOpen(q, here, a[0], int(a[1]))
	case "openat":
		n.seeOpen(q, fd(0), a[1], int(a[2]))
	case "creat":
		n.seeOpen(q, here, a[0], unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC)
	case "truncate":
		n.seeOpen(q, here, a[0], unix.O_WRONLY)
	case "unlink", "rmdir":
		n.seeName(q, here, a[0], true)
	case "unlinkat":
		n.seeName(q, fd(0), a[1], true)
	case "rename":
		n.seeName(q, here, a[0], true)
		n.seeNames(q, here, a[1])
	case "renameat", "renameat2":
		n.seeName(q, fd(0), a[1], true)
		n.seeNames(q, fd(2), a[3])
	case "link":
		n.seeName(q, here, a[0], true)
		n.seeName(q, here, a[1], false)
		return true
	case "linkat":
		n.seeName(q, fd(0), a[1], true)
		n.seeName(q, fd(2), a[3], false)
		return true
	case "mkdir", "mknod":
		n.seeName(q, here, a[0], false)
		return true
	case "mkdirat", "mknodat":
		n.seeName(q, fd(0), a[1], false)
		return true
	case "symlink":
		n.seeName(q, here, a[1], false)
		return true
	case "symlinkat":
		n.seeName(q, fd(1), a[2], false)
		return true
	}
	return false
}

// seeOpen tells of the file that an open would read or write. One that would
// fail needs no right.
func (n *notifier) seeOpen(q *notification, dirfd int, at uint64, flags int) {
	if flags&unix.O_PATH != 0 {
		return
	}
	follow := programs.FollowLast
	if flags&unix.O_NOFOLLOW != 0 || flags&unix.O_CREAT != 0 && flags&unix.O_EXCL != 0 {
		follow = programs.NoFollow
	}
	file, dir, exists := n.named(q, dirfd, at, follow)
	write := flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
	switch {
	case file == "", !exists && flags&unix.O_CREAT == 0:
		return
	case !exists:
		n.see(q, exeq.ActionWrite, dir)
		write = true
	}
	if flags&unix.O_ACCMODE != unix.O_WRONLY {
		n.see(q, exeq.ActionRead, file)
	}
	if write {
		n.see(q, exeq.ActionWrite, file)
	}
}

// seeName tells of a name that is about to be removed (exists) or made: that
// writes to its directory.
func (n *notifier) seeName(q *notification, dirfd int, at uint64, exists bool) {
	file, dir, is := n.named(q, dirfd, at, programs.NoFollow)
	if file != "" && is == exists {
		n.see(q, exeq.ActionWrite, dir)
		n.see(q, exeq.ActionWrite, file)
	}
}

// seeNames is seeName for a name that may be there already: a rename's target.
func (n *notifier) seeNames(q *notification, dirfd int, at uint64) {
	n.seeName(q, dirfd, at, true)
	n.seeName(q, dirfd, at, false)
}

// named gives the path that an argument means and its directory; file is empty
// where the call leads nowhere.
func (n *notifier) named(q *notification, dirfd int, at uint64, follow programs.Follow) (file, dir string, exists bool) {
	name, err := n.path(q, at)
	if err != nil || name == "" {
		return "", "", false
	}
	f, base, err := programs.Process{PID: int(q.pid)}.ResolveNew(dirfd, name, follow)
	if err != nil {
		return "", "", false
	}
	defer f.Close()
	if f.Stale || f.Foreign || !n.valid(q) || !path.IsAbs(f.Path) {
		return "", "", false
	}
	if base != "" {
		return path.Join(f.Path, base), f.Path, false
	}
	return f.Path, path.Dir(f.Path), true
}

// see tells the gate once. Nothing is ever written below /proc and /sys.
func (n *notifier) see(q *notification, action, file string) {
	if action == exeq.ActionWrite && (within(file, "/proc") || within(file, "/sys")) {
		return
	}
	key := told{action, file}
	n.observer.mu.Lock()
	again := n.observer.seen[key]
	n.observer.seen[key] = true
	n.observer.mu.Unlock()
	if !again {
		n.gate.Seen(exeq.Activity{Action: action, PID: int(q.pid), Resource: exeq.Resource{Type: "Path", ID: exeq.EncodeBytes(file)}}, true)
	}
}
