//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// ScopeKind says what a mandatory scope is declared over.
type ScopeKind uint32

// The kinds of scope.c.
const (
	ScopeHost   ScopeKind = 1 + iota
	ScopeUID              // any of a process's users, and what descends from it
	ScopeCgroup           // the cgroup, what is below it, and what descends from it
)

// Scope is what a mandatory scope is declared over: a uid, a Cgroup, or (0) the
// host. The zero Scope is no scope but the node's own: what lives by it lives in
// every scope.
type Scope struct {
	Kind   ScopeKind
	Number uint64
}

// Rule is how a scope is held.
type Rule struct {
	Serial  uint64 // of the statement that said so
	Enforce bool   // otherwise it is rehearsed: reported, and nothing else
	// OpenUntil on CLOCK_BOOTTIME: until then everything executes, and is
	// reported. The kernel compares, whoever lives.
	OpenUntil time.Duration
}

const (
	ruleRehearse = 1
	ruleEnforce  = 2
)

// Tree is a directory below which a scope lives by everything that, with each
// directory on the way, belongs to root and nobody else can write.
type Tree struct {
	Dev uint32
	Ino uint64
}

// Scopes are the mandatory scopes: programs beside a gate, which judge whatever
// the gate does not. They are pinned and hold on when nobody has them open. One
// process at a time may change them.
type Scopes struct {
	dir   string
	gate  *Gate
	maps  map[string]*ebpf.Map
	links map[string]link.Link
	hooks map[string]*ebpf.Program // what links attach
	sweep *ebpf.Program
	where *ebpf.Program
	at    string // where the links are pinned
	// passed counts what the kernel did not run the programs of before for.
	passed uint64
}

var scopePins = []string{scopeMapRules, scopeMapLives, scopeMapTrees, scopeMapDescents, scopeMapAttempts, scopeMapMissed}

const scopeNeeds = "root, Linux 5.11 with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_EVENTS"

var scopeHooks = []hook{
	{scopeProgBegun, "tracepoint sched_process_exec with types", scopeNeeds, false},
	{scopeProgBorn, "tracepoint sched_process_fork with types", scopeNeeds, false},
	{scopeProgMoved, "tracepoint cgroup_attach_task with types", scopeNeeds, false},
	{scopeProgDone, "tracepoint sched_process_exit with types", scopeNeeds, false},
}

// OpenScopes takes up the scopes that are pinned in dir, or pins scopes that
// hold nothing yet. What is under a permit by g passes. The programs are always
// this build's, and those of before go when these are in place, so that nothing
// opens meanwhile; the maps stay. Pins that are not whole, or of another layout,
// are ErrBroken and hold on.
func OpenScopes(dir string, g *Gate) (*Scopes, error) {
	s := &Scopes{dir: filepath.Clean(dir), gate: g, maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}, hooks: map[string]*ebpf.Program{}}
	if err := s.open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("%w: scopes in %s: %w", exeq.ErrEnforce, dir, err)
	}
	g.scopes.Store(s)
	return s, nil
}

// ScopesDir is where the scopes beside a gate are pinned. What is governed in the
// tier kernel has no way there.
func ScopesDir(gate string) string { return gate + "-scopes" }

// ScopesPinned says whether scopes are pinned in dir.
func ScopesPinned(dir string) bool {
	_, err := os.Lstat(dir)
	return err == nil
}

func (s *Scopes) open() error {
	if err := isBPFFS(filepath.Dir(s.dir)); err != nil {
		return err
	}
	have := ScopesPinned(s.dir)
	if have {
		for _, name := range scopePins {
			m, err := ebpf.LoadPinnedMap(filepath.Join(s.dir, "map-"+name), nil)
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrBroken, name, err)
			}
			s.maps[name] = m
		}
	}
	if err := s.load(); err != nil {
		return err
	}
	if have {
		return s.follow()
	}
	return s.pin()
}

// load attaches this build's programs to the gate's maps and, where they are
// there already, the scopes'.
func (s *Scopes) load() error {
	spec, err := loadScope()
	if err != nil {
		return err
	}
	delete(spec.Variables, scopeVarAttemptType)
	delete(spec.Variables, scopeVarPlaceType)
	delete(spec.Maps, ".bss")
	use := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m := s.gate.maps[name]; m != nil {
			use[name] = m
		} else if m := s.maps[name]; m != nil {
			use[name] = m
		}
	}
	c, all := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: use})
	if errors.Is(all, ebpf.ErrMapIncompatible) {
		return fmt.Errorf("%w: they are of another layout: %w", ErrBroken, all)
	}
	if all != nil {
		for _, h := range scopeHooks {
			if err := absent(spec, h); err != nil {
				return err
			}
		}
		return all
	}
	defer c.Close()
	for _, name := range scopePins {
		if s.maps[name] == nil {
			s.maps[name] = c.DetachMap(name)
		}
	}
	for _, h := range scopeHooks {
		l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[h.name]})
		if err != nil {
			return &FeatureError{h.feature + " attached", h.needs, err}
		}
		s.links[h.name], s.hooks[h.name] = l, c.DetachProgram(h.name)
	}
	s.sweep, s.where = c.DetachProgram(scopeProgSweep), c.DetachProgram(scopeProgWhere)
	return nil
}

