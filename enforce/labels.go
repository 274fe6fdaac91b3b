//go:build linux

package enforce

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/enforce/spawn"
)

// labels serves reads that set labels. Where one may be read something covers
// it, so the only way to its bytes is a descriptor of ours: the file is opened,
// the gate decides on what was opened and commits the label, and only then is
// the descriptor delivered.
//
// Descriptors come from a read-only, noexec mount that is attached nowhere:
// Landlock permits nothing by path from there.
type labels struct {
	trees []labelTree // deepest first
}

type labelTree struct {
	path  string
	fd    int // root of the detached mount
	mount uint64
}

// labelled lists the raw paths of cells whose reading sets labels.
func labelled(r *exeq.Rights) ([]string, error) {
	var out []string
	for _, c := range r.Cells {
		if c.At.Read && len(c.At.Labels) > 0 || c.Under.Read && len(c.Under.Labels) > 0 {
			raw, err := exeq.DecodeBytes(c.Path)
			if err != nil {
				return nil, err
			}
			if _, err := kindOf(raw); err == nil && !replaced(raw) {
				out = append(out, raw)
			}
		}
	}
	return out, nil
}

const labelFlags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID

// detach appends, for each labelled path, a detached mount of it and its
// passing to us, before the path is covered.
func (m mounter) detach(paths []string, events spawn.Arg) {
	for i, p := range paths {
		_, fd := m.open(p)
		op := m.l.Do("open_tree "+p, unix.SYS_OPEN_TREE, load(fd), m.str(""),
			v(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE))
		a, size := m.attr(labelFlags, 0, 0)
		set := m.l.Do("mount_setattr "+p, unix.SYS_MOUNT_SETATTR, spawn.Arg{}, m.str(""), v(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE), a, size)
		op.Out = m.l.Send("send the tree", events, eventLabelled, uint32(i))
		set.Set(0, load(op.Out))
		m.close(op.Out)
		m.close(fd)
	}
}

// add takes a detached mount over.
func (l *labels) add(p string, fd int) error {
	id, err := mountID(fd)
	if err != nil {
		return err
	}
	at := 0
	for at < len(l.trees) && len(l.trees[at].path) > len(p) {
		at++
	}
	l.trees = append(l.trees[:at:at], append([]labelTree{{p, fd, id}}, l.trees[at:]...)...)
	return nil
}

func (l *labels) close() {
	for _, t := range l.trees {
		unix.Close(t.fd)
	}
}

// open answers an open of a labelled path, and reports whether it was one. Any
// other goes on in the kernel, where no labelled byte can be reached.
func (l *labels) open(n *notifier, q *notification, dirfd int, at uint64, flags int) bool {
	if flags&unix.O_PATH != 0 {
		return false
	}
	name, err := n.path(q, at)
	if err != nil || name == "" {
		return false
	}
	canonical, err := l.resolve(q, dirfd, name, flags)
	if err != nil {
		return false
	}
	id := exeq.EncodeBytes(canonical)
	if a := n.rights.Lookup(id); !a.Read || len(a.Labels) == 0 {
		return false
	}
	if flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE {
		n.fail(q, unix.EROFS) // see Applied.Downgrades
		return true
	}
	fd, err := l.fetch(n, canonical, flags)
	if err != nil {
		n.failAs(q, err)
		return true
	}
	defer unix.Close(fd)
	if !n.valid(q) {
		n.forget(q)
		return true
	}
	if !n.ask(exeq.Activity{Action: exeq.ActionRead, PID: int(q.pid), Resource: exeq.Resource{Type: "Path", ID: id}}) {
		n.fail(q, unix.EPERM)
		return true
	}
	if e := n.give(q, fd, -1, flags&unix.O_CLOEXEC != 0); e != 0 {
		n.fail(q, e)
		return true
	}
	n.forget(q)
	return true
}

