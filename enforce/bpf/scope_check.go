//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/exeq/exeq"
)

// Check says whether every hook is attached, and all of it pinned, and whether
// the kernel ran each program every time.
func (s *Scopes) Check() error {
	for name, l := range s.links {
		if _, err := l.Info(); err != nil {
			return fmt.Errorf("%w: scopes: %s: %w", ErrBroken, name, err)
		}
		if _, err := os.Lstat(filepath.Join(s.at, name)); err != nil {
			return fmt.Errorf("%w: scopes: the pin of %s: %w", ErrBroken, name, err)
		}
	}
	for name, p := range s.hooks {
		st, err := p.Stats()
		if err == nil {
			err = skipped(name, st.RecursionMisses)
		}
		if err != nil {
			return fmt.Errorf("scopes: %w", err)
		}
	}
	for name := range s.maps {
		if _, err := os.Lstat(filepath.Join(s.dir, "map-"+name)); err != nil {
			return fmt.Errorf("%w: scopes: the pin of %s: %w", ErrBroken, name, err)
		}
	}
	return nil
}

// Restore puts hooks and pins in place again after Check has missed one. The
// programs are new ones, which the kernel has not passed over yet; Missed goes on
// counting.
func (s *Scopes) Restore() error {
	old, programs, iters := s.links, s.hooks, []*ebpf.Program{s.sweep, s.where}
	s.links, s.hooks = map[string]link.Link{}, map[string]*ebpf.Program{}
	err := s.load()
	if err == nil {
		if ScopesPinned(s.dir) {
			err = s.follow()
		} else {
			err = s.pin()
		}
	}
	if err != nil {
		for _, l := range s.links {
			l.Close()
		}
		for _, p := range s.hooks {
			p.Close()
		}
		s.links, s.hooks, s.sweep, s.where = old, programs, iters[0], iters[1]
		return fmt.Errorf("%w: scopes: %w", exeq.ErrEnforce, err)
	}
	for _, l := range old {
		l.Close()
	}
	for name, p := range programs {
		st, serr := p.Stats()
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("%w: scopes: how often the kernel passed %s over is lost: %w", exeq.ErrEnforce, name, serr))
		} else {
			s.passed += st.RecursionMisses
		}
		p.Close()
	}
	return errors.Join(err, iters[0].Close(), iters[1].Close())
}

// Missed counts attempts that nobody read before the ring was full or for which
// the kernel passed a program over, and processes that could not be marked: they
// leave the scope when they change both user and cgroup.
func (s *Scopes) Missed() (attempts, processes uint64, err error) {
	err = errors.Join(s.maps[scopeMapMissed].Lookup(uint32(0), &attempts), s.maps[scopeMapMissed].Lookup(uint32(1), &processes))
	attempts += s.passed
	for _, p := range s.hooks {
		st, serr := p.Stats()
		if err = errors.Join(err, serr); serr == nil {
			attempts += st.RecursionMisses
		}
	}
	return attempts, processes, err
}
