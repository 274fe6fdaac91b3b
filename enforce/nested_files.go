//go:build linux

package enforce

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/programs"
)

// In a directory that carving left without a grant the supervisor does what
// rights allow, on the directory that it opened and under the name that it
// decided on. Everything else goes on in the kernel, where Landlock grants no
// more than rights do: whatever happens to a continued call's arguments, it can
// only be refused.

// place is a name in a directory, as the process means it.
type place struct {
	dir  *programs.File
	base string
	path string // canonical, raw
}

// file answers calls that name files.
func (t *nested) file(n *notifier, q *notification) bool {
	a := q.args
	fd := func(i int) int { return int(int32(a[i])) }
	const here = unix.AT_FDCWD
	switch filter.Name(int(q.nr)) {
	case "open":
		t.open(n, q, here, a[0], int(a[1]), uint32(a[2]))
	case "openat":
		t.open(n, q, fd(0), a[1], int(a[2]), uint32(a[3]))
	case "creat":
		t.open(n, q, here, a[0], unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, uint32(a[1]))
	case "truncate":
		t.truncate(n, q, a[0], int64(a[1]))
	case "unlink":
		t.remove(n, q, here, a[0], 0)
	case "rmdir":
		t.remove(n, q, here, a[0], unix.AT_REMOVEDIR)
	case "unlinkat":
		t.remove(n, q, fd(0), a[1], fd(2))
	case "rename":
		t.rename(n, q, here, a[0], here, a[1], 0)
	case "renameat":
		t.rename(n, q, fd(0), a[1], fd(2), a[3], 0)
	case "renameat2":
		t.rename(n, q, fd(0), a[1], fd(2), a[3], uint(a[4]))
	case "link":
		t.link(n, q, here, a[0], here, a[1], 0)
	case "linkat":
		t.link(n, q, fd(0), a[1], fd(2), a[3], fd(4))
	case "mkdir":
		t.make(n, q, here, a[0], t.mkdir(q, a[1]))
	case "mkdirat":
		t.make(n, q, fd(0), a[1], t.mkdir(q, a[2]))
	case "symlink":
		t.symlink(n, q, a[0], here, a[1])
	case "symlinkat":
		t.symlink(n, q, a[0], fd(1), a[2])
	case "mknod", "mknodat":
		n.resume(q)
	default:
		return t.attributes(n, q)
	}
	return true
}

// ours reports whether rights allow what Landlock does not grant there.
func (t *nested) ours(n *notifier, p string, read, write bool) bool {
	r, l := n.rights.Lookup(exeq.EncodeBytes(p)), t.granted(p)
	if read && (!r.Read || len(r.Labels) > 0) || write && !r.Write {
		return false
	}
	return read && !l.Read || write && !l.Write
}

// oursName is ours for making, removing or renaming a name: that is a right of
// its directory.
func (t *nested) oursName(n *notifier, p string) bool {
	beside := path.Join(path.Dir(p), "\x00") // a name that no cell has
	return n.rights.Lookup(exeq.EncodeBytes(p)).Write && !t.granted(beside).Write
}

// granted is what Landlock grants at a path. A rule is for the inode that was
// there: what took its place since has what its directory has.
func (t *nested) granted(p string) exeq.Access {
	if !path.IsAbs(p) { // a pipe or another thing without a path
		return exeq.Access{}
	}
	var own unix.Stat_t
	if unix.Lstat(p, &own) == nil && t.spares.is(inode{own.Dev, own.Ino}) {
		return exeq.Access{Read: true, Write: true}
	}
	for at := p; at != "/"; at = path.Dir(at) {
		was, own := t.inodes[at]
		if !own {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil || (inode{st.Dev, st.Ino}) != was {
			return t.granted(path.Join(path.Dir(at), "\x00"))
		}
		break
	}
	return t.native.Lookup(exeq.EncodeBytes(p))
}

// locate finds the directory and the name that a path argument means. ok is
// false where the kernel may answer by itself.
func (n *notifier) locate(q *notification, dirfd int, at uint64) (place, bool) {
	name, err := n.path(q, at)
	if err != nil {
		return place{}, false
	}
	up, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" || base == "." || base == ".." {
		return place{}, false
	}
	if up == "" {
		up = "."
	}
	dir, err := programs.Process{PID: int(q.pid)}.Resolve(dirfd, up, programs.FollowLast)
	if err != nil {
		return place{}, false
	}
	if !dir.Dir() || dir.Stale || dir.Process() {
		dir.Close()
		return place{}, false
	}
	return place{dir, base, path.Join(dir.Path, base)}, true
}

// do runs act as the execution's user, and answers.
func (n *notifier) do(q *notification, act func() error) {
	if !n.ready(q) {
		n.forget(q)
		return
	}
	if err := n.who.as(act); err != nil {
		n.failAs(q, err)
		return
	}
	n.send(q, response{})
}

