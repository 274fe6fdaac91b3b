//go:build linux

package enforce

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// A mount over a program is in the way of a compiler that writes it anew. The
// calls below are answered only to clear such mounts away first; whether the
// call itself is permitted is for Landlock and the mounts to say, so continuing
// is safe whatever happens to its arguments.

// argument is a path argument of a call that writes, makes or removes, as read
// while its thread waited.
type argument struct {
	dirfd    int
	name     string
	follow   programs.Follow
	replaces bool // what stands there is to be changed or taken away
}

// written reads the path arguments of a call that writes.
func (n *notifier) written(q *notification) (args []argument) {
	add := func(dirfd int, at uint64, follow programs.Follow, replaces bool) {
		if name, err := n.path(q, at); err == nil && name != "" {
			args = append(args, argument{dirfd, name, follow, replaces})
		}
	}
	a := q.args
	fd := func(i int) int { return int(int32(a[i])) }
	const here = unix.AT_FDCWD
	open := func(dirfd int, at, flags uint64) {
		if flags&(unix.O_ACCMODE|unix.O_CREAT|unix.O_TRUNC) == 0 {
			return
		}
		follow := programs.FollowLast
		if flags&unix.O_NOFOLLOW != 0 {
			follow = programs.NoFollow
		}
		add(dirfd, at, follow, flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 && flags&unix.O_PATH == 0)
	}
	switch q.nr {
	case sysOpen:
		open(here, a[0], a[1])
	case sysOpenat:
		open(fd(0), a[1], a[2])
	case sysCreat, sysTruncate:
		add(here, a[0], programs.FollowLast, true)
	case sysUnlink, sysRmdir:
		add(here, a[0], programs.NoFollow, true)
	case sysUnlinkat:
		add(fd(0), a[1], programs.NoFollow, true)
	case sysRename:
		add(here, a[0], programs.NoFollow, true)
		add(here, a[1], programs.NoFollow, true)
	case sysRenameat, sysRenameat2:
		add(fd(0), a[1], programs.NoFollow, true)
		add(fd(2), a[3], programs.NoFollow, true)
	}
	return args
}

// quickWrite lets the kernel do a call that no mount of ours is in the way of.
func (n *notifier) quickWrite(q *notification) bool {
	args := n.written(q)
	if slices.ContainsFunc(args, func(a argument) bool { return n.inTheWay(q, a) }) {
		return false
	}
	n.continueWriting(q, args)
	return true
}

// write clears the places that a call would write to, and lets the kernel do it.
func (n *notifier) write(q *notification) {
	args := n.written(q)
	for _, a := range args {
		n.clear(q, a)
	}
	n.continueWriting(q, args)
}

// inTheWay reports whether what stands at a path may be a mount of ours.
func (n *notifier) inTheWay(q *notification, a argument) bool {
	if !a.replaces || !n.approver.Occupied() {
		return false
	}
	switch mount, err := (programs.Process{PID: int(q.pid)}).Mount(a.dirfd, a.name, a.follow); err {
	case nil:
		return n.approver.Owns(mount)
	case unix.ENOENT, unix.ENOTDIR:
		return false
	}
	return true // Resolve knows
}

func (n *notifier) clear(q *notification, a argument) {
	if !n.inTheWay(q, a) {
		return
	}
	f, err := programs.Process{PID: int(q.pid)}.Resolve(a.dirfd, a.name, a.follow)
	if err != nil {
		return
	}
	defer f.Close()
	if !n.valid(q) {
		return
	}
	if err := n.approver.Vacate(f); err != nil {
		n.log.Warn("a program's place could not be cleared", "path", f.Path, "error", err)
	}
}

// open answers open and openat.
func (n *notifier) open(q *notification) {
	dirfd, path, flags := unix.AT_FDCWD, q.args[0], q.args[1]
	if q.nr == sysOpenat {
		dirfd, path, flags = int(int32(q.args[0])), q.args[1], q.args[2]
	}
	if n.labels != nil && n.labels.open(n, q, dirfd, path, int(flags)) {
		return
	}
	n.write(q)
}

// access answers whether a file may be executed that lies on a mount which we
// made noexec: as executing it would be, by the rights and the file's mode. The
// kernel answers for the mount, and what looks before it executes (test -x,
// configure, which) would look no further. Everything else is the kernel's to
// answer.
func (n *notifier) access(q *notification, dirfd int, path, mode uint64, flags int) {
	name, err := n.path(q, path)
	if err != nil || name == "" || mode&unix.W_OK != 0 {
		n.resume(q)
		return
	}
	follow := programs.FollowLast
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		follow = programs.NoFollow
	}
	f, err := programs.Process{PID: int(q.pid)}.Resolve(dirfd, name, follow)
	if err != nil {
		n.resume(q)
		return
	}
	defer f.Close()
	switch {
	case !f.Noexec, !f.Regular(), n.rights.Lookup(exeq.EncodeBytes(f.Path)).Exec == exeq.ExecNo:
		n.resume(q)
	case !n.who.may(f, uint32(mode)):
		n.fail(q, unix.EACCES)
	default:
		n.send(q, response{})
	}
}
