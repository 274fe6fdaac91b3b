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
)

// region is what a mount gives to everything below it.
type region struct {
	read, write, exec bool
	masked            bool // an empty directory or file covers it
}

// mountOp is one mount that rights ask for. Every mount is one of Exeq's own:
// rename and unlink of its root answer EBUSY.
type mountOp struct {
	path string
	dir  bool
	region
	labelled bool // what covers it shows names and no bytes
	// skeleton are the names below a mask on which deeper mounts stand.
	skeleton []skeletonEntry
}

type skeletonEntry struct {
	rel string
	dir bool
}

// plan is the mount table of an execution as data. The root is read-only and
// noexec unless rights say otherwise; what may be written or executed without
// being asked is bound open again.
type plan struct {
	root region
	ops  []mountOp // parents first
	// devices are further nodes of /dev that rights name.
	devices []string
	// unprotected are paths whose protection needs them to exist.
	unprotected []string
	// unshadowed says which labelled directories show less than they hold.
	unshadowed []string
}

// newPlan compares, cell by cell, what holds with what the rights want, looking
// at the file system as it is now. Pins are directories that must not be
// renamed: Landlock's report names them. Nor must what leads to a hidden path:
// the mount that hides it would move along, and its name be free for another.
func newPlan(r *exeq.Rights, pins, hidden []string) (*plan, error) {
	type cell struct {
		path      string
		at, under exeq.Access
	}
	cells := make([]cell, 0, len(r.Cells))
	for _, c := range r.Cells {
		raw, err := exeq.DecodeBytes(c.Path)
		if err != nil {
			return nil, err
		}
		cells = append(cells, cell{raw, c.At, c.Under})
	}
	slices.SortFunc(cells, func(a, b cell) int { return comparePaths(a.path, b.path) })
	p := &plan{root: regionOf(cells[0].under)}
	above := []mountOp{{path: "/", dir: true, region: p.root}}
	readable := []bool{p.root.read}
	var links []mountOp
	for _, c := range cells[1:] {
		for !within(c.path, above[len(above)-1].path) {
			above, readable = above[:len(above)-1], readable[:len(readable)-1]
		}
		up, upReadable := above[len(above)-1], readable[len(readable)-1]
		if replaced(c.path) {
			if strings.HasPrefix(c.path, "/dev/") && (c.at.Read || c.at.Write) {
				p.devices = append(p.devices, c.path)
			}
			continue
		}
		dir, err := kindOf(c.path)
		switch {
		case errors.Is(err, unix.ELOOP) && up.write && !c.at.Write && isLink(c.path):
			// The link itself is a mount, so that nothing takes its place; what
			// it leads to has a cell of its own.
			links = append(links, mountOp{path: c.path, region: region{read: true}})
			continue
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			if up.write && !(c.at.Write && c.under.Write) {
				p.unprotected = append(p.unprotected, c.path)
			}
			continue
		case errors.Is(err, unix.EACCES):
			continue // what we cannot reach, the execution cannot either
		case err != nil:
			return nil, fmt.Errorf("rights at %s: %w", c.path, err)
		}
		a := c.at
		if dir {
			a = c.under
		}
		want := regionOf(a)
		want.masked = !want.read && upReadable
		op := mountOp{path: c.path, dir: dir, region: want, labelled: a.Read && len(a.Labels) > 0}
		if want.masked != up.masked || !want.masked && (want.write != up.write || want.exec != up.exec) {
			p.ops = append(p.ops, op)
		}
		above, readable = append(above, op), append(readable, upReadable || want.read)
	}
	p.ops = append(p.ops, links...)
	for _, pin := range slices.Concat(pins, p.leadingTo(hidden)) {
		if !slices.ContainsFunc(p.ops, func(o mountOp) bool { return o.path == pin }) {
			if dir, err := kindOf(pin); err == nil {
				p.ops = append(p.ops, mountOp{path: pin, dir: dir, region: p.at(pin)})
			}
		}
	}
	slices.SortStableFunc(p.ops, func(a, b mountOp) int { return comparePaths(a.path, b.path) })
	p.skeletons()
	return p, nil
}

func regionOf(a exeq.Access) region {
	return region{read: a.Read && len(a.Labels) == 0, write: a.Write, exec: a.Exec == exeq.ExecAll}
}

// leadingTo gives the directories above the paths that could be renamed.
func (p *plan) leadingTo(paths []string) (out []string) {
	for _, h := range paths {
		for q := path.Dir(h); q != "/"; q = path.Dir(q) {
			if r := p.at(path.Dir(q)); r.write && !r.masked && !replaced(q) {
				out = append(out, q)
			}
		}
	}
	return out
}

// at gives the region in force at a path, whatever the order of the mounts.
func (p *plan) at(name string) region {
	r, deepest := p.root, 0
	for _, o := range p.ops {
		if len(o.path) > deepest && within(name, o.path) {
			r, deepest = o.region, len(o.path)
		}
	}
	return r
}

// skeletons gives each mask the names on which deeper mounts stand.
func (p *plan) skeletons() {
	for i := range p.ops {
		if !p.ops[i].masked {
			continue
		}
		for _, o := range p.ops[i+1:] {
			if within(o.path, p.ops[i].path) {
				p.ops[i].skeleton = append(p.ops[i].skeleton, skeletonEntry{o.path[len(p.ops[i].path)+1:], o.dir})
			}
		}
	}
}

// kindOf tells whether a path without symbolic links is a directory.
func kindOf(name string) (dir bool, err error) {
	fd, err := openPath(name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return false, unix.ELOOP
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// isLink tells whether a path is a symbolic link that no other leads to.
func isLink(name string) bool {
	fd, err := openPath(name)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func openPath(name string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS})
}

// ownFileSystems are covered by file systems of the execution's own.
var ownFileSystems = []string{"/proc", "/dev"}

func replaced(p string) bool {
	return slices.ContainsFunc(ownFileSystems, func(d string) bool { return within(p, d) })
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// comparePaths orders paths component by component, parents first.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// makeSkeletons creates, below the directory that own gives, one covering
// directory or file for each mask that needs one of its own, mode 0 but for what
// leads to deeper mounts, and returns their paths.
func (p *plan) makeSkeletons(own func() (string, error)) (map[string]string, error) {
	out := map[string]string{}
	for i, o := range p.ops {
		if !o.masked || len(o.skeleton) == 0 && !o.labelled {
			continue
		}
		dir, err := own()
		if err != nil {
			return nil, err
		}
		top := path.Join(dir, fmt.Sprint("mask-", i))
		if !o.dir {
			if err := shadowFile(o.path, top); err != nil {
				return nil, err
			}
			out[o.path] = top
			continue
		}
		if err := os.Mkdir(top, 0o711); err != nil {
			return nil, err
		}
		if o.labelled {
			if err := shadow(o.path, top); err != nil {
				p.unshadowed = append(p.unshadowed, err.Error())
			}
			if err := os.Chmod(top, 0o755); err != nil {
				return nil, err
			}
		}
		for _, s := range o.skeleton {
			at := path.Join(top, s.rel)
			parent := at
			if !s.dir {
				parent = path.Dir(at)
			}
			if err := os.MkdirAll(parent, 0o711); err != nil {
				return nil, err
			}
			if !s.dir {
				if err := os.WriteFile(at, nil, 0); err != nil {
					return nil, err
				}
			}
		}
		out[o.path] = top
	}
	return out, nil
}
