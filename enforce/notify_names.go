//go:build linux

package enforce

import (
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// A mount over a program is in the way of a compiler that writes it anew. The
// calls below are answered only to clear such mounts away first; whether the
// call itself is permitted is for Landlock and the mounts to say, so continuing
// is safe whatever happens to its arguments.

// vacate clears the place that one path argument names.
func (n *notifier) vacate(q *notification, dirfd int, path uint64, follow programs.Follow) {
	n.clear(q, dirfd, path, follow)
	n.continueWriting(q)
}

func (n *notifier) vacateBoth(q *notification, fromDir int, from uint64, toDir int, to uint64) {
	n.clear(q, fromDir, from, programs.NoFollow)
	n.clear(q, toDir, to, programs.NoFollow)
	n.continueWriting(q)
}

func (n *notifier) clear(q *notification, dirfd int, path uint64, follow programs.Follow) {
	if !n.approver.Occupied() {
		return
	}
	name, err := n.path(q, path)
	if err != nil {
		return
	}
	p := programs.Process{PID: int(q.pid)}
	switch mount, err := p.Mount(dirfd, name, follow); err {
	case nil:
		if !n.approver.Owns(mount) {
			return
		}
	case unix.ENOENT, unix.ENOTDIR:
		return
	}
	f, err := p.Resolve(dirfd, name, follow)
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
	if flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 && flags&unix.O_PATH == 0 {
		follow := programs.FollowLast
		if flags&unix.O_NOFOLLOW != 0 {
			follow = programs.NoFollow
		}
		n.clear(q, dirfd, path, follow)
	}
	n.continueWriting(q)
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
