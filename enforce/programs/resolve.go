//go:build linux

package programs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Process is a governed thread, whose root, working directory and descriptors
// paths are resolved in. PID is its thread id as the supervisor sees it. The
// caller makes sure that the thread still is the one that asked
// (SECCOMP_IOCTL_NOTIF_ID_VALID) after it has resolved.
type Process struct{ PID int }

// Follow says what to do with the last component.
type Follow int

const (
	// FollowLast follows a symbolic link, as open and execve do.
	FollowLast Follow = iota
	// NoFollow takes a symbolic link as itself, as unlink and rename do.
	NoFollow
)

// Resolve finds what the process means by a path. dirfd is AT_FDCWD or a
// descriptor number of the process. An empty path is the file that dirfd stands
// for (AT_EMPTY_PATH, mmap): where the call would answer ENOENT to it, the
// caller has to.
//
// It resolves with the credentials of the caller, not of the process: it says
// what is meant and never that it is permitted. Errors wrap the errno that the
// process would get from the kernel for a path that leads nowhere.
func (p Process) Resolve(dirfd int, name string, follow Follow) (*File, error) {
	f, base, err := p.walk(dirfd, name, follow, false)
	if err == nil && base != "" {
		err = unix.ENOENT
		f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("programs: resolve %q: %w", exeq.EncodeBytes(name), err)
	}
	return f, nil
}

// ResolveNew is Resolve for a path whose last component may be about to be
// made: if it does not exist, f is its directory and base its name.
func (p Process) ResolveNew(dirfd int, name string, follow Follow) (f *File, base string, err error) {
	f, base, err = p.walk(dirfd, name, follow, true)
	if err != nil {
		return nil, "", fmt.Errorf("programs: resolve %q: %w", exeq.EncodeBytes(name), err)
	}
	return f, base, nil
}

// Mount gives the id of the mount that Resolve would find the file on, for
// less, where no symbolic link is on the way; ELOOP or EXDEV: Resolve knows.
func (p Process) Mount(dirfd int, name string, follow Follow) (uint64, error) {
	from := "root"
	switch {
	case name == "":
		return 0, unix.ENOENT
	case name[0] == '/':
	case dirfd == unix.AT_FDCWD:
		from = "cwd"
	default:
		from = "fd/" + strconv.Itoa(dirfd)
	}
	start, err := p.link(from)
	if err != nil {
		return 0, err
	}
	defer unix.Close(start)
	root := -1
	if from == "root" {
		root = start
	}
	fd, err := quick(root, start, name, follow)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, err
	}
	return st.Mnt_id, nil
}

func (p Process) walk(dirfd int, name string, follow Follow, create bool) (*File, string, error) {
	if len(name) > exeq.MaxPathBytes || strings.IndexByte(name, 0) >= 0 {
		return nil, "", unix.ENAMETOOLONG
	}
	root, err := p.link("root")
	if err != nil {
		return nil, "", err
	}
	defer unix.Close(root)
	start := root
	if name == "" || name[0] != '/' {
		if dirfd == unix.AT_FDCWD {
			start, err = p.link("cwd")
		} else {
			start, err = p.link("fd/" + strconv.Itoa(dirfd))
		}
		if errors.Is(err, unix.ENOENT) {
			err = unix.EBADF
		}
		if err != nil {
			return nil, "", err
		}
		if name == "" {
			f, err := newFile(start)
			return p.fresh(root, f, "", err)
		}
		defer unix.Close(start)
	}
	if fd, err := quick(root, start, name, follow); err == nil {
		f, err := newFile(fd)
		return p.fresh(root, f, "", err)
	}
	w := walker{process: p, root: root, create: create, follow: follow}
	fd, base, err := w.run(start, name)
	if err != nil {
		return nil, "", err
	}
	f, err := newFile(fd)
	return p.fresh(root, f, base, err)
}

// fresh sets Stale by looking the canonical path up again, and Foreign by the
// process's mount table where that does not find the file.
func (p Process) fresh(root int, f *File, base string, err error) (*File, string, error) {
	if err != nil {
		return nil, "", err
	}
	f.Stale = f.Stale || !f.at(root)
	if f.Stale {
		if f.Foreign, err = p.foreign(f.Mount); err != nil {
			f.Close()
			return nil, "", err
		}
	}
	return f, base, nil
}

// at reports whether f's path leads to f in root.
func (f *File) at(root int) bool {
	fd, err := openat2(root, f.Path, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var sx unix.Statx_t
	return unix.Fstat(fd, &st) == nil && unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &sx) == nil &&
		uint64(st.Dev) == f.ID.Dev && st.Ino == f.ID.Ino && sx.Mnt_id == f.Mount
}

// foreign reports whether the process's mount namespace has no mount of that
// id.
func (p Process) foreign(mount uint64) (bool, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/mountinfo")
	if err != nil {
		return false, err
	}
	id := strconv.FormatUint(mount, 10) + " "
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, id) {
			return false, nil
		}
	}
	return true, nil
}