// resolve gives the canonical path that is meant, as the supervisor sees the
// file system: nothing covers it there. What it finds is delivered only if it
// is labelled, so a difference between the two views grants nothing.
func (l *labels) resolve(q *notification, dirfd int, name string, flags int) (string, error) {
	if !strings.HasPrefix(name, "/") {
		link := fmt.Sprintf("/proc/%d/fd/%d", q.pid, dirfd)
		if dirfd == unix.AT_FDCWD {
			link = fmt.Sprintf("/proc/%d/cwd", q.pid)
		}
		base, err := l.pathOf(link)
		if err != nil {
			return "", err
		}
		name = base + "/" + name
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_NOFOLLOW != 0 {
		how.Flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &how)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil && !strings.HasPrefix(p, "/") {
		err = unix.ENOENT
	}
	return p, err
}

// pathOf gives the path of a process's directory; one that we delivered lies
// on a detached mount, whose paths begin at the labelled one.
func (l *labels) pathOf(link string) (string, error) {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	id, err := mountID(fd)
	if err != nil {
		return "", err
	}
	for _, t := range l.trees {
		if t.mount == id {
			return path.Join(t.path, p), nil
		}
	}
	return p, nil
}

// fetch opens a labelled file or directory for reading, from its detached
// mount, as the execution's user could.
func (l *labels) fetch(n *notifier, canonical string, flags int) (int, error) {
	for _, t := range l.trees {
		if !within(canonical, t.path) {
			continue
		}
		rel := strings.TrimPrefix(canonical[len(t.path):], "/")
		target := t.fd
		if rel != "" {
			fd, err := unix.Openat2(t.fd, rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
				Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
			if err != nil {
				return -1, err
			}
			defer unix.Close(fd)
			target = fd
		}
		f, err := (programs.Process{PID: unix.Getpid()}).Resolve(target, "", programs.FollowLast)
		if err != nil {
			return -1, err
		}
		defer f.Close()
		switch {
		case !f.Regular() && !f.Dir(), !n.who.may(f, 4):
			return -1, unix.EACCES
		case flags&unix.O_DIRECTORY != 0 && !f.Dir():
			return -1, unix.ENOTDIR
		}
		if n.who.change && !n.who.reaches(canonical) {
			return -1, unix.EACCES
		}
		return unix.Open(fmt.Sprintf("/proc/self/fd/%d", target), unix.O_RDONLY|unix.O_CLOEXEC|flags&unix.O_NONBLOCK, 0)
	}
	return -1, unix.ENOENT
}

// reaches: the user may search every directory above a path.
func (who identity) reaches(p string) bool {
	for d := path.Dir(p); ; d = path.Dir(d) {
		f, err := (programs.Process{PID: unix.Getpid()}).Resolve(unix.AT_FDCWD, d, programs.NoFollow)
		if err != nil {
			return false
		}
		ok := who.may(f, 1)
		f.Close()
		if !ok || d == "/" {
			return ok
		}
	}
}

// shadowEntries bounds what a shadow copies; a larger tree is covered by an
// empty directory.
const shadowEntries = 10_000

// shadow fills dir with the names, modes, sizes and times of what lies below
// p, and no bytes, so that programs that look before they open find what they
// may ask for.
func shadow(p, dir string) error {
	left := shadowEntries
	var fill func(from, to string) error
	fill = func(from, to string) error {
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if left--; left < 0 {
				return fmt.Errorf("%s holds more than %d names", p, shadowEntries)
			}
			src, dst := path.Join(from, e.Name()), path.Join(to, e.Name())
			info, err := e.Info()
			if err != nil {
				continue // gone meanwhile
			}
			switch {
			case info.IsDir():
				if err := os.Mkdir(dst, 0o700); err != nil {
					return err
				}
				if err := fill(src, dst); err != nil {
					return err
				}
				err = os.Chmod(dst, info.Mode().Perm())
			case info.Mode().IsRegular():
				err = shadowFile(src, dst)
			case info.Mode()&os.ModeSymlink != 0:
				target, rerr := os.Readlink(src)
				if rerr != nil {
					continue
				}
				err = os.Symlink(target, dst)
			default:
				continue
			}
			if err != nil {
				return err
			}
			if info.IsDir() {
				if err := os.Chtimes(dst, info.ModTime(), info.ModTime()); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return fill(p, dir)
}

func shadowFile(src, dst string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dst, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(dst, info.Size()); err != nil {
		return err
	}
	if err := os.Chmod(dst, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(dst, info.ModTime(), info.ModTime())
}