// pin makes dir appear whole.
func (s *Scopes) pin() error {
	fresh := s.dir + "-new"
	if err := os.RemoveAll(fresh); err != nil { // of one that died
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	err := errors.Join(s.pinLinks(filepath.Join(fresh, "links-1")), s.pinMaps(fresh))
	if err == nil {
		err = os.Rename(fresh, s.dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	s.at = filepath.Join(s.dir, "links-1")
	return nil
}

// pinMaps pins the maps that are not pinned in dir.
func (s *Scopes) pinMaps(dir string) error {
	for name, m := range s.maps {
		at := filepath.Join(dir, "map-"+name)
		if _, err := os.Lstat(at); err == nil {
			continue
		}
		c, err := m.Clone() // which knows of no pin that may be gone
		if err == nil {
			err = errors.Join(c.Pin(at), c.Close())
		}
		if err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	return nil
}

func (s *Scopes) pinLinks(dir string) error {
	err := os.Mkdir(dir, 0o700)
	for name, l := range s.links {
		if err == nil {
			err = l.Pin(filepath.Join(dir, name))
		}
	}
	return err
}

// follow pins the links beside those of earlier programs and takes these away.
func (s *Scopes) follow() error {
	old, err := filepath.Glob(filepath.Join(s.dir, "links-*"))
	if err != nil {
		return err
	}
	last := 0
	for _, dir := range old {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "links-")); err == nil {
			last = max(last, n)
		}
	}
	s.at = filepath.Join(s.dir, "links-"+strconv.Itoa(last+1))
	if err := errors.Join(s.pinLinks(s.at), s.pinMaps(s.dir)); err != nil {
		return errors.Join(err, os.RemoveAll(s.at))
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// Close lets go of the scopes, which go on holding.
func (s *Scopes) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	for _, p := range s.hooks {
		errs = append(errs, p.Close())
	}
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	for _, p := range []*ebpf.Program{s.sweep, s.where} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// Remove unpins the scopes and closes s. Refused as long as any is in force.
func (s *Scopes) Remove() error {
	rules, err := s.Rules()
	if err != nil {
		return err
	}
	if len(rules) > 0 {
		return fmt.Errorf("%w: %d scopes are in force", exeq.ErrEnforce, len(rules))
	}
	s.gate.scopes.Store(nil)
	return errors.Join(os.RemoveAll(s.dir), s.Close())
}

// Rules lists what is in force.
func (s *Scopes) Rules() (map[Scope]Rule, error) {
	all := map[Scope]Rule{}
	var k scopeSubject
	var v scopeRule
	it := s.maps[scopeMapRules].Iterate()
	for it.Next(&k, &v) {
		all[Scope{ScopeKind(k.Kind), k.Number}] = Rule{v.Serial, v.Mode == ruleEnforce, time.Duration(v.OpenUntil)}
	}
	return all, it.Err()
}

// Set puts a rule in force, in one step, and has what is in the scope already
// stay in it. Set what the scope lives by first.
func (s *Scopes) Set(of Scope, r Rule) error {
	if of.Kind < ScopeHost || of.Kind > ScopeCgroup {
		return fmt.Errorf("%w: a scope of kind %d", exeq.ErrEnforce, of.Kind)
	}
	v := scopeRule{Serial: r.Serial, OpenUntil: uint64(max(r.OpenUntil, 0)), Mode: ruleRehearse}
	if r.Enforce {
		v.Mode = ruleEnforce
	}
	if err := s.maps[scopeMapRules].Put(of.subject(), v); err != nil {
		return fmt.Errorf("%w: scope: %w", exeq.ErrEnforce, err)
	}
	return s.mark()
}

// mark has every process that is in a scope stay in it.
func (s *Scopes) mark() error {
	if err := iterate(s.sweep, io.Discard); err != nil {
		return fmt.Errorf("%w: scope: what is in it already: %w", exeq.ErrEnforce, err)
	}
	return nil
}

// Where lists the scopes that a process is in now: by any of its users, by its
// cgroup, or because it descends from one. That of the host, which everybody is
// in, is not among them. No such process: none.
func (s *Scopes) Where(pid int) ([]Scope, error) {
	var told bytes.Buffer
	if err := iterate(s.where, &told); err != nil {
		return nil, fmt.Errorf("%w: scope: where process %d is: %w", exeq.ErrEnforce, pid, err)
	}
	var all []Scope
	for told.Len() > 0 {
		var p scopePlace
		if err := binary.Read(&told, binary.NativeEndian, &p); err != nil {
			return nil, fmt.Errorf("%w: scope: where process %d is: %w", exeq.ErrEnforce, pid, err)
		}
		if int(p.Pid) != pid {
			continue
		}
		if p.Over != 0 {
			return nil, fmt.Errorf("%w: scope: process %d is in more scopes than can be told", exeq.ErrEnforce, pid)
		}
		for _, o := range p.Of {
			if of := (Scope{ScopeKind(o.Kind), o.Number}); o.Kind != 0 && !slices.Contains(all, of) {
				all = append(all, of)
			}
		}
	}
	return all, nil
}

// iterate runs a program over every task.
func iterate(p *ebpf.Program, to io.Writer) error {
	it, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return err
	}
	r, err := it.Open()
	if err == nil {
		_, err = io.Copy(to, r)
		err = errors.Join(err, r.Close())
	}
	return errors.Join(err, it.Close())
}

// SelfTest proves that the scope, which is not open, bites (or, rehearsed, does
// not) with a program that is started in it; cgroup is the directory of one over
// a cgroup. It leaves an attempt, whose parent is this process.
func (s *Scopes) SelfTest(of Scope, cgroup string, enforce bool) error {
	sing, err := canary(canaryExec, nil)
	if err != nil {
		return err
	}
	defer sing.Close()
	var dir *os.File
	var who *syscall.Credential
	switch of.Kind {
	case ScopeCgroup:
		// One that distributes resources to others has no processes of its own.
		below, err := os.MkdirTemp(cgroup, "exeq-canary-")
		if err != nil {
			return err
		}
		defer os.Remove(below)
		if dir, err = openCgroup(below); err != nil {
			return err
		}
		defer dir.Close()
	case ScopeUID:
		who = &syscall.Credential{Uid: uint32(of.Number), Gid: 65534}
	}
	status, out, err := flyAs(who, sing, dir)
	ran, died := status.ExitStatus() == 99 && len(out) == 1, status.Signaled() && status.Signal() == unix.SIGKILL && len(out) == 0
	if err == nil && (enforce && !died || !enforce && !ran) {
		err = fmt.Errorf("a program that it does not live by: status %#x, wrote %d bytes", uint32(status), len(out))
	}
	if err != nil {
		return fmt.Errorf("%w: self-test of a scope: %w", exeq.ErrEnforce, err)
	}
	return nil
}

// Lift takes a rule out of force and forgets what the scope lived by.
func (s *Scopes) Lift(of Scope) error {
	err := s.maps[scopeMapRules].Delete(of.subject())
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if err = errors.Join(err, s.SetLife(of, nil, nil)); err != nil {
		return fmt.Errorf("%w: lift a scope: %w", exeq.ErrEnforce, err)
	}
	return nil
}

// SetLife sets what executes in a scope without a permit. New files come before
// old ones go.
func (s *Scopes) SetLife(of Scope, files []File, trees []Tree) error {
	lives, roots := map[scopeLife]scopeVersion{}, map[scopeLife]uint8{}
	for _, f := range files {
		lives[scopeLife{Of: of.subject(), Ino: f.Ino, Dev: f.Dev}] = scopeVersion{CtimeSec: f.CtimeSec, CtimeNsec: f.CtimeNsec, Size: f.Size, Generation: f.Generation, Rights: rightExec}
	}
	for _, t := range trees {
		roots[scopeLife{Of: of.subject(), Ino: t.Ino, Dev: t.Dev}] = 1
	}
	err := set(s.maps[scopeMapLives], lives, func(l scopeLife, _ scopeVersion) bool { return l.Of == of.subject() })
	if err == nil {
		err = set(s.maps[scopeMapTrees], roots, func(l scopeLife, _ uint8) bool { return l.Of == of.subject() })
	}
	if err != nil {
		return fmt.Errorf("%w: what a scope lives by: %w", exeq.ErrEnforce, err)
	}
	return nil
}

// IdentifyTree says what the kernel takes an open directory for.
func (g *Gate) IdentifyTree(d *os.File) (Tree, error) {
	out, err := g.kernelSays(int(d.Fd()))
	if err != nil {
		return Tree{}, fmt.Errorf("identify %s: %w", d.Name(), err)
	}
	return Tree{out.Dev, out.Ino}, nil
}

// own lets a program of the node's execute in every scope until the function
// that it gives is called.
func (g *Gate) own(f *os.File) (func() error, error) {
	s := g.scopes.Load()
	if s == nil {
		return func() error { return nil }, nil
	}
	x, err := g.Identify(f)
	if err != nil {
		return nil, err
	}
	k := scopeLife{Ino: x.Ino, Dev: x.Dev}
	v := scopeVersion{CtimeSec: x.CtimeSec, CtimeNsec: x.CtimeNsec, Size: x.Size, Generation: x.Generation, Rights: rightExec}
	m := s.maps[scopeMapLives]
	return func() error { return m.Delete(k) }, m.Put(k, v)
}

func (s Scope) subject() scopeSubject {
	return scopeSubject{Kind: uint32(s.Kind), Number: s.Number}
}
