//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
)

// life is what a scope lives by here and now.
type life struct {
	files  []bpf.File
	trees  []bpf.Tree
	faults []string
}

func (l *life) same(o *life) bool {
	return o != nil && slices.Equal(l.files, o.files) && slices.Equal(l.trees, o.trees) && slices.Equal(l.faults, o.faults)
}

// live finds what a statement names. What is not as it says is a fault, and is
// not lived by.
func (s *scopes) live(b *exeq.ScopeBody) (*life, error) {
	l := &life{}
	fault := func(path string, err error) {
		l.faults = append(l.faults, exeq.EncodeBytes(fmt.Sprintf("%s: %v", exeq.Readable(path), err)))
	}
	for _, p := range b.Programs {
		f, err := openRegular(p.Path)
		if err != nil {
			fault(p.Path, err)
			continue
		}
		file, digest, err := s.n.hash(f)
		f.Close()
		switch {
		case err != nil:
			fault(p.Path, err)
		case digest != p.SHA256:
			fault(p.Path, fmt.Errorf("its SHA-256 is %s, the statement says %s", digest, p.SHA256))
		default:
			l.files = append(l.files, file)
		}
	}
	for _, path := range b.Trees {
		d, err := openTree(path)
		if err != nil {
			fault(path, err)
			continue
		}
		t, err := s.n.gate.IdentifyTree(d)
		d.Close()
		if err != nil {
			return nil, err
		}
		l.trees = append(l.trees, t)
	}
	return l, nil
}

// itself is the node's own program.
func (n *Node) itself() (bpf.File, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return bpf.File{}, err
	}
	defer f.Close()
	file, _, err := n.hash(f)
	return file, err
}

// openRegular opens a program for reading, by a path without links: of what is
// no regular file nothing is opened but its name.
func openRegular(encoded string) (*os.File, error) {
	path, err := exeq.DecodeBytes(encoded)
	if err != nil {
		return nil, err
	}
	return openFile(path, unix.RESOLVE_NO_SYMLINKS)
}

func openFile(path string, resolve uint64) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("no regular file")
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// openTree opens a directory of which each one on the way to it is root's alone
// to change. What lies below it the kernel looks at, each time.
func openTree(encoded string) (*os.File, error) {
	path, err := exeq.DecodeBytes(encoded)
	if err != nil {
		return nil, err
	}
	var d *os.File
	for at := "/"; ; {
		fd, err := unix.Openat2(unix.AT_FDCWD, at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			return nil, err
		}
		d = os.NewFile(uintptr(fd), at)
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && (st.Uid != 0 || st.Mode&0o022 != 0) {
			err = fmt.Errorf("%s: not root's alone to change (owner %d, mode %#o)", at, st.Uid, st.Mode&0o7777)
		}
		var fs unix.Statfs_t
		if err == nil {
			if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type == unix.FUSE_SUPER_MAGIC {
				err = fmt.Errorf("%s: its file system (FUSE) says of owners what it likes", at)
			}
		}
		if err != nil {
			d.Close()
			return nil, err
		}
		if at == path {
			return d, nil
		}
		d.Close()
		rest := strings.TrimPrefix(path[len(at):], "/")
		next, _, _ := strings.Cut(rest, "/")
		at = filepath.Join(at, next)
	}
}