// link opens what a link of the process's proc directory leads to.
func (p Process) link(name string) (int, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(p.PID)+"/"+name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// quick resolves a path that has no symbolic link in it, in one system call.
func quick(root, start int, name string, follow Follow) (int, error) {
	flags := uint64(unix.O_PATH)
	if follow == NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	if start == root {
		return openat2(root, name, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
	}
	if strings.Contains(name, "..") {
		// From elsewhere than the root ".." must still stop at the root.
		return -1, unix.EXDEV
	}
	return openat2(start, name, flags, unix.RESOLVE_NO_SYMLINKS)
}

// openat2 retries what the kernel asks to retry.
func openat2(dir int, name string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for range 64 {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// walker resolves by hand, because openat2 follows absolute links to the
// caller's root unless told RESOLVE_IN_ROOT, with that cannot start anywhere
// but in the root, and takes /proc/self for the caller's.
type walker struct {
	process Process
	root    int
	create  bool
	follow  Follow
	links   int // followed so far
}

// maxLinks is the kernel's limit (MAXSYMLINKS).
const maxLinks = 40

// run gives a new descriptor; base is set if the last component is missing and
// may be made.
func (w *walker) run(start int, name string) (fd int, base string, err error) {
	cur, err := dup(start)
	if w.absolute(name) {
		unix.Close(cur)
		cur, err = dup(w.root)
	}
	if err != nil {
		return -1, "", err
	}
	step := func(next int, err error) error {
		if err == nil {
			unix.Close(cur)
			cur = next
		}
		return err
	}
	rest := name
	for {
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return cur, "", nil
		}
		comp, after, slash := strings.Cut(rest, "/")
		last := strings.TrimLeft(after, "/") == ""
		rest = after
		switch comp {
		case ".":
			err = step(unix.Openat(cur, ".", unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0))
		case "..":
			err = step(w.parent(cur))
		default:
			var next int
			next, err = unix.Openat(cur, comp, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			if err == unix.ENOENT && last && !slash && w.create {
				return cur, comp, nil
			}
			if err != nil {
				break
			}
			var st unix.Stat_t
			if err = unix.Fstat(next, &st); err != nil {
				unix.Close(next)
				break
			}
			if st.Mode&unix.S_IFMT == unix.S_IFLNK && !(last && !slash && w.follow == NoFollow) {
				var text string
				text, next, err = w.readlink(cur, next, comp)
				if err == nil && next < 0 {
					if rest = text + "/" + after; last && !slash {
						rest = text
					}
					if w.absolute(text) {
						err = step(dup(w.root))
					}
					break
				}
				if err == nil {
					err = unix.Fstat(next, &st)
				}
			}
			if err == nil && (!last || slash) && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				err = unix.ENOTDIR
			}
			if err != nil {
				if next >= 0 {
					unix.Close(next)
				}
				break
			}
			err = step(next, nil)
		}
		if err != nil {
			unix.Close(cur)
			return -1, "", err
		}
	}
}

func (w *walker) absolute(name string) bool { return strings.HasPrefix(name, "/") }

// parent opens "..", which at the root is the root.
func (w *walker) parent(cur int) (int, error) {
	var c, r unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	if err := unix.Statx(cur, "", unix.AT_EMPTY_PATH, mask, &c); err != nil {
		return -1, err
	}
	if err := unix.Statx(w.root, "", unix.AT_EMPTY_PATH, mask, &r); err != nil {
		return -1, err
	}
	if c.Ino == r.Ino && c.Mnt_id == r.Mnt_id && c.Dev_major == r.Dev_major && c.Dev_minor == r.Dev_minor {
		return dup(cur)
	}
	return unix.Openat(cur, "..", unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
}

// readlink takes the symbolic link lnk, which is dir's entry comp, over and
// gives either its text (next < 0) or, for a link of proc that has no text to
// follow, what it leads to.
func (w *walker) readlink(dir, lnk int, comp string) (text string, next int, err error) {
	defer unix.Close(lnk)
	if w.links++; w.links > maxLinks {
		return "", -1, unix.ELOOP
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(lnk, &fs); err != nil {
		return "", -1, err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		if text, err := w.self(dir, comp); text != "" || err != nil {
			return text, -1, err
		}
		fd, err := openat2(dir, comp, unix.O_PATH, unix.RESOLVE_NO_MAGICLINKS)
		if err == unix.ELOOP {
			next, err := unix.Openat(dir, comp, unix.O_PATH|unix.O_CLOEXEC, 0)
			return "", next, err
		}
		if err == nil {
			unix.Close(fd)
		}
	}
	buf := make([]byte, exeq.MaxPathBytes)
	n, err := unix.Readlinkat(lnk, "", buf)
	if err != nil {
		return "", -1, err
	}
	if n == 0 || n == len(buf) {
		return "", -1, unix.ENAMETOOLONG
	}
	return string(buf[:n]), -1, nil
}

// self gives the text of /proc/self and /proc/thread-self as the process reads
// it; "" for any other link. The kernel would give the reader's own.
func (w *walker) self(dir int, comp string) (string, error) {
	if comp != "self" && comp != "thread-self" {
		return "", nil
	}
	var st, own unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return "", err
	}
	const procRoot = 1 // PROC_ROOT_INO
	if st.Ino != procRoot {
		return "", nil
	}
	if err := unix.Stat("/proc", &own); err != nil {
		return "", err
	}
	ids, err := w.process.ids()
	if err != nil {
		return "", err
	}
	// The instance of proc is the caller's own or that of the process's pid
	// namespace: the outermost or the innermost id.
	tgid, tid := ids.tgid[len(ids.tgid)-1], ids.tid[len(ids.tid)-1]
	if st.Dev == own.Dev {
		tgid, tid = ids.tgid[0], ids.tid[0]
	}
	if comp == "self" {
		return tgid, nil
	}
	return path.Join(tgid, "task", tid), nil
}

type processIDs struct{ tgid, tid []string }

// ids reads the process's ids in each pid namespace, the caller's first.
func (p Process) ids() (processIDs, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/status")
	if err != nil {
		return processIDs{}, err
	}
	var ids processIDs
	for line := range strings.SplitSeq(string(b), "\n") {
		if s, ok := strings.CutPrefix(line, "NStgid:"); ok {
			ids.tgid = strings.Fields(s)
		}
		if s, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids.tid = strings.Fields(s)
		}
	}
	if len(ids.tgid) == 0 || len(ids.tid) == 0 {
		return ids, unix.ESRCH
	}
	return ids, nil
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
