//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Cgroup is the kernel's number of a cgroup, which it never gives again.
type Cgroup uint64

// CgroupOf gives the number of a directory in the cgroup v2 hierarchy.
func CgroupOf(path string) (Cgroup, error) {
	f, err := openCgroup(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h, _, err := unix.NameToHandleAt(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if h.Size() != 8 {
		return 0, fmt.Errorf("%s: a handle of %d bytes", path, h.Size())
	}
	return Cgroup(binary.NativeEndian.Uint64(h.Bytes())), nil
}

// State is what is in force for one governed cgroup.
type State struct {
	Cgroup  Cgroup
	Revoked bool
	Observe bool // allowed executions are events too
}

const flagObserve = 1

// Govern makes the cgroup at path governed: from now on, nothing executes and
// nothing is reached in it or below it but what is set for it, which at first
// is nothing. Do it while the cgroup is empty: what is in it already is governed
// by where it is, and dies for leaving only once it has executed or forked. A
// cgroup that is governed already stays as it is (ErrRevoked if it was
// revoked). At most four governed cgroups lie within one another, none deeper
// than 23 levels: what lies deeper does not pass its SelfTest.
func (g *Gate) Govern(path string, observe bool) (Cgroup, error) {
	id, err := CgroupOf(path)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", exeq.ErrEnforce, err)
	}
	s := gateScope{}
	if observe {
		s.Flags = flagObserve
	}
	err = g.maps[gateMapGoverned].Update(uint64(id), s, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		var have gateScope
		if err := g.maps[gateMapGoverned].Lookup(uint64(id), &have); err != nil {
			return 0, fmt.Errorf("%w: %w", exeq.ErrEnforce, err)
		}
		if have.Revoked != 0 {
			return 0, fmt.Errorf("%w: %s: %w", exeq.ErrEnforce, path, ErrRevoked)
		}
		return id, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%w: govern %s: %w", exeq.ErrEnforce, path, err)
	}
	return id, nil
}

// Governed lists what is governed.
func (g *Gate) Governed() ([]State, error) {
	var (
		all []State
		id  uint64
		s   gateScope
	)
	it := g.maps[gateMapGoverned].Iterate()
	for it.Next(&id, &s) {
		all = append(all, State{Cgroup(id), s.Revoked != 0, s.Flags&flagObserve != 0})
	}
	return all, it.Err()
}

// Revoke refuses everything in the cgroup from now on: each execution dies and
// each socket call fails. It does not end what already runs (see End) and is
// never taken back. An unknown cgroup is ErrNotGoverned.
func (g *Gate) Revoke(c Cgroup) error {
	err := g.maps[gateMapGoverned].Update(uint64(c), gateScope{Revoked: 1}, ebpf.UpdateExist)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = ErrNotGoverned
	}
	if err != nil {
		return fmt.Errorf("%w: revoke cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

// Marked counts the processes that the cgroup governs wherever they are, once
// they have executed or forked in it.
func (g *Gate) Marked(c Cgroup) (int, error) {
	var at ebpf.MapBatchCursor
	processes, marks := make([]uint64, 4096), make([]gateMark, 4096)
	for n := 0; ; {
		got, err := g.maps[gateMapMarks].BatchLookup(&at, processes, marks, nil)
		for _, m := range marks[:got] {
			if slices.Contains(m.Id[:], uint64(c)) {
				n++
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("%w: processes of cgroup %d: %w", exeq.ErrEnforce, c, err)
		}
	}
}

// Lift frees a cgroup and forgets what was set for it. Call it when the cgroup
// is empty, or removed, and nothing is Marked: whatever is still governed by it
// is free.
func (g *Gate) Lift(c Cgroup) error {
	err := g.maps[gateMapGoverned].Delete(uint64(c))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = ErrNotGoverned
	}
	// What was set goes last, and also where an earlier Lift died in between.
	err = errors.Join(err, g.setPrograms(c, nil), g.setFiles(c, nil, rightMap), g.setEndpoints(c, nil), g.setUnixNames(c, nil))
	if g.kernel {
		err = errors.Join(err, g.setPlaces(c, nil, nil, nil, nil))
	}
	if err != nil {
		return fmt.Errorf("%w: lift cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

// File is a file in one state, as the kernel tells it: a write, a truncation, a
// change of mode or a new link makes it another, and so does a new file of the
// same number. Files are compared with ==.
type File struct {
	Dev        uint32 // as the kernel numbers devices within itself
	Generation uint32
	Ino        uint64
	Size       uint64
	CtimeSec   int64
	CtimeNsec  uint32
}

// Settled: the file was last changed so long before now (on the wall clock)
// that a later change must show. Before that, a kernel without fine timestamps
// may give a second change the time of the first, and a file system that keeps
// whole seconds, or two of them, gives it for so long.
func (f File) Settled(now time.Time) bool {
	need := 20 * time.Millisecond
	if f.CtimeNsec == 0 {
		need += 2 * time.Second
	}
	return now.Sub(time.Unix(f.CtimeSec, int64(f.CtimeNsec))) > need
}

// Identify says what the kernel takes the open file for. To approve content:
// Identify, read and judge it through the same descriptor, Identify again, and
// go on only if the two are equal and Settled. A file that somebody has open or
// mapped for writing is refused (ErrWriters): through a mapping that is dirty
// already, content changes and times do not.
//
// So is one whose file system a user may have made (ErrTheirs): it is not asked
// for anything.
func (g *Gate) Identify(f *os.File) (File, error) {
	if err := g.Ours(int(f.Fd())); err != nil {
		return File{}, fmt.Errorf("identify %s: %w", f.Name(), err)
	}
	// Asking for the times makes the kernel give the next change its own.
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return File{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return File{}, fmt.Errorf("%s: not a regular file", f.Name())
	}
	out, err := g.kernelSays(int(f.Fd()))
	if err != nil {
		return File{}, fmt.Errorf("identify %s: %w", f.Name(), err)
	}
	if out.Writers > 0 {
		return File{}, fmt.Errorf("identify %s: %w", f.Name(), ErrWriters)
	}
	return File{out.Dev, out.Generation, out.Ino, out.Size, out.CtimeSec, out.CtimeNsec}, nil
}

// Ours says whether a descriptor may be asked for anything, read, polled or
// closed (ErrTheirs). With FUSE a user's program answers, or lets the caller wait
// for ever, and an overlay that a user mounted may lie on one. The descriptor is
// not used for it: the kernel's programs look at the inode.
func (g *Gate) Ours(fd int) error {
	out, err := g.kernelSays(fd)
	if err == nil && (out.Magic == unix.FUSE_SUPER_MAGIC || out.Magic == unix.OVERLAYFS_SUPER_MAGIC && out.Level > 0) {
		err = ErrTheirs
	}
	return err
}

// kernelSays is what identify finds about a descriptor of this process.
func (g *Gate) kernelSays(fd int) (out gateIdentity, err error) {
	in := gateIdentity{Fd: int32(fd)}
	ret, err := g.identify.Run(&ebpf.RunOptions{Context: &in, ContextOut: &out})
	if err == nil && ret != 0 {
		err = unix.Errno(ret)
	}
	return out, err
}

// SetPrograms sets what the cgroup may execute: of a script, its interpreter,
// and in the tier kernel also the script itself, and the dynamic loader and
// libraries by SetLibraries. What may be executed may be mapped executable. New
// ones are let in before old ones are shut out; on error, anything between
// the two may be in force.
func (g *Gate) SetPrograms(c Cgroup, files []File) error {
	if err := g.setPrograms(c, files); err != nil {
		return fmt.Errorf("%w: programs of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (g *Gate) setPrograms(c Cgroup, files []File) error {
	return g.setFiles(c, files, rightExec|rightMap)
}

// SetLibraries sets what the cgroup may map executable beside its programs:
// dynamic loaders, libraries and native modules. It is held in the tier kernel
// alone. Like SetPrograms, and after it: what is a program stays what it is.
func (g *Gate) SetLibraries(c Cgroup, files []File) error {
	if err := g.setFiles(c, files, rightMap); err != nil {
		return fmt.Errorf("%w: libraries of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (g *Gate) setFiles(c Cgroup, files []File, rights uint32) error {
	m := g.maps[gateMapPrograms]
	want := make(map[gateProgram]gateVersion, len(files))
	for _, f := range files {
		if rights == rightMap {
			var has gateVersion
			if err := m.Lookup(f.key(c), &has); err == nil && has.Rights != rights {
				continue // a program
			} else if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
		want[f.key(c)] = f.version(rights)
	}
	return set(m, want, func(p gateProgram, v gateVersion) bool { return p.Cgroup == uint64(c) && v.Rights == rights })
}

// Allow adds one program, or the new state of one.
func (g *Gate) Allow(c Cgroup, f File) error {
	if err := g.maps[gateMapPrograms].Put(f.key(c), f.version(rightExec|rightMap)); err != nil {
		return fmt.Errorf("%w: allow a program in cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

// AllowLibrary lets one file be mapped executable beside the programs, or the
// new state of one; a program in that state stays one.
func (g *Gate) AllowLibrary(c Cgroup, f File) error {
	var has gateVersion
	m, want := g.maps[gateMapPrograms], f.version(rightMap)
	err := m.Lookup(f.key(c), &has)
	if err == nil && has == f.version(rightExec|rightMap) {
		return nil
	}
	if err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
		err = m.Put(f.key(c), want)
	}
	if err != nil {
		return fmt.Errorf("%w: allow a library in cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

// Forbid takes one program or library back, in whatever state. What runs goes on.
func (g *Gate) Forbid(c Cgroup, f File) error {
	if err := g.maps[gateMapPrograms].Delete(f.key(c)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("%w: forbid a program in cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (f File) key(c Cgroup) gateProgram {
	return gateProgram{Cgroup: uint64(c), Ino: f.Ino, Dev: f.Dev}
}

func (f File) version(rights uint32) gateVersion {
	return gateVersion{CtimeSec: f.CtimeSec, CtimeNsec: f.CtimeNsec, Size: f.Size, Generation: f.Generation, Rights: rights}
}

// The rights of gate.c.
const (
	rightExec = 1
	rightMap  = 2
)

// Endpoint is one address that may be connected (and, for datagrams, sent) to,
// or bound.
type Endpoint struct {
	Addr     netip.AddrPort
	Bind     bool
	Datagram bool // UDP; otherwise TCP
}

// SetEndpoints sets what the cgroup may reach and bind; like SetPrograms.
// Addresses match exactly: port 0 and unspecified addresses stand for
// themselves.
func (g *Gate) SetEndpoints(c Cgroup, endpoints []Endpoint) error {
	if err := g.setEndpoints(c, endpoints); err != nil {
		return fmt.Errorf("%w: endpoints of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (g *Gate) setEndpoints(c Cgroup, endpoints []Endpoint) error {
	want := make(map[gateEndpoint]uint8, len(endpoints))
	for _, e := range endpoints {
		if !e.Addr.IsValid() || e.Addr.Addr().Zone() != "" {
			return fmt.Errorf("%s: not an address without a zone", e.Addr)
		}
		k := gateEndpoint{Cgroup: uint64(c), Addr: e.Addr.Addr().As16(), Verb: verbConnect, Type: unix.SOCK_STREAM}
		k.Port = htons(e.Addr.Port())
		if e.Bind {
			k.Verb = verbBind
		}
		if e.Datagram {
			k.Type = unix.SOCK_DGRAM
		}
		want[k] = 1
	}
	return set(g.maps[gateMapEndpoints], want, func(e gateEndpoint, _ uint8) bool { return e.Cgroup == uint64(c) })
}

func htons(p uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p))
}

// SetUnixNames sets the names of unix sockets that the cgroup may reach: a path
// exactly as it is spelled in the call, or an abstract name (with its leading
// NUL). A name is no inode: what it leads to is the mount namespace's matter.
// On kernels without the unix hooks (see Missing) nothing holds unix sockets.
func (g *Gate) SetUnixNames(c Cgroup, names []string) error {
	if err := g.setUnixNames(c, names); err != nil {
		return fmt.Errorf("%w: unix sockets of cgroup %d: %w", exeq.ErrEnforce, c, err)
	}
	return nil
}

func (g *Gate) setUnixNames(c Cgroup, names []string) error {
	want := make(map[gateUnixName]uint8, len(names))
	for _, n := range names {
		k := gateUnixName{Cgroup: uint64(c), Len: uint32(len(n))}
		if len(n) == 0 || len(n) > len(k.Name) {
			return fmt.Errorf("a unix socket's name has 1–%d bytes, not %d", len(k.Name), len(n))
		}
		copy(k.Name[:], n)
		want[k] = 1
	}
	return set(g.maps[gateMapUnixNames], want, func(n gateUnixName, _ uint8) bool { return n.Cgroup == uint64(c) })
}

// set makes the entries that are mine those that are wanted.
func set[K comparable, V any](m *ebpf.Map, want map[K]V, mine func(K, V) bool) error {
	rank := func(V) uint32 { return 0 }
	if err := put(m, want, rank); err != nil {
		return err
	}
	return drop(m, want, rank, mine)
}

// Dropped counts the events for which there was no room, and the orders: of
// these, whatever is governed may be meant.
func (g *Gate) Dropped() (events, orders uint64, err error) {
	m := g.maps[gateMapDropped]
	if err := errors.Join(m.Lookup(uint32(0), &events), m.Lookup(uint32(1), &orders)); err != nil {
		return math.MaxUint64, math.MaxUint64, err
	}
	return events, orders, nil
}