// open answers open: with a descriptor of ours where the file has no grant.
func (t *nested) open(n *notifier, q *notification, dirfd int, at uint64, flags int, mode uint32) {
	const tmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY
	if flags&(unix.O_PATH|tmpfile) != 0 {
		n.resume(q)
		return
	}
	name, err := n.path(q, at)
	if err != nil || name == "" {
		n.resume(q)
		return
	}
	follow := programs.FollowLast
	if flags&unix.O_NOFOLLOW != 0 || flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
		follow = programs.NoFollow
	}
	f, base, err := programs.Process{PID: int(q.pid)}.ResolveNew(dirfd, name, follow)
	if err != nil {
		n.resume(q)
		return
	}
	defer f.Close()
	at2 := f.Path
	if base != "" {
		at2 = path.Join(f.Path, base)
	}
	if f.Path == "" { // a pipe, by its link in /proc
		n.resume(q)
		return
	}
	read := flags&unix.O_ACCMODE != unix.O_WRONLY
	write := flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 || base != ""
	ours := t.ours(n, at2, read, write)
	if base != "" {
		ours = t.oursName(n, at2) && (!read || n.rights.Lookup(exeq.EncodeBytes(at2)).Read)
	}
	terminal := base == "" && within(f.Path, sharedTerminals) && f.ID.Mode&unix.S_IFMT == unix.S_IFCHR
	if f.Stale || f.Process() || base != "" && flags&unix.O_CREAT == 0 || base == "" && !f.Regular() && !terminal || !ours {
		n.resume(q)
		return
	}
	if t.foreign(at2) {
		n.deny(fmt.Sprintf("open %s denied: in tier nested it is shared with processes outside, and this one is not the execution's", exeq.EncodeBytes(at2)))
		n.fail(q, unix.EACCES)
		return
	}
	if base == "" && flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
		n.fail(q, unix.EEXIST)
		return
	}
	if !n.ready(q) {
		n.forget(q)
		return
	}
	if write {
		t.writing.RLock()
		defer t.writing.RUnlock()
	}
	var fd int
	err = n.who.as(func() (err error) {
		if base != "" {
			fd, err = t.create(f.FD(), at2, base, f.Mount, flags, mode&0o1777&^umask(q)) // no set-user-ID
		} else {
			fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.FD()), flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		}
		return err
	})
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer unix.Close(fd) // before the lock goes
	if base != "" {
		t.own(at2, func(st *unix.Stat_t) error { return unix.Fstat(fd, st) })
	}
	if e := n.give(q, fd, -1, flags&unix.O_CLOEXEC != 0); e != 0 {
		n.fail(q, e)
		return
	}
	n.forget(q)
}

func (t *nested) truncate(n *notifier, q *notification, at uint64, size int64) {
	name, err := n.path(q, at)
	if err != nil {
		n.resume(q)
		return
	}
	f, err := programs.Process{PID: int(q.pid)}.Resolve(unix.AT_FDCWD, name, programs.FollowLast)
	if err != nil {
		n.resume(q)
		return
	}
	defer f.Close()
	if f.Stale || !f.Regular() || !t.ours(n, f.Path, false, true) || t.foreign(f.Path) {
		n.resume(q)
		return
	}
	n.do(q, func() error { return unix.Truncate(fmt.Sprintf("/proc/self/fd/%d", f.FD()), size) })
}

// make answers a call that makes a name.
func (t *nested) make(n *notifier, q *notification, dirfd int, at uint64, act func(place) error) {
	p, ok := n.locate(q, dirfd, at)
	if !ok {
		n.resume(q)
		return
	}
	defer p.dir.Close()
	if !t.oursName(n, p.path) || t.foreign(p.path) {
		n.resume(q)
		return
	}
	n.do(q, func() error { return act(p) })
}

func (t *nested) symlink(n *notifier, q *notification, text uint64, dirfd int, at uint64) {
	target, err := n.path(q, text)
	if err != nil {
		n.resume(q)
		return
	}
	t.make(n, q, dirfd, at, func(p place) error {
		return t.named(p, unix.Symlinkat(target, p.dir.FD(), p.base))
	})
}

func (t *nested) mkdir(q *notification, mode uint64) func(place) error {
	return func(p place) error {
		mode := uint32(mode) & 0o1777 &^ umask(q)
		err := unix.Mkdirat(p.dir.FD(), p.base, mode)
		if err == nil && mode&t.umask != 0 {
			// Ours took bits away; those that the directory passed on stay.
			var st unix.Stat_t
			if err = unix.Fstatat(p.dir.FD(), p.base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				err = unix.Fchmodat(p.dir.FD(), p.base, st.Mode&unix.S_ISGID|mode, 0)
			}
		}
		return t.named(p, err)
	}
}

