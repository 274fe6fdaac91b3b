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
	"strconv"
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
	if !g.kernel {
		return fmt.Errorf("%w: places of cgroup %d: the gate is not of tier kernel", exeq.ErrEnforce, c)
	}
	if err := g.setPlaces(c, places); err != nil {
		return fmt.Errorf("%w: places of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (g *Gate) setPlaces(c Cgroup, all []Place) error {
	s := placeSet{g: g, c: c, inodes: map[lsmProgram]uint32{}, names: map[lsmPlaceName]uint32{}}
	if len(all) > 0 {
		// Who removes the pins removes the gate.
		own, err := filepath.EvalSymlinks(g.dir)
		if err != nil {
			return err
		}
		for _, p := range all {
			if p.Path == own || strings.HasPrefix(p.Path, own+"/") {
				return fmt.Errorf("%s: the gate itself", p.Path)
			}
		}
		all = append(all[:len(all):len(all)], Place{own, 0})
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
	inodes map[lsmProgram]uint32
	names  map[lsmPlaceName]uint32
}

func (s *placeSet) add(p Place) error {
	if !filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path {
		return errors.New("not an absolute, clean path")
	}
	if p.Access&^(Read|Write) != 0 {
		return fmt.Errorf("access %#x", p.Access)
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
	if len(name) > maxName {
		return fmt.Errorf("a name of %d bytes; %d at most", len(name), maxName)
	}
	for above := filepath.Clean(dir); ; above = filepath.Dir(above) {
		k, err := s.inode(above)
		if err != nil {
			return err
		}
		if above == filepath.Clean(dir) {
			s.inodes[k] |= uint32(names)
			n := lsmPlaceName{Dir: k, Len: uint32(len(name))}
			for i := range len(name) {
				n.Name[i] = name[i]
			}
			if has, ok := s.names[n]; ok {
				p.Access &= Access(has)
			}
			s.names[n] = uint32(p.Access)
		} else {
			s.inodes[k] |= 0
		}
		if above == "/" {
			return nil
		}
	}
}

// inode gives the key of what is at a path that leads through no link.
func (s *placeSet) inode(path string) (lsmProgram, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return lsmProgram{}, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
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
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	roots := map[lsmProgram]uint32{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[3] != "/" { // a part of one counts by where it really is
			continue
		}
		at := unescape(f[4])
		access, ok := longest(all, at)
		if !ok {
			continue
		}
		key, err := s.inode(at)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EACCES) {
			continue // covered by another mount, or nobody's
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if has, ok := roots[key]; ok {
			access &= Access(has)
		}
		roots[key] = uint32(access)
	}
	for key, access := range roots {
		if s.inodes[key]&uint32(decides) == 0 {
			s.inodes[key] |= access | uint32(decides)
		}
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

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if s[i] == '\\' {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
			}
		}
	}
	return s
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

// drop removes the entries that are mine and not wanted, those of the highest
// rank first.
func drop[K comparable, V any](m *ebpf.Map, want map[K]V, rank func(V) uint32, mine func(K, V) bool) error {
	old := map[K]V{}
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		if _, keep := want[k]; !keep && mine(k, v) {
			old[k] = v
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, k := range slices.SortedFunc(maps.Keys(old), func(a, b K) int { return cmp.Compare(rank(old[b]), rank(old[a])) }) {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
