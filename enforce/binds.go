//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/enforce/spawn"
)

// binds is the approver of the tier rootless: an approved program is a
// read-only, executable mount of its copy over its place. Everything else lies
// on noexec mounts.
type binds struct {
	agent *spawn.Agent
	who   identity
	runs  func(programs.Identity) bool // whether a process inside executes the file
	// Descriptors of the agent: the store, the directory where mounts of
	// removed programs go, the place in it, and the detached mount of the
	// store that descriptors for mappings come from.
	store, grave, slot spawn.Ref
	exec               int // our descriptor of the detached mount

	mu    sync.Mutex
	byID  map[uint64]bound // by mount id
	count atomic.Int64
}

type bound struct{ path string }

const bindSet = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// prepare appends what the agent needs at hand before the store is hidden.
func (b *binds) prepare(m mounter) {
	op := m.l.Do("open_tree of the store", unix.SYS_OPEN_TREE, load(b.store), m.str(""),
		v(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE))
	a, size := m.attr(bindSet, unix.MOUNT_ATTR_NOEXEC, 0)
	set := m.l.Do("mount_setattr of the store", unix.SYS_MOUNT_SETATTR, spawn.Arg{}, m.str(""), v(unix.AT_EMPTY_PATH), a, size)
	op.Out = m.l.Send("send the store's mount", b.agent.Events(), eventExecutable, 0)
	set.Set(0, load(op.Out))
	m.close(op.Out)
}

// Approve implements approver.
func (b *binds) Approve(p programs.Process, f *programs.File, c *programs.Copy) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Another thread may have come first.
	if now, err := p.Resolve(unix.AT_FDCWD, f.Path, programs.NoFollow); err == nil {
		approved := !now.Noexec
		now.Close()
		if approved {
			return nil
		}
	}
	if err := b.open(f, c); err != nil {
		return err
	}
	name := c.Digest.String()
	if err := b.agent.Run(func(l *spawn.List) {
		m := mounter{l: l}
		tree := l.Result(l.Do("open_tree", unix.SYS_OPEN_TREE, load(b.store), m.str(name),
			v(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)))
		a, size := m.attr(bindSet, unix.MOUNT_ATTR_NOEXEC, 0)
		l.Do("mount_setattr", unix.SYS_MOUNT_SETATTR, load(tree), m.str(""), v(unix.AT_EMPTY_PATH), a, size)
		// What fails is told after both descriptors are closed.
		move := l.Do("move_mount", unix.SYS_MOVE_MOUNT, load(tree), m.str(""), b.agent.FD(0), m.str(""),
			v(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
		move.Flags = spawn.Ignore
		m.close(tree)
		l.Do("close", unix.SYS_CLOSE, b.agent.FD(0))
	}, f.FD()); err != nil {
		return fmt.Errorf("approve: %w", err)
	}
	now, err := p.Resolve(unix.AT_FDCWD, f.Path, programs.NoFollow)
	if err != nil {
		return errors.Join(err, b.adopt(name, f.Path))
	}
	defer now.Close()
	if now.Noexec {
		return errors.Join(fmt.Errorf("approve %s: it moved away meanwhile: %w", f.Path, unix.EACCES), b.adopt(name, f.Path))
	}
	id, err := mountID(now.FD())
	if err != nil {
		return err
	}
	b.byID[id] = bound{f.Path}
	b.count.Add(1)
	return nil
}

// adopt takes account of a mount whose place was moved while it was made: it is
// Exeq's wherever it is now.
func (b *binds) adopt(name, path string) error {
	mounts, err := mountTable(b.agent.PID)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if _, known := b.byID[m.id]; !known && filepath.Base(strings.TrimSuffix(m.root, "//deleted")) == name {
			b.byID[m.id] = bound{path}
			b.count.Add(1)
		}
	}
	return nil
}

// open lets the execution's user at the copy as at the original. Where the
// supervisor is another user the copy's owner is another too.
func (b *binds) open(f *programs.File, c *programs.Copy) error {
	if !b.who.change {
		return nil
	}
	mode := uint32(0o111)
	if b.who.may(f, unix.R_OK) {
		mode |= 0o444
	}
	return c.Allow(mode)
}

// Executable implements approver.
func (b *binds) Executable(c *programs.Copy) (int, error) {
	fd, err := unix.Openat(b.exec, c.Digest.String(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("approve: %w", err)
	}
	return fd, nil
}

// Occupied implements approver.
func (b *binds) Occupied() bool { return b.count.Load() > 0 }

// Vacate implements approver. The mount is moved by its descriptor, never
// unmounted by a path that the governed side could turn to another mount. A
// program that still runs keeps its mount in the grave, where it can go on
// executing itself.
func (b *binds) Vacate(f *programs.File) error {
	if f.Noexec {
		return nil
	}
	id, err := mountID(f.FD())
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ours := b.byID[id]; !ours {
		return nil
	}
	live := b.runs(f.ID)
	if err := b.agent.Run(func(l *spawn.List) {
		m := mounter{l: l}
		l.Do("move to the grave", unix.SYS_MOVE_MOUNT, b.agent.FD(0), m.str(""), load(b.slot), m.str(""),
			v(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)).Flags = spawn.Ignore
		l.Do("close", unix.SYS_CLOSE, b.agent.FD(0))
		if !live {
			l.Do("fchdir", unix.SYS_FCHDIR, load(b.grave))
			l.Do("umount", unix.SYS_UMOUNT2, m.str("slot"), v(unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)).Flags = spawn.Ignore
		}
	}, f.FD()); err != nil {
		return fmt.Errorf("vacate: %w", err)
	}
	if at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.FD())); err == nil && strings.TrimSuffix(at, " (deleted)") == f.Path {
		return fmt.Errorf("vacate %s: the mount does not move: %w", f.Path, unix.EBUSY)
	}
	delete(b.byID, id)
	b.count.Add(-1)
	return nil
}

// Owns implements approver.
func (b *binds) Owns(id uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.byID[id]
	return ok
}

// others gives the mounts of the execution but those of approved programs. No
// mount of a program is made or moved meanwhile.
func (b *binds) others() ([]mountLine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mounts, err := mountTable(b.agent.PID)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(mounts, func(m mountLine) bool {
		_, ours := b.byID[m.id]
		return ours
	}), nil
}

// mountLine is one line of a mount table.
type mountLine struct {
	id                  uint64
	device, root, point string
	text                string
}

func mountTable(pid int) ([]mountLine, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	return parseMounts(b)
}

func parseMounts(b []byte) ([]mountLine, error) {
	var mounts []mountLine
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			return nil, fmt.Errorf("mount table: a line of %d fields", len(f))
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("mount table: %w", err)
		}
		mounts = append(mounts, mountLine{id, f[2], f[3], f[4], line})
	}
	return mounts, nil
}

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, errors.New("statx gives no mount id")
	}
	return st.Mnt_id, nil
}
