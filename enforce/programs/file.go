//go:build linux

package programs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Identity tells one state of one inode from another. Two equal identities are
// the same bytes, but for writes within the clock's grain (see Store).
type Identity struct {
	Dev, Ino uint64
	Ctime    int64 // ns since 1970
	Size     int64
	Mode     uint32 // type and permissions
}

func identityOf(st *unix.Stat_t) Identity {
	return Identity{Dev: uint64(st.Dev), Ino: st.Ino, Ctime: st.Ctim.Nano(), Size: st.Size, Mode: st.Mode}
}

// File is a resolved file, held by an O_PATH descriptor.
type File struct {
	fd int
	// Path is the canonical raw path that the kernel gives for the descriptor,
	// in the mount namespace that it was resolved in; "" for what has none
	// (a pipe, a memfd).
	Path string
	// Stale: Path does not lead to this inode through this mount: it was
	// removed, renamed or mounted over since, it never had a name, or it is
	// Foreign.
	Stale bool
	// Foreign: the descriptor came from another mount namespace (standard
	// input that the caller redirected from a file, a descriptor received over
	// a socket) or from none (a memfd). Its mount's flags are not of Exeq's
	// making: that it is not noexec means nothing, and no copy covers it.
	Foreign bool
	ID      Identity
	// Mtime in ns since 1970.
	Mtime int64
	// UID owns the file.
	UID uint32
	// Mount is the id of the mount it was reached through.
	Mount uint64
	// Magic is the file system's type (statfs), Noexec its mount's flag.
	Magic  int64
	Noexec bool
}

// newFile takes fd over, also when it fails.
func newFile(fd int) (*File, error) {
	f := &File{fd: fd}
	if err := f.load(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

func (f *File) load() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("programs: stat: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &fs); err != nil {
		return fmt.Errorf("programs: statfs: %w", err)
	}
	var sx unix.Statx_t
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &sx); err != nil {
		return fmt.Errorf("programs: statx: %w", err)
	}
	f.Mount = sx.Mnt_id
	f.ID, f.Mtime, f.UID = identityOf(&st), st.Mtim.Nano(), st.Uid
	f.Magic, f.Noexec = int64(fs.Type), fs.Flags&unix.ST_NOEXEC != 0
	p, err := os.Readlink(fdPath(f.fd))
	if err != nil {
		return fmt.Errorf("programs: path: %w", err)
	}
	if strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "/memfd:") {
		f.Path = p
	}
	if st.Nlink == 0 || f.Path == "" {
		f.Path, f.Stale = strings.TrimSuffix(f.Path, " (deleted)"), true
	}
	return nil
}

// FD is the O_PATH descriptor; it stays f's.
func (f *File) FD() int { return f.fd }

// Close gives the descriptor back. Closing nil or twice is harmless.
func (f *File) Close() error {
	if f == nil || f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}

// Regular reports whether it is a regular file.
func (f *File) Regular() bool { return f.ID.Mode&unix.S_IFMT == unix.S_IFREG }

// Dir reports whether it is a directory.
func (f *File) Dir() bool { return f.ID.Mode&unix.S_IFMT == unix.S_IFDIR }

// Process reports whether the file lies in a proc file system. What proc says
// depends on who asks: a supervisor never opens such a file on behalf.
func (f *File) Process() bool { return f.Magic == unix.PROC_SUPER_MAGIC }

// ErrNotRegular: only regular files have a digest.
var ErrNotRegular = errors.New("not a regular file")

// Open opens the very inode for reading. Regular files only: opening a FIFO
// or a device has effects.
func (f *File) Open() (*os.File, error) {
	if !f.Regular() {
		return nil, fmt.Errorf("programs: %s: %w", f.Path, ErrNotRegular)
	}
	fd, err := unix.Open(fdPath(f.fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: f.Path, Err: err}
	}
	return os.NewFile(uintptr(fd), f.Path), nil
}

// Privileged says why running the file could raise privileges: set-user-ID,
// set-group-ID (of an executable) or file capabilities; "" if it cannot.
// no_new_privs keeps them from having effect inside an execution.
func (f *File) Privileged() string {
	if !f.Regular() {
		return ""
	}
	switch {
	case f.ID.Mode&unix.S_ISUID != 0:
		return "set-user-ID"
	case f.ID.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP:
		return "set-group-ID"
	}
	if n, err := unix.Getxattr(fdPath(f.fd), "security.capability", nil); err == nil && n > 0 {
		return "file capabilities"
	}
	return ""
}

// fdPath names an own descriptor; opening it reopens the same inode.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
