//go:build linux

package bpf

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Gate is the loaded gate. Its methods may be called concurrently; each change
// is one system call on a map and is in force when the method returns. Only one
// process at a time may change one gate: see to that before Load or Open.
type Gate struct {
	dir      string
	maps     map[string]*ebpf.Map
	identify *ebpf.Program
	links    map[string]link.Link
	programs map[string]*ebpf.Program // of the links
	missing  []string
	kernel   bool                   // with the LSM programs
	scopes   atomic.Pointer[Scopes] // beside it, if any are open
}

// pinnedMaps are the maps that are pinned.
var pinnedMaps = []string{gateMapGoverned, gateMapPrograms, gateMapEndpoints, gateMapUnixNames, gateMapMarks, gateMapEvents, gateMapOrders, gateMapDropped, gateMapBuild}

// Load loads the programs, attaches the cgroup hooks to top (a directory of the
// cgroup v2 hierarchy at or above whatever will be governed, best its root, so
// that no process can leave their reach) and pins all of it in dir, which must
// not exist yet in a bpf file system. Nothing is governed yet.
//
// Either all of it is pinned when Load returns, or nothing: dir appears in one
// rename. Errors wrap exeq.ErrEnforce, and are a *FeatureError where the kernel
// lacks something. What only newer kernels have is left out and named by
// Missing.
func Load(dir, top string) (*Gate, error) {
	g, err := load(filepath.Clean(dir), top, false)
	if err != nil {
		return nil, fmt.Errorf("%w: load the gate: %w", exeq.ErrEnforce, err)
	}
	return g, nil
}

func load(dir, top string, kernel bool) (g *Gate, err error) {
	if err := isBPFFS(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s: %w", dir, fs.ErrExist)
	}
	at, err := openCgroup(top)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	spec, err := gateSpec()
	if err != nil {
		return nil, err
	}
	g = &Gate{dir: dir, maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}, kernel: kernel}
	defer func() {
		if err != nil {
			g.Close()
			g = nil
		}
	}()
	c, err := g.collection(spec)
	if err != nil {
		return g, err
	}
	defer c.Close()
	for _, name := range pinnedMaps {
		g.maps[name] = c.DetachMap(name)
	}
	g.identify = c.DetachProgram(gateProgIdentify)
	if err := g.maps[gateMapBuild].Put(uint32(0), build(kernel)); err != nil {
		return g, err
	}
	for _, h := range hooks {
		p := c.Programs[h.name]
		if p == nil {
			continue
		}
		var l link.Link
		if p.Type() == ebpf.Tracing {
			l, err = link.AttachTracing(link.TracingOptions{Program: p})
		} else {
			l, err = link.AttachRawLink(link.RawLinkOptions{Target: int(at.Fd()), Program: p, Attach: spec.Programs[h.name].AttachType})
		}
		if err != nil {
			return g, &FeatureError{h.feature + " attached to " + top, h.needs, err}
		}
		g.links[h.name] = l
	}
	if kernel {
		if err := g.loadLSM(); err != nil {
			return g, err
		}
	}
	if err := g.attached(); err != nil {
		return g, err
	}
	return g, g.pin()
}

// attached takes hold of the programs that the links stand for.
func (g *Gate) attached() error {
	g.programs = map[string]*ebpf.Program{}
	for name, l := range g.links {
		info, err := l.Info()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBroken, name, err)
		}
		if g.programs[name], err = ebpf.NewProgramFromID(info.Program); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBroken, name, err)
		}
	}
	return nil
}

// gateSpec is the committed object without what only its type information needs.
func gateSpec() (*ebpf.CollectionSpec, error) {
	spec, err := loadGate()
	if err != nil {
		return nil, err
	}
	delete(spec.Variables, gateVarEventType)
	delete(spec.Maps, ".bss")
	return spec, nil
}

// collection loads what the kernel has: everything, or all but what is optional.
func (g *Gate) collection(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	if err := killsOthers(); err != nil {
		g.missing = append(g.missing, err.Error())
	}
	less := spec.Copy()
	for _, h := range hooks {
		if h.optional {
			if err := absent(spec, h); err != nil {
				g.lacks(h, err)
				delete(less.Programs, h.name)
			}
		}
	}
	c, all := ebpf.NewCollection(less)
	if all == nil {
		return c, nil
	}
	for _, h := range append([]hook{identifyHook}, hooks...) { // one by one, to say which it is
		if less.Programs[h.name] == nil {
			continue
		}
		if err := try(spec, h); err != nil {
			return nil, err
		}
	}
	return nil, all
}

