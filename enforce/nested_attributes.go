//go:build linux

package enforce

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/programs"
)

// Modes, owners, times and extended attributes are beyond Landlock: whoever
// owns a file could change them wherever it lies. So the supervisor makes each
// such change itself, on the object that it decided on, and never lets the
// kernel read the arguments again.

// attribute is one change, and what it is made to.
type attribute struct {
	dirfd  int
	at     uint64 // of the path
	byFD   bool   // no path: the descriptor's own file
	flags  int    // AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH
	change func(fd int) error
	now    bool // times become the present, which writing does too
}

// attributes answers calls that change attributes.
func (t *nested) attributes(n *notifier, q *notification) bool {
	c, err := n.attributeOf(q)
	if err != nil {
		n.failAs(q, err)
		return true
	}
	if c == nil {
		return false
	}
	f, byFD, err := n.object(q, c)
	if err != nil {
		n.failAs(q, err)
		return true
	}
	defer f.Close()
	if !t.mayChange(n, f, c, byFD) {
		if f.Path != "" && !f.Process() {
			n.noteRefused(refusal{path: f.Path})
		}
		n.fail(q, unix.EPERM)
		return true
	}
	if !n.ready(q) {
		n.forget(q)
		return true
	}
	if err := n.who.powerless(func() error { return c.change(f.FD()) }); err != nil {
		n.failAs(q, err)
		return true
	}
	n.send(q, response{})
	return true
}

// mayChange decides on what was resolved.
func (t *nested) mayChange(n *notifier, f *programs.File, c *attribute, byFD bool) bool {
	kind := f.ID.Mode & unix.S_IFMT
	device := kind == unix.S_IFCHR || kind == unix.S_IFBLK
	if f.Stale {
		// A pipe, a socket, a file without a name: nobody can open it but by
		// the descriptor, which the process has.
		var st unix.Stat_t
		nameless := f.Path == "" || unix.Fstat(f.FD(), &st) == nil && st.Nlink == 0
		return byFD && nameless && !device
	}
	if f.Process() || f.Foreign || !n.rights.Lookup(exeq.EncodeBytes(f.Path)).Write || t.foreign(f.Path) {
		return false
	}
	if device { // it is everybody's, but for a terminal that the execution made
		own := within(f.Path, sharedTerminals) && f.Path != t.shared.terminal
		return own || c.now
	}
	return true
}

// object resolves what a change is made to, and says whether by descriptor
// alone.
func (n *notifier) object(q *notification, c *attribute) (*programs.File, bool, error) {
	p := programs.Process{PID: int(q.pid)}
	if c.byFD || c.at == 0 && c.flags&unix.AT_EMPTY_PATH != 0 {
		f, err := p.Resolve(c.dirfd, "", programs.FollowLast)
		return f, true, err
	}
	name, err := n.path(q, c.at)
	if err != nil {
		return nil, false, err
	}
	if name == "" && c.flags&unix.AT_EMPTY_PATH == 0 {
		return nil, false, unix.ENOENT
	}
	follow := programs.FollowLast
	if c.flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		follow = programs.NoFollow
	}
	f, err := p.Resolve(c.dirfd, name, follow)
	return f, name == "", err
}

// attributeOf reads a call, all of it: nothing is read again later. It gives
// nil for any other call.
func (n *notifier) attributeOf(q *notification) (*attribute, error) {
	a := q.args
	fd := func(i int) int { return int(int32(a[i])) }
	here := func(i, flags int) *attribute { return &attribute{dirfd: unix.AT_FDCWD, at: a[i], flags: flags} }
	of := func(dir, i, flags int) *attribute { return &attribute{dirfd: fd(dir), at: a[i], flags: flags} }
	own := func(i int) *attribute { return &attribute{dirfd: fd(i), byFD: true} }
	const nofollow = unix.AT_SYMLINK_NOFOLLOW
	checked := func(c *attribute, i int) (*attribute, error) {
		if c.flags = fd(i); c.flags&^(nofollow|unix.AT_EMPTY_PATH) != 0 {
			return nil, unix.EINVAL
		}
		return c, nil
	}
	name := filter.Name(int(q.nr))
	switch name {
	case "chmod":
		return here(0, 0).chmod(a[1]), nil
	case "fchmod":
		return own(0).chmod(a[1]), nil
	case "fchmodat":
		return of(0, 1, 0).chmod(a[2]), nil
	case "fchmodat2":
		return checked(of(0, 1, 0).chmod(a[2]), 3)
	case "chown":
		return here(0, 0).chown(fd(1), fd(2)), nil
	case "lchown":
		return here(0, nofollow).chown(fd(1), fd(2)), nil
	case "fchown":
		return own(0).chown(fd(1), fd(2)), nil
	case "fchownat":
		return checked(of(0, 1, 0).chown(fd(2), fd(3)), 4)
	case "utime":
		return n.times(q, here(0, 0), a[1], name)
	case "utimes":
		return n.times(q, here(0, 0), a[1], name)
	case "futimesat", "utimensat":
		c := of(0, 1, 0)
		c.byFD = a[1] == 0
		if name == "utimensat" {
			if _, err := checked(c, 3); err != nil {
				return nil, err
			}
		}
		return n.times(q, c, a[2], name)
	case "setxattr", "lsetxattr":
		c := here(0, 0)
		if name == "lsetxattr" {
			c.flags = nofollow
		}
		return n.setxattr(q, c, a[1], a[2], a[3], fd(4))
	case "fsetxattr":
		return n.setxattr(q, own(0), a[1], a[2], a[3], fd(4))
	case "setxattrat": // struct xattr_args: value, size, flags
		c, err := checked(of(0, 1, 0), 2)
		var b [16]byte
		if err == nil && a[5] != 16 {
			err = unix.EINVAL
		}
		if err == nil {
			err = readAll(int(q.pid), a[4], b[:])
		}
		if err != nil {
			return nil, err
		}
		e := binary.NativeEndian
		return n.setxattr(q, c, a[3], e.Uint64(b[:]), uint64(e.Uint32(b[8:])), int(e.Uint32(b[12:])))
	case "removexattr":
		return n.removexattr(q, here(0, 0), a[1])
	case "lremovexattr":
		return n.removexattr(q, here(0, nofollow), a[1])
	case "fremovexattr":
		return n.removexattr(q, own(0), a[1])
	case "removexattrat":
		c, err := checked(of(0, 1, 0), 2)
		if err != nil {
			return nil, err
		}
		return n.removexattr(q, c, a[3])
	case "file_setattr":
		return nil, unix.EOPNOTSUPP
	}
	return nil, nil
}

