//go:build linux

// Command govern measures what it costs to run a command under exeq: its
// start beside bwrap and runc, programs, files, a build and a clone inside the
// governed tree beside the same outside, a large program's first execution, and
// the memory of the supervisor.
//
//	govern [-quick] [-exeq PROGRAM] [-workload DIR] DIR [PART…]
//
// The parts are start, spawn, open, clone, build, large and memory; without names
// all of them. The part node goes through a daemon of its own: it needs root, and
// has to be named, as a whole or by node.start, node.inside, node.events,
// node.revoke and node.memory.
//
// DIR is a scratch directory; the workload programs of bench/workload lie
// compiled in the directory that -workload names. Everything is run in turns,
// A B A B, so that what else the machine does falls on both.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/exeq/exeq/bench/measure"
)

// bench is what the parts share.
type bench struct {
	out       *measure.Out
	exeq      string // the program under test
	workload  string
	dir       string // scratch
	workspace string // where the governed commands work
	state     string // of exeq
	quick     bool
	parts     []string // that were named
}

func main() {
	b := bench{out: measure.NewOut(os.Stdout)}
	flag.StringVar(&b.exeq, "exeq", "exeq", "the exeq to measure")
	flag.StringVar(&b.workload, "workload", ".", "directory of the workload programs")
	flag.BoolVar(&b.quick, "quick", false, "fewer rounds")
	flag.Parse()
	if flag.NArg() < 1 {
		fmt.Fprintln(os.Stderr, "usage: govern [flags] DIR [PART…]")
		os.Exit(2)
	}
	b.parts = flag.Args()[1:]
	err := adopt()
	if err == nil {
		err = b.prepare(flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "govern:", err)
		os.Exit(1)
	}
	failed := false
	for _, part := range []struct {
		name string
		run  func() error
	}{{"start", b.start}, {"spawn", b.spawns}, {"open", b.opens}, {"clone", b.clones}, {"build", b.build}, {"large", b.large}, {"memory", b.memory}, {"node", b.node}} {
		// The node's part needs root, and is run where it is named.
		named := slices.ContainsFunc(b.parts, func(p string) bool { return p == part.name || strings.HasPrefix(p, part.name+".") })
		if !named && (len(b.parts) > 0 || part.name == "node") {
			continue
		}
		if err := part.run(); err != nil {
			fmt.Fprintf(os.Stderr, "govern: %s: %v\n", part.name, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// prepare makes the workspace and a state directory that has been used once,
// so that no measured run creates keys.
func (b *bench) prepare(dir string) (err error) {
	for _, p := range []*string{&dir, &b.exeq, &b.workload} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	b.dir, b.workspace, b.state = dir, filepath.Join(dir, "workspace"), filepath.Join(dir, "state")
	if err := os.MkdirAll(b.workspace, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"spawn", "open", "crowd", "true"} {
		text, err := os.ReadFile(filepath.Join(b.workload, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.workspace, name), text, 0o755); err != nil {
			return err
		}
	}
	return run(b.governed("/bin/true"))
}

// rounds is n, or a few when the run is quick.
func (b *bench) rounds(n int) int {
	if b.quick {
		return max(2, n/5)
	}
	return n
}
