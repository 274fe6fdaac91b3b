//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/exeq/exeq/enforce/bpf"
)

// recover ends what an earlier node held, since nobody knows its leases any
// more, and leaves a gate that is whole and governs nothing. If something does
// not end, nothing is served.
func (n *Node) recover() error {
	under, top, err := inHierarchy(n.c.Cgroup)
	if err != nil {
		return err
	}
	n.under, n.top = under, top
	if err := os.Mkdir(n.c.Cgroup, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	gate, err := bpf.Open(n.c.Pins)
	switch {
	case err == nil:
		n.gate = gate
	case errors.Is(err, bpf.ErrNotLoaded):
	case errors.Is(err, bpf.ErrOtherBuild), errors.Is(err, bpf.ErrBroken):
		n.note("the gate of an earlier node cannot be taken over: %v", err)
	default:
		return err
	}
	left, err := os.ReadDir(n.c.Cgroup)
	if err != nil {
		return err
	}
	for _, d := range left {
		if !d.IsDir() {
			continue
		}
		dir := filepath.Join(n.c.Cgroup, d.Name())
		if err := n.endLeft(dir); err != nil {
			return fmt.Errorf("execution %s of an earlier node does not end: %w", d.Name(), err)
		}
		n.note("execution %s of an earlier node: its lease could not be continued, it was ended", d.Name())
	}
	if n.gate == nil {
		if err := os.RemoveAll(n.c.Pins); err != nil {
			return err
		}
		return n.load(top)
	}
	states, err := n.gate.Governed()
	if err != nil {
		return err
	}
	for _, s := range states { // their cgroups are gone
		if left, err := n.gate.Marked(s.Cgroup); err != nil {
			return err
		} else if left > 0 {
			if err := n.gate.Revoke(s.Cgroup); err != nil {
				return err
			}
			n.note("%d processes that an earlier node held live outside of their cgroup: everything stays refused to them", left)
			continue
		}
		if err := n.gate.Lift(s.Cgroup); err != nil {
			return err
		}
	}
	return n.strengthen(top)
}

// strengthen replaces a gate of tier kernel-lite that an earlier build left, if
// nothing stands on it.
func (n *Node) strengthen(top string) error {
	if n.gate.Kernel() {
		return nil
	}
	if err := bpf.TryKernel(); err != nil {
		n.above = "tier kernel: " + err.Error()
		return nil
	}
	n.above = "tier kernel: what is governed stands on an earlier node's gate of tier kernel-lite"
	states, err := n.gate.Governed()
	if err != nil || len(states) > 0 {
		return err
	}
	if _, err := os.Lstat(n.scopes.pins()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := n.gate.Remove(); err != nil {
		return err
	}
	n.gate = nil
	return n.load(top)
}

// load puts the strongest gate in place that this kernel takes.
func (n *Node) load(top string) (err error) {
	n.above = ""
	if err = bpf.TryKernel(); err == nil {
		n.gate, err = bpf.LoadKernel(n.c.Pins, top)
	}
	if err == nil {
		return nil
	}
	n.above = "tier kernel: " + err.Error()
	n.gate, err = bpf.Load(n.c.Pins, top)
	return err
}

func (n *Node) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	n.log.Warn("found", "what", line)
	if n.found = append(n.found, line); len(n.found) > 64 {
		n.found = slices.Delete(n.found, 0, 1)
	}
}

// endLeft kills all in a cgroup, by the gate where there is one, and removes it.
func (n *Node) endLeft(dir string) error {
	if n.gate != nil {
		err := n.gate.End(dir, endTime)
		if err != nil && !errors.Is(err, bpf.ErrNotGoverned) {
			return err
		}
	}
	if err := killAll(dir, endTime); err != nil {
		return err
	}
	return removeCgroup(dir)
}

// killAll ends everything in a cgroup and below it, governed or not.
func killAll(dir string, within time.Duration) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		return err
	}
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		populated, err := isPopulated(dir)
		if err != nil || !populated {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("still populated after %s: %w", within, os.ErrDeadlineExceeded)
		}
	}
}

func isPopulated(dir string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return false, err
	}
	return !containsLine(string(b), "populated 0"), nil
}

// removeCgroup removes an empty cgroup and what is below it.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range entries {
		if d.IsDir() {
			if err := removeCgroup(filepath.Join(dir, d.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