// pin pins into a directory beside dir and renames it.
func (g *Gate) pin() error {
	fresh := g.dir + "-new"                     // no dots: bpffs refuses them
	if err := os.RemoveAll(fresh); err != nil { // of a Load that died: its hooks go with it
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	pin := func() error {
		for name, m := range g.maps {
			if err := m.Pin(filepath.Join(fresh, "map-"+name)); err != nil {
				return fmt.Errorf("pin %s: %w", name, err)
			}
		}
		if err := g.identify.Pin(filepath.Join(fresh, "prog-"+gateProgIdentify)); err != nil {
			return fmt.Errorf("pin %s: %w", gateProgIdentify, err)
		}
		for name, l := range g.links {
			if err := l.Pin(filepath.Join(fresh, "link-"+name)); err != nil {
				return fmt.Errorf("pin %s: %w", name, err)
			}
		}
		return os.Rename(fresh, g.dir)
	}
	if err := pin(); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return nil
}

// Open takes up the gate that is pinned in dir, with whatever it governs.
// ErrNotLoaded: there is none. ErrOtherBuild: another build made it; what it
// governs stays governed. ErrBroken: something is missing or detached, so that
// it must be taken for open: end what it governed.
func Open(dir string) (*Gate, error) {
	g := &Gate{dir: filepath.Clean(dir), maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}}
	if err := g.open(); err != nil {
		g.Close()
		return nil, fmt.Errorf("%w: open the gate in %s: %w", exeq.ErrEnforce, dir, err)
	}
	return g, nil
}

func (g *Gate) open() (err error) {
	if _, err := os.Lstat(g.dir); errors.Is(err, fs.ErrNotExist) {
		return ErrNotLoaded
	}
	if err := isBPFFS(g.dir); err != nil {
		return err
	}
	pinned := func(names []string) (err error) {
		for _, name := range names {
			if g.maps[name] != nil {
				continue
			}
			if g.maps[name], err = ebpf.LoadPinnedMap(filepath.Join(g.dir, "map-"+name), nil); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrBroken, name, err)
			}
		}
		return nil
	}
	if err := pinned([]string{gateMapBuild}); err != nil { // another build has other maps
		return err
	}
	var sum [sha256.Size]byte
	if err := g.maps[gateMapBuild].Lookup(uint32(0), &sum); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	switch sum {
	case build(false):
	case build(true):
		g.kernel = true
		if err := pinned(ownMaps); err != nil {
			return err
		}
	default:
		return ErrOtherBuild
	}
	if err := pinned(pinnedMaps); err != nil {
		return err
	}
	if g.identify, err = ebpf.LoadPinnedProgram(filepath.Join(g.dir, "prog-"+gateProgIdentify), nil); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if err := killsOthers(); err != nil {
		g.missing = append(g.missing, err.Error())
	}
	for _, h := range g.hooks() {
		l, err := link.LoadPinnedLink(filepath.Join(g.dir, "link-"+h.name), nil)
		if h.optional && errors.Is(err, fs.ErrNotExist) {
			// Absent at Load, or removed since: only the first is harmless.
			spec, serr := h.spec()
			if serr != nil {
				return serr
			}
			if missing := absent(spec, h); missing != nil {
				g.lacks(h, missing)
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBroken, h.name, err)
		}
		g.links[h.name] = l
	}
	if err := g.attached(); err != nil {
		return err
	}
	return g.Check()
}

// Check says whether every hook is still attached, and whether the kernel ran
// its program each time, as far as it counts that: it is evidence that the gate
// is in place, to be asked for each tick. It does not show that the gate bites.
func (g *Gate) Check() error {
	for name, l := range g.links {
		info, err := l.Info()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBroken, name, err)
		}
		if c := info.Cgroup(); c != nil && c.CgroupId == 0 {
			return fmt.Errorf("%w: %s is detached: its cgroup is gone", ErrBroken, name)
		}
		if _, err := os.Lstat(filepath.Join(g.dir, "link-"+name)); err != nil {
			return fmt.Errorf("%w: the pin of %s: %w", ErrBroken, name, err)
		}
		s, err := g.programs[name].Stats()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBroken, name, err)
		}
		if err := skipped(name, s.RecursionMisses); err != nil {
			return err
		}
	}
	return nil
}

// skipped: each time that a program was not run, because it ran on that
// processor already, something passed undecided.
func skipped(name string, times uint64) error {
	if times > 0 {
		return fmt.Errorf("%w: the kernel passed %s over %d times", ErrBroken, name, times)
	}
	return nil
}

// Missing names what this kernel does not have, with what has it. The rest holds
// without it; docs/kernel-tiers.md says what each lack leaves open.
func (g *Gate) Missing() []string { return g.missing }

// Close lets go of the gate, which goes on holding: only Remove lifts it.
func (g *Gate) Close() error {
	var errs []error
	for _, l := range g.links {
		errs = append(errs, l.Close())
	}
	for _, p := range g.programs {
		errs = append(errs, p.Close())
	}
	for _, m := range g.maps {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	if g.identify != nil {
		errs = append(errs, g.identify.Close())
	}
	return errors.Join(errs...)
}

// Remove unpins and detaches everything and closes g: what was governed is
// free. Refused as long as any cgroup is governed.
func (g *Gate) Remove() error {
	left, err := g.Governed()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%w: %d cgroups are still governed", exeq.ErrEnforce, len(left))
	}
	return errors.Join(os.RemoveAll(g.dir), g.Close())
}

// openCgroup opens a directory of the cgroup v2 hierarchy.
func openCgroup(path string) (*os.File, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil || uint32(s.Type) != unix.CGROUP2_SUPER_MAGIC {
		f.Close()
		return nil, &FeatureError{path + " as a cgroup", "a directory of the cgroup v2 hierarchy", errors.Join(err, unix.EINVAL)}
	}
	return f, nil
}
