//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/landlock"
	"github.com/exeq/exeq/enforce/programs"
)

// Landlock grants whole trees. Where something in a tree must have less, the
// tree's directories on the way to it are not granted, and everything beside
// the way is granted by itself. What comes into being directly in such a
// directory has no grant of its own: it is written through the supervisor
// (nested_files.go).

// grant is the part of rights that Landlock can hold without a mask.
type grant struct {
	rights *exeq.Rights
	// inodes are what stands at paths that are granted by themselves.
	inodes map[string]inode
	// listed are the directories that may be read but for something in there.
	listed []string
	// shared are the directories that belong to everybody.
	shared []string
	// writes: there are such for writing.
	writes bool
}

// maxGrants bounds the rules that carving makes.
const maxGrants = 20_000

type carver struct {
	who    identity
	rights *exeq.Rights
	cells  []carveCell // by path, parents first
	byPath map[string]carveCell
	out    map[string]exeq.Cell
	grant  grant
}

type carveCell struct {
	path   string
	cell   exeq.Cell
	exists bool
	dir    bool
	// link: a symbolic link that must stay. Nothing is granted by it, and it
	// is kept by what its directory does not have.
	link bool
	want exeq.Access // what holds for the file, or below the directory
}

// carve computes what Landlock is to grant.
func (s *launching) carve(r *exeq.Rights) (*grant, error) {
	c := &carver{grant: grant{inodes: map[string]inode{}}, who: s.who, rights: r, out: map[string]exeq.Cell{}, byPath: map[string]carveCell{}}
	for _, cell := range r.Cells {
		raw, err := exeq.DecodeBytes(cell.Path)
		if err != nil {
			return nil, err
		}
		x := carveCell{path: raw, cell: cell}
		x.dir, err = kindOf(raw)
		x.link = errors.Is(err, unix.ELOOP) && !cell.At.Write && isLink(raw)
		x.exists = err == nil || x.link
		// Reads that set labels are beyond this tier.
		x.want = plain(cell.At)
		if x.dir || !x.exists {
			x.want = plain(cell.Under)
		}
		if x.link {
			x.want = exeq.Access{Read: true}
		}
		if x.exists && !x.link && !x.want.Read && !x.want.Write && c.denied(x) {
			continue
		}
		c.cells = append(c.cells, x)
		c.byPath[raw] = x
	}
	c.carveShared()
	slices.SortFunc(c.cells, func(a, b carveCell) int { return comparePaths(a.path, b.path) })
	for _, x := range c.cells {
		if x.link {
			continue
		}
		if !x.exists {
			c.out[x.path] = exeq.Cell{Path: x.cell.Path, At: plain(x.cell.At), Under: plain(x.cell.Under)}
			continue
		}
		if err := c.give(x.path, x.dir, x.want); err != nil {
			return nil, err
		}
	}
	out := *r
	out.Cells = make([]exeq.Cell, 0, len(c.out))
	for _, x := range c.out {
		out.Cells = append(out.Cells, x)
	}
	slices.SortFunc(out.Cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
	c.grant.rights = &out
	for _, p := range c.grant.listed {
		s.downgrade = append(s.downgrade, exeq.EncodeBytes(p)+": names below it can be listed where contents may not be read")
	}
	for _, x := range c.cells {
		if x.exists && (len(x.cell.At.Labels) > 0 || len(x.cell.Under.Labels) > 0) {
			s.downgrade = append(s.downgrade, x.cell.Path+": reads set labels, so nothing there can be read")
		}
	}
	return &c.grant, nil
}

// plain is access without reads that set labels, which no rule can hold.
func plain(a exeq.Access) exeq.Access {
	if len(a.Labels) > 0 {
		a.Read, a.Labels = false, nil
	}
	return a
}

// give grants a on p and below, but for what some cell below must not have.
func (c *carver) give(p string, dir bool, a exeq.Access) error {
	if len(c.out) > maxGrants {
		return fmt.Errorf("more than %d rules are needed to leave out what is forbidden inside permitted trees", maxGrants)
	}
	keep := a
	if dir {
		if r, w := c.loses(p, a); r || w {
			keep.Read, keep.Write = a.Read && !r, a.Write && !w
			c.grant.writes = c.grant.writes || w
			if r {
				c.grant.listed = append(c.grant.listed, p)
			}
			if err := c.around(p, a); err != nil {
				return err
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err == nil {
		c.grant.inodes[p] = inode{st.Dev, st.Ino}
	}
	id := exeq.EncodeBytes(p)
	c.out[p] = exeq.Cell{Path: id, At: keep, Under: keep}
	return nil
}

// around grants a on each entry of a directory.
func (c *carver) around(p string, a exeq.Access) error {
	if p == "/proc" || within(p, "/proc") {
		return fmt.Errorf("a forbid below %s cannot be held in this tier", p)
	}
	entries, err := os.ReadDir(p)
	if errors.Is(err, unix.EACCES) {
		return nil // not for us, nor for the execution
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(p, e.Name())
		if _, cell := c.byPath[child]; cell || e.Type()&os.ModeSymlink != 0 {
			continue
		}
		if err := c.give(child, e.IsDir(), a); err != nil {
			return err
		}
	}
	return nil
}

// loses says whether a cell below p lacks reading or writing.
func (c *carver) loses(p string, a exeq.Access) (read, write bool) {
	from, _ := slices.BinarySearchFunc(c.cells, p, func(x carveCell, s string) int { return comparePaths(x.path, s) })
	for _, x := range c.cells[from:] {
		if !within(x.path, p) {
			break
		}
		if x.path == p || !x.exists {
			continue
		}
		read, write = read || a.Read && !x.want.Read, write || a.Write && !x.want.Write
	}
	return read, write
}

// capable are files that no process without capabilities can open.
var capable = []string{"/proc/kcore", "/proc/kmsg"}

// denied reports whether the file system itself keeps the path from the
// execution's user, who does not own it and so cannot change that.
func (c *carver) denied(x carveCell) bool {
	if slices.Contains(capable, x.path) {
		return true
	}
	f, err := (programs.Process{PID: unix.Getpid()}).Resolve(unix.AT_FDCWD, x.path, programs.NoFollow)
	if errors.Is(err, unix.EACCES) && !c.who.change {
		return true
	}
	if err != nil {
		return false
	}
	defer f.Close()
	if int(f.UID) == c.who.uid {
		return false
	}
	link := fmt.Sprintf("/proc/self/fd/%d", f.FD())
	if n, err := unix.Getxattr(link, "system.posix_acl_access", nil); err == nil && n > 0 {
		return false
	}
	if x.dir {
		return !c.who.may(f, unix.X_OK)
	}
	return !c.who.may(f, unix.R_OK) && !c.who.may(f, unix.W_OK)
}

// list grants listing carved directories.
func (g *grant) list(ruleset int) error {
	for _, p := range g.listed {
		fd, err := openPath(p)
		if err != nil {
			return err
		}
		err = landlock.AddPath(ruleset, fd, unix.LANDLOCK_ACCESS_FS_READ_DIR)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// readsSupervised: files that come into being in a carved directory can be
// read through the supervisor only.
func (s *launching) readsSupervised(g *grant) bool {
	return slices.ContainsFunc(g.listed, func(p string) bool {
		return s.launch.Rights.Lookup(exeq.EncodeBytes(path.Join(p, "\x00"))).Write
	})
}
