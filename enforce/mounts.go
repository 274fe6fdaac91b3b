//go:build linux

package enforce

import (
	"maps"
	"path"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/spawn"
)

// v and load make arguments of steps.
func v[T ~int | ~uint | ~uintptr | ~int32 | ~uint32 | ~uint64 | ~int64](x T) spawn.Arg {
	return spawn.V(x)
}

var (
	load  = spawn.Load
	atCWD = spawn.V(unix.AT_FDCWD)
)

// mounter assembles the steps that build the mount table.
type mounter struct {
	l     *spawn.List
	taken map[string]spawn.Ref // sources, opened before something covers them
}

// take opens, while they can be reached, the sources of masks and what is
// opened again below a mask.
func (m *mounter) take(p *plan, c cover) {
	m.taken = map[string]spawn.Ref{}
	for _, name := range append([]string{c.dir, c.file}, slices.Sorted(maps.Values(c.skeletons))...) {
		_, m.taken[name] = m.open(name)
	}
	for _, o := range p.ops {
		for _, s := range o.skeleton {
			name := path.Join(o.path, s.rel)
			if _, again := m.taken[name]; again {
				continue
			}
			op, fd := m.open(name)
			op.Flags = spawn.Absent
			m.l.Arena.PutInt(fd, -1)
			m.taken[name] = fd
		}
	}
}

func (m mounter) str(s string) spawn.Arg { return v(m.l.Arena.Str(s)) }

func (m mounter) attr(set, clr, propagation uint64) (spawn.Arg, spawn.Arg) {
	a := unix.MountAttr{Attr_set: set, Attr_clr: clr, Propagation: propagation}
	return v(m.l.Arena.Struct(unsafe.Pointer(&a), unsafe.Sizeof(a))), v(unsafe.Sizeof(a))
}

// open appends an O_PATH open of a path that holds no symbolic link.
func (m mounter) open(name string) (*spawn.Op, spawn.Ref) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS}
	op := m.l.Do("open "+name, unix.SYS_OPENAT2, atCWD, m.str(name),
		v(m.l.Arena.Struct(unsafe.Pointer(&how), unsafe.Sizeof(how))), v(unsafe.Sizeof(how)))
	return op, m.l.Result(op)
}

func (m mounter) close(fd spawn.Ref) { m.l.Do("close", unix.SYS_CLOSE, load(fd)) }

// setattr changes a detached tree, and where a flag of a mount of the host's is
// locked, its top alone.
func (m mounter) setattr(name string, fd spawn.Ref, set, clr uint64) {
	a, size := m.attr(set, clr, 0)
	op := m.l.Do("mount_setattr "+name, unix.SYS_MOUNT_SETATTR, load(fd), m.str(""), v(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE), a, size)
	op.Flags, op.OnOK = spawn.Ignore, 1
	m.l.Do("mount_setattr "+name, unix.SYS_MOUNT_SETATTR, load(fd), m.str(""), v(unix.AT_EMPTY_PATH), a, size)
}

// clone appends a detached copy of what an O_PATH descriptor stands for.
func (m mounter) clone(name string, fd spawn.Arg) spawn.Ref {
	return m.l.Result(m.l.Do("open_tree "+name, unix.SYS_OPEN_TREE, fd, m.str(""),
		v(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)))
}

