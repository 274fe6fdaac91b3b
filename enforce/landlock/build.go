//go:build linux

package landlock

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Build makes a ruleset (a close-on-exec descriptor, the caller's to close)
// that grants what r allows as far as Landlock can say it. The report is
// complete: see Report. On an error there is no ruleset.
func Build(r *exeq.Rights, o Options) (ruleset int, _ Report, err error) {
	abi, err := ABI()
	if err != nil {
		return -1, Report{}, err
	}
	need := max(MinABI, o.MinABI)
	if o.Net {
		need = max(need, netABI)
	}
	if o.Scope {
		need = max(need, scopeABI)
	}
	if abi < need {
		return -1, Report{ABI: abi}, fmt.Errorf("landlock: the kernel has ABI %d, these rights need %d", abi, need)
	}
	if err := r.Validate(); err != nil {
		return -1, Report{ABI: abi}, fmt.Errorf("landlock: %w", err)
	}
	b := &builder{o: o, ruleset: -1, rep: Report{ABI: abi, FS: handledFS(abi)}}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: b.rep.FS}
	if o.Net {
		b.rep.Net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if o.Scope {
		b.rep.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	attr.Handled_access_net, attr.Scoped = b.rep.Net, b.rep.Scoped
	if b.pseudo, err = pseudoMounts("/proc/self/mountinfo"); err != nil {
		return -1, Report{ABI: abi}, err
	}
	if b.ruleset, err = createRuleset(&attr); err != nil {
		return -1, Report{ABI: abi}, err
	}
	if err := b.build(r); err != nil {
		unix.Close(b.ruleset)
		return -1, Report{ABI: abi}, err
	}
	return b.ruleset, b.rep, nil
}

type builder struct {
	o       Options
	ruleset int
	pseudo  []string // mount points where nothing is ever written
	rep     Report
}

// state is what holds below a directory.
type state struct {
	path    string
	granted Access // by Landlock: the rules of all ancestors together
	masked  bool   // a mask of this or an ancestor stands
	leave   Access // what the nearest mask leaves
}

// usable is what the execution can really do there.
func (s state) usable() Access {
	if s.masked {
		return s.granted & s.leave
	}
	return s.granted
}

func (b *builder) build(r *exeq.Rights) error {
	for _, p := range b.o.Connect {
		if err := addPort(b.ruleset, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, p); err != nil {
			return err
		}
	}
	for _, p := range b.o.Bind {
		if err := addPort(b.ruleset, unix.LANDLOCK_ACCESS_NET_BIND_TCP, p); err != nil {
			return err
		}
	}
	cells, err := b.cells(r)
	if err != nil {
		return err
	}
	var above []state // the chain of cells over the current one
	for _, c := range cells.sorted {
		for len(above) > 0 && !within(c.path, above[len(above)-1].path) {
			above = above[:len(above)-1]
		}
		var up state
		if len(above) > 0 {
			up = above[len(above)-1]
		}
		s, err := b.cell(c, up)
		if err != nil {
			return err
		}
		above = append(above, s)
	}
	b.pin(cells)
	return nil
}

// cell adds the rule and reports the masks of one cell, and gives the state
// below it.
func (b *builder) cell(c cell, up state) (state, error) {
	s := up
	s.path = c.path
	if b.isPseudo(c.path) {
		s.granted &^= Write
		if (c.at|c.under)&Write != 0 {
			b.narrowed(c.path, Write, "nothing is ever written in proc, sysfs and their like")
			c.at, c.under = c.at&^Write, c.under&^Write
		}
	}
	fd, st, err := openPath(c.path)
	kind := st.Mode & unix.S_IFMT
	symlink := errors.Is(err, unix.ELOOP) || err == nil && kind == unix.S_IFLNK
	switch {
	case err == nil:
		defer unix.Close(fd)
	case symlink, errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
	default:
		return s, fmt.Errorf("landlock: %w", err)
	}
	switch {
	case err != nil || symlink:
		// What may come into being there is a file or a directory: whatever
		// one of the two uses forbids is over, what one allows is missing.
		have, both := s.usable(), c.at&c.under
		if b.o.Gated {
			both |= have & Exec
		}
		if m := (Missing{c.path, (c.at | c.under) &^ have, have &^ both, both, symlink, errors.Is(err, unix.EACCES)}); m.Grant|m.Over != 0 {
			b.rep.Missing = append(b.rep.Missing, m)
		}
		return s, nil
	case kind != unix.S_IFDIR:
		if over := c.at &^ c.under; up.usable()&c.at&Write != 0 && over != 0 {
			b.rep.Widened = append(b.rep.Widened, Difference{c.path, over, "a directory put in the file's place would be allowed what the file is"})
		}
		return s, b.settle(fd, &s, false, c.at)
	}
	if c.at&^c.under&Read != 0 {
		b.narrowed(c.path, Read, "a directory cannot be listed without reading all below it")
	}
	if c.under&^c.at&Read != 0 {
		b.rep.Widened = append(b.rep.Widened, Difference{c.path, Read, "reading all below a directory lists it too"})
	}
	return s, b.settle(fd, &s, true, c.under)
}

// settle brings a file or a tree to what is wanted there: a rule for what is
// not granted yet, a mask where the result would differ.
func (b *builder) settle(fd int, s *state, dir bool, want Access) error {
	if want == Exec || want == Write|Exec {
		b.narrowed(s.path, Exec, "Landlock runs only what may be read")
	}
	if add := want &^ s.granted; add != 0 {
		if err := b.grant(fd, s.path, dir, add); err != nil {
			return err
		}
		s.granted |= add
	}
	care := Read | Write | Exec
	if b.o.Gated {
		care &^= Exec
	}
	if s.usable()&care == want&care {
		return nil
	}
	b.rep.Masks = append(b.rep.Masks, Mask{s.path, dir, want, s.granted &^ want & care})
	s.masked, s.leave = true, want
	if want != 0 && want&Read == 0 {
		b.narrowed(s.path, want, "what may not be read is covered whole")
	}
	return nil
}

func (b *builder) narrowed(p string, a Access, reason string) {
	b.rep.Narrowed = append(b.rep.Narrowed, Difference{p, a, reason})
}

// grant adds rules for a on p and everything below, but for writing below the
// pseudo file systems.
func (b *builder) grant(fd int, p string, dir bool, a Access) error {
	if a&Write != 0 && dir && b.pseudoBelow(p) {
		if err := b.grantAround(p); err != nil {
			return err
		}
		if a &^= Write; a == 0 {
			return nil
		}
	}
	if a&Write != 0 {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return fmt.Errorf("landlock: %s: %w", p, err)
		}
		if pseudoMagic(int64(fs.Type)) {
			return fmt.Errorf("landlock: %s is on a file system where nothing is ever written, and not in the mount table", p)
		}
	}
	if a&Exec != 0 && !dir && b.o.Gated {
		up, _, err := openPath(path.Dir(p))
		if err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
		err = b.grant(up, path.Dir(p), true, Exec)
		unix.Close(up)
		if err != nil {
			return err
		}
		if a &^= Exec; a == 0 {
			return nil
		}
	}
	rule := Rule{p, a, dir, bitsOf(a, dir) & b.rep.FS}
	for _, r := range b.o.Replaced {
		if within(p, r) {
			b.rep.Late = append(b.rep.Late, rule)
			return nil
		}
	}
	if err := AddPath(b.ruleset, fd, rule.Bits); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	b.rep.Rules = append(b.rep.Rules, rule)
	return nil
}

// grantAround grants writing on each entry of p that is no pseudo file system
// and holds none. Of a directory that this user may not list (another's, which
// has something mounted in it) nothing is granted.
func (b *builder) grantAround(p string) error {
	b.narrowed(p, Write, "a pseudo file system lies below: names directly in it cannot be made or removed")
	entries, err := os.ReadDir(p)
	if errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	for _, e := range entries {
		child := path.Join(p, e.Name())
		if e.Type()&os.ModeSymlink != 0 || b.isPseudo(child) {
			continue
		}
		fd, st, err := openPath(child)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
		err = b.grant(fd, child, st.Mode&unix.S_IFMT == unix.S_IFDIR, Write)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