// named notes what was made under a name.
func (t *nested) named(p place, err error) error {
	if err == nil {
		t.own(p.path, func(st *unix.Stat_t) error { return unix.Fstatat(p.dir.FD(), p.base, st, unix.AT_SYMLINK_NOFOLLOW) })
	}
	return err
}

func (t *nested) remove(n *notifier, q *notification, dirfd int, at uint64, flags int) {
	t.make(n, q, dirfd, at, func(p place) error { return unix.Unlinkat(p.dir.FD(), p.base, flags) })
}

// rename moves a name if what holds for it and below it stays as it is: a
// grant moves along with a directory, a forbid does not.
func (t *nested) rename(n *notifier, q *notification, fromDir int, from uint64, toDir int, to uint64, flags uint) {
	a, b, ok := t.both(n, q, fromDir, from, toDir, to)
	if !ok {
		return
	}
	defer a.dir.Close()
	defer b.dir.Close()
	if !n.uniform(a.path) || !n.uniform(b.path) {
		n.fail(q, unix.EBUSY)
		return
	}
	n.do(q, func() error { return unix.Renameat2(a.dir.FD(), a.base, b.dir.FD(), b.base, flags) })
}

func (t *nested) link(n *notifier, q *notification, fromDir int, from uint64, toDir int, to uint64, flags int) {
	if flags != 0 {
		n.resume(q)
		return
	}
	a, b, ok := t.both(n, q, fromDir, from, toDir, to)
	if !ok {
		return
	}
	defer a.dir.Close()
	defer b.dir.Close()
	n.do(q, func() error { return unix.Linkat(a.dir.FD(), a.base, b.dir.FD(), b.base, 0) })
}

// both locates two names of which the second is to get what the first is; it
// answers the call itself unless ok.
func (t *nested) both(n *notifier, q *notification, fromDir int, from uint64, toDir int, to uint64) (a, b place, ok bool) {
	if a, ok = n.locate(q, fromDir, from); !ok {
		n.resume(q)
		return a, b, false
	}
	if b, ok = n.locate(q, toDir, to); !ok {
		a.dir.Close()
		n.resume(q)
		return a, b, false
	}
	ra, rb := n.rights.Lookup(exeq.EncodeBytes(a.path)), n.rights.Lookup(exeq.EncodeBytes(b.path))
	switch {
	case !t.oursName(n, a.path) && !t.oursName(n, b.path), !ra.Write, !rb.Write, t.foreign(a.path), t.foreign(b.path):
		n.resume(q) // wholly the kernel's, or refused by it
	case ra.Read != rb.Read || ra.Exec != rb.Exec || !slices.Equal(ra.Labels, rb.Labels):
		n.fail(q, unix.EXDEV)
	default:
		return a, b, true
	}
	a.dir.Close()
	b.dir.Close()
	return a, b, false
}

// uniform reports whether one access holds for a path and all below it.
func (n *notifier) uniform(p string) bool {
	id := exeq.EncodeBytes(p)
	at := n.rights.Lookup(id)
	same := func(x exeq.Access) bool {
		return x.Read == at.Read && x.Write == at.Write && x.Exec == at.Exec && slices.Equal(x.Labels, at.Labels)
	}
	for _, c := range n.rights.Cells {
		if within(c.Path, id) && (!same(c.At) || !same(c.Under)) {
			return false
		}
	}
	return true
}

// umask reads the process's; where it cannot be read nothing is left to others.
func umask(q *notification) uint32 { return umaskOf(fmt.Sprint(q.pid)) }

func umaskOf(pid string) uint32 {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0o077
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "Umask:"); ok {
			if m, err := strconv.ParseUint(strings.TrimSpace(s), 8, 32); err == nil {
				return uint32(m)
			}
		}
	}
	return 0o077
}

// as runs act with the file system identity of the execution's user.
func (who identity) as(act func() error) error {
	if !who.change {
		return act()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the identity is this thread's, which ends with it
		if err := who.assume(); err != nil {
			done <- err
			return
		}
		done <- act()
	}()
	return <-done
}

// assume gives this thread, which must be locked, the file system identity of
// the execution's user.
func (who identity) assume() error {
	if !who.change {
		return nil
	}
	groups := make([]uint32, len(who.groups)+1)
	for i, g := range who.groups {
		groups[i] = uint32(g)
	}
	_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(who.groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(who.gid), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(who.uid), 0, 0)
	uid, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0)
	gid, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, ^uintptr(0), 0, 0)
	if e1 != 0 || int(uid) != who.uid || int(gid) != who.gid {
		return unix.EPERM
	}
	return nil
}