func (m mounter) attach(name string, tree, target spawn.Ref) {
	m.l.Do("move_mount "+name, unix.SYS_MOVE_MOUNT, load(tree), m.str(""), load(target), m.str(""),
		v(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// over appends a mount of tree's clone over the path, with flags. A path that
// is not there, or not for this user, is left out.
func (m mounter) over(name, source string, set, clr uint64) {
	op, target := m.open(name)
	op.Flags = spawn.Absent
	start := m.l.Len()
	from, taken := m.taken[source]
	if !taken {
		from = target
	}
	tree := m.clone(source, load(from))
	m.setattr(name, tree, set, clr)
	m.attach(name, tree, target)
	m.close(tree)
	m.close(target)
	op.OnError = int32(m.l.Len() - start)
}

// flagsOf says which mount flags a region needs.
func flagsOf(r region) (set, clr uint64) {
	set = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	put := func(on bool, flag uint64) {
		if on {
			clr |= flag
		} else {
			set |= flag
		}
	}
	put(r.write, unix.MOUNT_ATTR_RDONLY)
	put(r.exec, unix.MOUNT_ATTR_NOEXEC)
	return set, clr
}

// cover are the sources of masks: an empty directory and an empty file.
type cover struct {
	dir, file string
	skeletons map[string]string // by masked path
}

func coverOf(dir string) cover {
	return cover{dir: path.Join(dir, "dir"), file: path.Join(dir, "file")}
}

// covers mounts over dir, which is hidden later, a file system of the
// execution's own with what covers masked paths, which nobody may read, and the
// place to which the mounts of removed programs go.
func (m mounter) covers(dir string) {
	m.mount("tmpfs", dir, unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "mode=0700,size=64k")
	mkdir := func(name string, mode int) {
		m.l.Do("mkdir "+name, unix.SYS_MKDIRAT, atCWD, m.str(name), v(mode))
	}
	create := func(name string) {
		m.close(m.l.Result(m.l.Do("create "+name, unix.SYS_OPENAT, atCWD, m.str(name), v(unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_RDONLY), v(0))))
	}
	c, grave := coverOf(dir), path.Join(dir, "grave")
	mkdir(c.dir, 0)
	create(c.file)
	mkdir(grave, 0o700)
	create(path.Join(grave, "slot"))
}

func (c cover) of(o mountOp) string {
	if s, ok := c.skeletons[o.path]; ok {
		return s
	}
	if o.dir {
		return c.dir
	}
	return c.file
}

const maskFlags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// base closes the whole tree, apart from what the root region leaves open.
func (m mounter) base(root region) {
	set, _ := flagsOf(root)
	a, size := m.attr(set, 0, unix.MS_PRIVATE)
	m.l.Do("mount_setattr /", unix.SYS_MOUNT_SETATTR, atCWD, m.str("/"), v(unix.AT_RECURSIVE), a, size)
}

// regions mounts what differs from the base.
func (m mounter) regions(p *plan, c cover) {
	for _, o := range p.ops {
		if o.masked {
			m.over(o.path, c.of(o), maskFlags, 0)
			continue
		}
		set, clr := flagsOf(o.region)
		m.over(o.path, o.path, set, clr)
	}
}

// readonly closes a tree that is a mount, if it is there.
func (m mounter) readonly(name string) {
	a, size := m.attr(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC, 0, 0)
	m.l.Do("mount_setattr "+name, unix.SYS_MOUNT_SETATTR, atCWD, m.str(name), v(unix.AT_RECURSIVE), a, size).Flags = spawn.Ignore
}

func (m mounter) mount(kind, target string, flags uint64, data string) {
	m.l.Do("mount "+target, unix.SYS_MOUNT, m.str(kind), m.str(target), m.str(kind), v(flags), m.str(data))
}

// basicDevices are in every /dev.
var basicDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// dev replaces /dev: its own terminals and shared memory, and of the host's
// devices the basic ones and what rights name. console, if any, is the path of
// the controlling terminal, which programs find as /dev/console.
func (m mounter) dev(extra []string, console string) {
	const noexec = unix.MS_NOSUID | unix.MS_NOEXEC
	type node struct {
		name string
		tree spawn.Ref
	}
	var nodes []node
	add := func(source, name string) {
		if dir, err := kindOf(source); err != nil || dir {
			return
		}
		_, fd := m.open(source)
		tree := m.clone(source, load(fd))
		a, size := m.attr(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, unix.MOUNT_ATTR_NODEV, 0)
		m.l.Do("mount_setattr "+name, unix.SYS_MOUNT_SETATTR, load(tree), m.str(""), v(unix.AT_EMPTY_PATH), a, size)
		nodes = append(nodes, node{name, tree})
		m.close(fd)
	}
	names := slices.Concat(basicDevices, extra)
	slices.Sort(names)
	for _, d := range slices.Compact(names) {
		if path.Dir(d) == "/dev" && d != "/dev/ptmx" { // ptmx is the new instance's own
			add(d, d)
		}
	}
	if console != "" {
		add(console, "/dev/console")
	}
	m.mount("tmpfs", "/dev", noexec, "mode=0755,size=64k")
	for _, n := range nodes {
		fd := m.l.Result(m.l.Do("create "+n.name, unix.SYS_OPENAT, atCWD, m.str(n.name), v(unix.O_CREAT|unix.O_CLOEXEC|unix.O_RDONLY), v(0o444)))
		m.close(fd)
		m.l.Do("move_mount "+n.name, unix.SYS_MOVE_MOUNT, load(n.tree), m.str(""), atCWD, m.str(n.name), v(unix.MOVE_MOUNT_F_EMPTY_PATH))
		m.close(n.tree)
	}
	for _, d := range []string{"/dev/pts", "/dev/shm"} {
		m.l.Do("mkdir "+d, unix.SYS_MKDIRAT, atCWD, m.str(d), v(0o755))
	}
	m.mount("devpts", "/dev/pts", noexec, "newinstance,ptmxmode=0666,mode=0620")
	m.mount("tmpfs", "/dev/shm", noexec|unix.MS_NODEV, "mode=1777")
	for _, s := range [][2]string{{"pts/ptmx", "ptmx"}, {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		m.l.Do("symlink "+s[1], unix.SYS_SYMLINKAT, m.str(s[0]), atCWD, m.str("/dev/"+s[1]))
	}
	a, size := m.attr(unix.MOUNT_ATTR_RDONLY, 0, 0)
	m.l.Do("mount_setattr /dev", unix.SYS_MOUNT_SETATTR, atCWD, m.str("/dev"), v(0), a, size)
}

// proc is assembled into init's list: the instance belongs to its namespace.
func (m mounter) proc() {
	m.mount("proc", "/proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	a, size := m.attr(unix.MOUNT_ATTR_RDONLY, 0, 0)
	m.l.Do("mount_setattr /proc", unix.SYS_MOUNT_SETATTR, atCWD, m.str("/proc"), v(0), a, size)
}
