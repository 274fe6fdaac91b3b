//go:build linux

package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Access is what may be done with a file, or with everything below a directory.
type Access uint32

const (
	Read  Access = 1 << iota // open for reading, list
	Write                    // open for writing, make, remove, rename, link, change mode and owner
	decides
	names
)

// Place is one cut point: what may be done with what is at the path, and below
// it down to the next one.
type Place struct {
	Path   string // absolute, clean and without symbolic links
	Access Access
}

const maxName = 63

// SetPlaces sets what the cgroup may open and change, in the tier kernel; at
// first that is nothing. The longest place on the way to a file decides, and
// what no place leads to is refused.
//
// Paths are looked up now, in the caller's mount namespace, and their inodes
// decide, whatever leads to them later; besides, the last name of each path
// decides in its directory, also for what is not there yet (the directory must
// be) or will be another file. From inside, neither a place nor a directory
// that leads to one can be renamed or removed. File systems that are mounted
// below a place count by where they are mounted now; of one that is mounted
// later, nothing may be opened. The gate's own pins are shut in any case.
//
// New places shut before they open, and old ones open no more before they stop
// to shut; on error, anything between the two may be in force.
func (g *Gate) SetPlaces(c Cgroup, places []Place) error {
	here, err := OpenView(os.Getpid())
	if err != nil {
		return fmt.Errorf("%w: places of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	defer here.Close()
	return g.SetPlacesIn(c, here, places, nil, nil)
}

// SetPlacesIn is SetPlaces with the paths looked up in another mount namespace,
// which nobody governed makes. Where an execution has file systems of its own
// besides, own is its view, and fresh are the places that lie there: they count
// only on file systems of the kinds that executions are given (proc, devpts,
// tmpfs) and that are mounted nowhere in the first view, so that whoever made
// the second can open nothing of the machine's by it.
func (g *Gate) SetPlacesIn(c Cgroup, v *View, places []Place, own *View, fresh []Place) error {
	err := errors.New("the gate is not of tier kernel")
	if g.kernel {
		err = g.setPlaces(c, v, places, own, fresh)
	}
	if err != nil {
		return fmt.Errorf("%w: places of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (g *Gate) setPlaces(c Cgroup, v *View, all []Place, own *View, fresh []Place) error {
	s := placeSet{g: g, c: c, inodes: map[lsmProgram]uint32{}, names: map[lsmPlaceName]uint32{}, known: map[string]lsmProgram{}, view: v}
	if len(all) > 0 {
		// Who removes the pins removes the gate.
		pins, err := filepath.EvalSymlinks(g.dir)
		if err != nil {
			return err
		}
		shut := []string{pins, ScopesDir(pins)} // also where there are none yet
		for _, p := range all {
			for _, at := range shut {
				if p.Path == at || strings.HasPrefix(p.Path, at+"/") {
					return fmt.Errorf("%s: the gate itself", p.Path)
				}
			}
		}
		all = all[:len(all):len(all)]
		for _, at := range shut {
			all = append(all, Place{at, 0})
		}
	}
	for _, p := range all {
		if err := s.add(p); err != nil {
			return fmt.Errorf("%s: %w", p.Path, err)
		}
	}
	if len(all) > 0 {
		if err := s.mounts(all); err != nil {
			return err
		}
	}
	if own != nil {
		if err := s.fresh(own, fresh); err != nil {
			return err
		}
	}
	rank := func(v uint32) uint32 { return v & uint32(Read|Write) }
	// Names first: an inode's entry says that there are some.
	if err := put(g.maps[lsmMapNames], s.names, rank); err != nil {
		return err
	}
	if err := put(g.maps[lsmMapPlaces], s.inodes, rank); err != nil {
		return err
	}
	if err := drop(g.maps[lsmMapPlaces], s.inodes, rank, func(k lsmProgram, _ uint32) bool { return k.Cgroup == uint64(c) }); err != nil {
		return err
	}
	return drop(g.maps[lsmMapNames], s.names, rank, func(k lsmPlaceName, _ uint32) bool { return k.Dir.Cgroup == uint64(c) })
}

// placeSet gathers the entries of one cgroup.
type placeSet struct {
	g      *Gate
	c      Cgroup
	view   *View
	inodes map[lsmProgram]uint32
	names  map[lsmPlaceName]uint32
	known  map[string]lsmProgram // by path in the view
}

func (p Place) check() error {
	switch name := filepath.Base(p.Path); {
	case !filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path:
		return errors.New("not an absolute, clean path")
	case p.Access&^(Read|Write) != 0:
		return fmt.Errorf("access %#x", p.Access)
	case len(name) > maxName:
		return fmt.Errorf("a name of %d bytes; %d at most", len(name), maxName)
	}
	return nil
}

func (s *placeSet) add(p Place) error {
	if err := p.check(); err != nil {
		return err
	}
	key, err := s.inode(p.Path)
	switch {
	case err == nil:
		// Two names of one inode: what both allow.
		if has, ok := s.inodes[key]; ok && has&uint32(decides) != 0 {
			p.Access &= Access(has)
			has &^= uint32(Read | Write)
			s.inodes[key] = has
		}
		s.inodes[key] |= uint32(p.Access | decides)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if p.Path == "/" {
		return err
	}
	dir, name := filepath.Split(p.Path)
	for above := filepath.Clean(dir); ; above = filepath.Dir(above) {
		k, err := s.inode(above)
		if err != nil {
			return err
		}
		if above == filepath.Clean(dir) {
			s.name(k, name, p.Access)
		} else {
			s.inodes[k] |= 0
		}
		if above == "/" {
			return nil
		}
	}
}

// name has the name decide in its directory. Of two, what both allow.
func (s *placeSet) name(dir lsmProgram, name string, access Access) {
	s.inodes[dir] |= uint32(names)
	n := lsmPlaceName{Dir: dir, Len: uint32(len(name))}
	for i := range len(name) {
		n.Name[i] = name[i]
	}
	if has, ok := s.names[n]; ok {
		access &= Access(has)
	}
	s.names[n] = uint32(access)
}

// inode gives the key of what is at a path of the view.
func (s *placeSet) inode(path string) (lsmProgram, error) {
	if k, ok := s.known[path]; ok {
		return k, nil
	}
	f, err := s.view.open(path)
	if err != nil {
		return lsmProgram{}, err
	}
	defer f.Close()
	k, err := s.key(f)
	if err == nil {
		s.known[path] = k
	}
	return k, err
}

// key is what the kernel takes the open file for.
func (s *placeSet) key(f *os.File) (lsmProgram, error) {
	in := gateIdentity{Fd: int32(f.Fd())}
	var out gateIdentity
	if ret, err := s.g.identify.Run(&ebpf.RunOptions{Context: &in, ContextOut: &out}); err != nil || ret != 0 {
		return lsmProgram{}, cmp.Or(err, error(unix.Errno(ret)))
	}
	return lsmProgram{Cgroup: uint64(s.c), Ino: out.Ino, Dev: out.Dev}, nil
}

// mounts gives the roots of what is mounted below a place the access of the
// place. Of a file system that is mounted twice, what both allow.
func (s *placeSet) mounts(all []Place) error {
	roots := map[lsmProgram]uint32{}
	for _, m := range s.view.mounts {
		if m.root != "/" { // a part of one counts by where it really is
			continue
		}
		access, ok := longest(all, m.point)
		if !ok {
			continue
		}
		key, err := s.inode(m.point)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EACCES) {
			continue // covered by another mount, or nobody's
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.point, err)
		}
		if has, ok := roots[key]; ok {
			access &= Access(has)
		}
		roots[key] = uint32(access)
	}
	s.decide(roots)
	return nil
}

// decide has roots decide where nothing else does.
func (s *placeSet) decide(roots map[lsmProgram]uint32) {
	for key, access := range roots {
		if s.inodes[key]&uint32(decides) == 0 {
			s.inodes[key] |= access | uint32(decides)
		}
	}
}

// fresh adds the places of file systems that only the second view has.
func (s *placeSet) fresh(own *View, all []Place) error {
	elsewhere := map[uint32]bool{}
	for _, m := range s.view.mounts {
		elsewhere[m.dev] = true
	}
	find := func(path string) (key lsmProgram, ok bool, err error) {
		f, err := own.open(path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
				err = nil // nothing is opened there
			}
			return key, false, err
		}
		defer f.Close()
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return key, false, err
		}
		switch st.Type {
		case unix.PROC_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		default:
			return key, false, nil
		}
		key, err = s.key(f)
		return key, err == nil && !elsewhere[key.Dev], err
	}
	for _, p := range all {
		if err := p.check(); err != nil {
			return fmt.Errorf("%s: %w", p.Path, err)
		}
		key, ok, err := find(p.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Path, err)
		}
		if ok {
			s.inodes[key] |= uint32(p.Access | decides)
		}
		dir, name := filepath.Split(p.Path)
		if key, ok, err = find(filepath.Clean(dir)); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if ok {
			s.name(key, name, p.Access)
		}
	}
	roots := map[lsmProgram]uint32{}
	for _, m := range own.mounts {
		access, ok := longest(all, m.point)
		if !ok || m.root != "/" || elsewhere[m.dev] {
			continue
		}
		key, ok, err := find(m.point)
		if err != nil {
			return fmt.Errorf("%s: %w", m.point, err)
		}
		if has, again := roots[key]; again {
			access &= Access(has)
		}
		if ok {
			roots[key] = uint32(access)
		}
	}
	s.decide(roots)
	return nil
}

