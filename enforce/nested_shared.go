//go:build linux

package enforce

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/landlock"
)

// /dev/shm and /dev/pts belong to everybody. Rootless has its own; here
// Landlock grants nothing in them, and the supervisor opens what came from this
// execution: files that it made, terminals whose other side it holds.
const (
	sharedFiles     = "/dev/shm"
	sharedTerminals = "/dev/pts"
)

// sharedSpares is how many files in /dev/shm get a grant of their own, so that
// they can also be opened without the supervisor: for reading.
const sharedSpares = 16

// shared knows what of the execution's own lies among what is everybody's.
type shared struct {
	terminal string // that it was started on
	members  func() ([]int, error)
	mu       sync.Mutex
	made     map[inode]bool
}

// carveShared takes the shared directories from what Landlock is to grant.
func (c *carver) carveShared() {
	for _, p := range []string{sharedFiles, sharedTerminals} {
		dir, err := kindOf(p)
		if err != nil || !dir || !c.rights.Lookup(exeq.EncodeBytes(p+"/\x00")).Write {
			continue
		}
		x := carveCell{path: p, cell: exeq.Cell{Path: exeq.EncodeBytes(p)}, exists: true, dir: true}
		if old, ok := c.byPath[p]; ok {
			for i := range c.cells {
				if c.cells[i].path == old.path {
					c.cells[i] = x
				}
			}
		} else {
			c.cells = append(c.cells, x)
		}
		c.byPath[p] = x
		c.grant.shared = append(c.grant.shared, p)
		c.grant.writes = true
	}
}

// share lets the shared directories be listed, and has spare files for the one
// that holds files.
func (s *launching) share(n *nested, g *grant) error {
	n.shared.made = map[inode]bool{}
	for _, p := range g.shared {
		dir, err := openPath(p)
		if err != nil {
			return err
		}
		err = landlock.AddPath(s.ruleset, dir, unix.LANDLOCK_ACCESS_FS_READ_DIR)
		if err == nil && p == sharedFiles && n.spares.fill(s.who, s.ruleset, dir, sharedSpares) != nil {
			s.downgrade = append(s.downgrade, p+": files there can be opened for writing only, also to read them")
		}
		unix.Close(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// foreign reports whether a path is in a shared directory and what stands there
// is not the execution's. What does not exist is nobody's.
func (t *nested) foreign(p string) bool {
	if !within(p, sharedFiles) && !within(p, sharedTerminals) || t.shared.made == nil {
		return false
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return err != unix.ENOENT
	}
	if within(p, sharedTerminals) {
		return !t.ownTerminal(p)
	}
	i := inode{st.Dev, st.Ino}
	t.shared.mu.Lock()
	defer t.shared.mu.Unlock()
	return !t.shared.made[i] && !t.spares.is(i)
}

// own notes that the execution made what is stat's.
func (t *nested) own(p string, stat func(*unix.Stat_t) error) {
	var st unix.Stat_t
	if !within(p, sharedFiles) || stat(&st) != nil {
		return
	}
	t.shared.mu.Lock()
	defer t.shared.mu.Unlock()
	if t.shared.made != nil {
		t.shared.made[inode{st.Dev, st.Ino}] = true
	}
}

// ownTerminal reports whether a terminal is the one that the execution was
// started on, or one whose other side a process of the execution holds.
func (t *nested) ownTerminal(p string) bool {
	if p == t.shared.terminal {
		return true
	}
	index := "tty-index:\t" + strings.TrimPrefix(p, sharedTerminals+"/")
	pids, err := t.shared.members()
	if err != nil {
		return false
	}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/", pid)
		fds, err := os.ReadDir(dir + "fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "fd/" + fd.Name()); err != nil || to != "/dev/ptmx" && to != "/dev/pts/ptmx" {
				continue
			}
			info, err := os.ReadFile(dir + "fdinfo/" + fd.Name())
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(info)) {
				if strings.TrimSpace(line) == index {
					return true
				}
			}
		}
	}
	return false
}

// create makes a file in a directory of ours and opens it. In the shared
// directory it is a spare file while there are any.
func (t *nested) create(dir int, at, base string, mount uint64, flags int, mode uint32) (int, error) {
	const keep = unix.O_CLOEXEC | unix.O_NOCTTY
	if within(at, sharedFiles) {
		if spare := t.spares.take(mount); spare != nil {
			defer spare.Close()
			own := fmt.Sprintf("/proc/self/fd/%d", spare.Fd())
			if err := unix.Chmod(own, mode&0o777); err != nil {
				return -1, err
			}
			if err := unix.Linkat(unix.AT_FDCWD, own, dir, base, unix.AT_SYMLINK_FOLLOW); err != nil {
				return -1, err
			}
			return unix.Open(own, flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)|keep, 0)
		}
		flags |= unix.O_EXCL // what another made since is not ours
	}
	fd, err := unix.Openat(dir, base, flags|unix.O_EXCL|unix.O_NOFOLLOW|keep, mode)
	if err == unix.EEXIST && flags&unix.O_EXCL == 0 { // made since we looked
		return unix.Openat(dir, base, flags|unix.O_NOFOLLOW|keep, mode)
	}
	if err == nil && mode&0o7777&t.umask != 0 {
		err = unix.Fchmod(fd, mode&0o7777)
		if err != nil {
			unix.Close(fd)
		}
	}
	return fd, err
}
