//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Paths come from statements and from what executes: a directory on the way may
// be a file system that a user's own program answers for, or does not. The
// kernel's walk would wait for it, and whoever declares or lifts a scope with it.
// So each step is looked at before anything is asked of it.

const maxLinks = 40 // as the kernel's

// stat says what a descriptor (O_PATH) names, if its file system is ours to ask.
func (n *Node) stat(fd int) (st unix.Stat_t, err error) {
	if err = n.gate.Ours(fd); err == nil {
		err = unix.Fstat(fd, &st)
	}
	return st, err
}

// walk opens a path (O_PATH), from the root, and shows each directory on the way
// and what it leads to. Nothing is asked of a file system that is not ours: that
// is bpf.ErrTheirs. Symbolic links are an error unless they are to be followed;
// none of /proc is followed but by its text.
func (n *Node) walk(path string, links bool, seen func(at string, st *unix.Stat_t) error) (fd int, err error) {
	if !strings.HasPrefix(path, "/") {
		return -1, fmt.Errorf("%s is no absolute path", exeq.EncodeBytes(path))
	}
	at, followed := "/", 0
	if fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	for {
		st, err := n.stat(fd)
		if err == nil && seen != nil {
			err = seen(at, &st)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		path = strings.TrimLeft(path, "/")
		if path == "" {
			return fd, nil
		}
		name, rest, _ := strings.Cut(path, "/")
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		text := ""
		if err == nil {
			text, err = n.link(next)
		}
		switch {
		case err != nil:
		case text == "":
			unix.Close(fd)
			fd, path, at = next, rest, strings.TrimSuffix(at, "/")+"/"+name
			continue
		case !links:
			err = unix.ELOOP
		default:
			if followed++; followed > maxLinks {
				err = unix.ELOOP
			}
			path = text + "/" + rest
		}
		if next >= 0 {
			unix.Close(next)
		}
		if err == nil && text[0] == '/' {
			unix.Close(fd)
			at = "/"
			fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
}

// link reads a symbolic link; "" is none.
func (n *Node) link(fd int) (string, error) {
	st, err := n.stat(fd)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	b := make([]byte, unix.PathMax)
	k, err := unix.Readlinkat(fd, "", b)
	if err == nil && k == 0 {
		err = unix.ENOENT
	}
	return string(b[:k]), err
}

// openRegular opens a program for reading: of what is no regular file nothing is
// opened but its name.
func (n *Node) openRegular(path string, links bool) (*os.File, error) {
	fd, err := n.walk(path, links, nil)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return n.reopen(fd)
}

// reopen opens for reading what a descriptor (O_PATH) names.
func (n *Node) reopen(fd int) (*os.File, error) {
	st, err := n.stat(fd)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("no regular file")
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