// AllowRead opens one file to reading, wherever it lies, beside what SetPlaces
// set: the copy of a program that is mounted over its place. What is a place
// stays what it is.
func (g *Gate) AllowRead(c Cgroup, f File) error {
	err := g.maps[lsmMapPlaces].Update(lsmProgram{Cgroup: uint64(c), Ino: f.Ino, Dev: f.Dev}, uint32(Read|decides), ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("%w: allow a file to be read in cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

// longest finds the place that a path lies below.
func longest(all []Place, path string) (access Access, ok bool) {
	length := -1
	for _, p := range all {
		below := p.Path == "/" || path == p.Path || strings.HasPrefix(path, p.Path+"/")
		if below && len(p.Path) > length {
			access, ok, length = p.Access, true, len(p.Path)
		}
	}
	return access, ok
}

// put puts entries, those of the lowest rank first.
func put[K comparable, V any](m *ebpf.Map, want map[K]V, rank func(V) uint32) error {
	keys := slices.SortedFunc(maps.Keys(want), func(a, b K) int { return cmp.Compare(rank(want[a]), rank(want[b])) })
	for _, k := range keys {
		if err := m.Put(k, want[k]); err != nil {
			return err
		}
	}
	return nil
}

// each shows every entry of a map, many with one system call where the kernel can.
// What others put or delete meanwhile may be missing.
func each[K comparable, V any](m *ebpf.Map, show func(K, V)) error {
	keys, values := make([]K, 1024), make([]V, 1024)
	var at ebpf.MapBatchCursor
	for first := true; ; first = false {
		n, err := m.BatchLookup(&at, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			if first {
				break // one by one
			}
			return err
		}
		for i := range n {
			show(keys[i], values[i])
		}
		if err != nil { // that was all
			return nil
		}
	}
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		show(k, v)
	}
	return it.Err()
}

// drop removes the entries that are mine and not wanted, those of the highest
// rank first.
func drop[K comparable, V any](m *ebpf.Map, want map[K]V, rank func(V) uint32, mine func(K, V) bool) error {
	old := map[K]V{}
	if err := each(m, func(k K, v V) {
		if _, keep := want[k]; !keep && mine(k, v) {
			old[k] = v
		}
	}); err != nil {
		return err
	}
	for _, k := range slices.SortedFunc(maps.Keys(old), func(a, b K) int { return cmp.Compare(rank(old[b]), rank(old[a])) }) {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
