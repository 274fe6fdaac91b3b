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
// is safe whatever happens to its arguments. Those that make names or change a
// mode are answered only to tell of what the kernel refuses: they are rare.
// Directories and files with O_EXCL are made by the hundred in a checkout, for
// which a round trip each is too much (mkdir took ×1.4 to ×2 with one), so
// they are not put to us unless a tier has other reasons.

// argument is a path argument of a call that writes, makes or removes, as read
// while its thread waited.
type argument struct {
	dirfd    int
	name     string
	follow   programs.Follow
	replaces bool // what stands there is to be changed or taken away
	use      use
}

// use is what a call does at a path, as far as it says what right it needs.
type use int

const (
	alters  use = iota // a file that is there
	opens              // one that is made where it is not there
	removes            // a name that is there
	makes              // one that is not
	puts               // either
)

// written reads the path arguments of a call that writes.
func (n *notifier) written(q *notification) (args []argument) {
	add := func(dirfd int, at uint64, follow programs.Follow, use use, replaces bool) {
		if name, err := n.path(q, at); err == nil && name != "" {
			args = append(args, argument{dirfd, name, follow, replaces, use})
		}
	}
	a := q.args
	fd := func(i int) int { return int(int32(a[i])) }
	const here = unix.AT_FDCWD
	remove := func(dirfd int, at uint64, use use) { add(dirfd, at, programs.NoFollow, use, true) }
	made := func(dirfd int, at uint64) { add(dirfd, at, programs.NoFollow, makes, false) }
	mode := func(dirfd int, at uint64) { add(dirfd, at, programs.FollowLast, alters, false) }
	open := func(dirfd int, at, flags uint64) {
		if flags&(unix.O_ACCMODE|unix.O_CREAT|unix.O_TRUNC) == 0 {
			return
		}
		follow, use := programs.FollowLast, alters
		if flags&unix.O_NOFOLLOW != 0 {
			follow = programs.NoFollow
		}
		switch flags & (unix.O_CREAT | unix.O_EXCL) {
		case unix.O_CREAT:
			use = opens
		case unix.O_CREAT | unix.O_EXCL:
			use = makes
		}
		add(dirfd, at, follow, use, flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 && flags&unix.O_PATH == 0)
	}
	switch q.nr {
	case sysOpen:
		open(here, a[0], a[1])
	case sysOpenat:
		open(fd(0), a[1], a[2])
	case sysCreat:
		add(here, a[0], programs.FollowLast, opens, true)
	case sysTruncate:
		add(here, a[0], programs.FollowLast, alters, true)
	case sysUnlink, sysRmdir:
		remove(here, a[0], removes)
	case sysUnlinkat:
		remove(fd(0), a[1], removes)
	case sysRename:
		remove(here, a[0], removes)
		remove(here, a[1], puts)
	case sysRenameat, sysRenameat2:
		remove(fd(0), a[1], removes)
		remove(fd(2), a[3], puts)
	case sysLink:
		add(here, a[0], programs.NoFollow, removes, false) // it needs the right that a removal needs
		made(here, a[1])
	case sysLinkat:
		add(fd(0), a[1], programs.NoFollow, removes, false)
		made(fd(2), a[3])
	case sysMkdir, sysMknod:
		made(here, a[0])
	case sysMkdirat, sysMknodat:
		made(fd(0), a[1])
	case sysSymlink:
		made(here, a[1])
	case sysSymlinkat:
		made(fd(1), a[2])
	case sysChmod:
		mode(here, a[0])
	case sysFchmodat, sysFchmodat2:
		mode(fd(0), a[1])
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