func (c *attribute) chmod(mode uint64) *attribute {
	c.change = func(fd int) error { return unix.Chmod(ownFD(fd), uint32(mode)&0o3777) } // no set-user-ID
	return c
}

func (c *attribute) chown(uid, gid int) *attribute {
	c.change = func(fd int) error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) }
	return c
}

// times reads what utime, utimes, futimesat or utimensat were given.
func (n *notifier) times(q *notification, c *attribute, at uint64, call string) (*attribute, error) {
	ts := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if at != 0 {
		var b [32]byte
		size := 32
		if call == "utime" {
			size = 16
		}
		if err := readAll(int(q.pid), at, b[:size]); err != nil {
			return nil, err
		}
		word := func(i int) int64 { return int64(binary.NativeEndian.Uint64(b[8*i:])) }
		for i := range ts {
			switch call {
			case "utime":
				ts[i] = unix.Timespec{Sec: word(i)}
			case "utimensat":
				ts[i] = unix.Timespec{Sec: word(2 * i), Nsec: word(2*i + 1)}
			default:
				us := word(2*i + 1)
				if us < 0 || us >= 1_000_000 {
					return nil, unix.EINVAL
				}
				ts[i] = unix.Timespec{Sec: word(2 * i), Nsec: 1000 * us}
			}
		}
	}
	c.now = ts[0].Nsec == unix.UTIME_NOW && ts[1].Nsec == unix.UTIME_NOW
	c.change = func(fd int) error { return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH) }
	return c, nil
}

// maxAttribute is XATTR_SIZE_MAX.
const maxAttribute = 64 << 10

func (n *notifier) setxattr(q *notification, c *attribute, nameAt, at, size uint64, flags int) (*attribute, error) {
	name, err := n.attributeName(q, nameAt)
	if err != nil {
		return nil, err
	}
	if size > maxAttribute {
		return nil, unix.E2BIG
	}
	value := make([]byte, size)
	if err := readAll(int(q.pid), at, value); err != nil {
		return nil, err
	}
	c.change = func(fd int) error { return unix.Setxattr(ownFD(fd), name, value, flags) }
	return c, nil
}

func (n *notifier) removexattr(q *notification, c *attribute, nameAt uint64) (*attribute, error) {
	name, err := n.attributeName(q, nameAt)
	if err != nil {
		return nil, err
	}
	c.change = func(fd int) error { return unix.Removexattr(ownFD(fd), name) }
	return c, nil
}

func (n *notifier) attributeName(q *notification, at uint64) (string, error) {
	name, err := readString(int(q.pid), at, 256) // XATTR_NAME_MAX and its end
	if err == unix.ENAMETOOLONG || err == nil && name == "" {
		err = unix.ERANGE
	}
	return name, err
}

// readAll fills b from a process's memory.
func readAll(pid int, at uint64, b []byte) error {
	for len(b) > 0 {
		got, err := readMemory(pid, at, b)
		if err != nil {
			return err
		}
		at += uint64(got)
		b = b[got:]
	}
	return nil
}

func ownFD(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// empowered: this process has capabilities.
var empowered = sync.OnceValue(func() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	return os.Geteuid() == 0 || unix.Capget(&head, &have[0]) != nil || have[0].Effective|have[1].Effective != 0
})

// powerless is as without the supervisor's capabilities, which the execution
// does not have even where it is root.
func (who identity) powerless(act func() error) error {
	if !empowered() {
		return who.as(act)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good
		done <- func() error {
			if err := who.assume(); err != nil {
				return err
			}
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none[0])), 0); e != 0 {
				return e
			}
			return act()
		}()
	}()
	return <-done
}
