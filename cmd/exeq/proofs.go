package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/proof"
)

// smallProof is up to which size memory is not worth collecting early.
const smallProof = 1 << 20

func verify(ctx context.Context, c *call) int {
	var trustFile, state string
	var asJSON bool
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&trustFile, "trust", "", "trust file; default: what the state directory's owner trusts")
		fs.StringVar(&state, "state", "", "state directory, where no trust file is named")
		fs.BoolVar(&asJSON, "json", false, "print JSON")
	})
	if !ok {
		return status
	}
	if fs.NArg() != 1 {
		return c.misuse("want one proof file")
	}
	cannotTell := func(err error) int {
		fmt.Fprintf(c.stderr, "exeq verify: cannot tell: %s\n", err)
		return exitUsage
	}
	trust, err := c.trustFor(ctx, trustFile, state)
	if err != nil {
		return cannotTell(err)
	}
	b, err := os.ReadFile(fs.Arg(0))
	if err != nil {
		return cannotTell(err)
	}
	if len(b) <= smallProof {
		debug.SetGCPercent(400) // what a verification needs is gone with it
	}
	p, err := proof.Parse(b)
	if err != nil {
		return cannotTell(err)
	}
	report, err := proof.Verify(p, trust, proof.Options{Replay: standalone.Replay})
	if err != nil {
		return cannotTell(err)
	}
	if err := c.printReport(report, asJSON); err != nil {
		return cannotTell(err)
	}
	return report.Verdict.Exit()
}

// trustFor reads a trust file, or asks the local installation.
func (c *call) trustFor(ctx context.Context, file, state string) (*proof.Trust, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return proof.ParseTrust(b)
	}
	in, err := c.open(ctx, state)
	if err != nil {
		return nil, fmt.Errorf("no trust: name a trust file with --trust (exeq trust export writes one where the execution ran): %w", err)
	}
	defer in.Close()
	return in.Trust(ctx)
}

func proofOf(ctx context.Context, c *call) int {
	var to, disclose string
	in, fs, _, status := c.query(ctx, func(fs *flag.FlagSet) {
		fs.StringVar(&to, "o", "", "file to write; default: standard output")
		fs.StringVar(&disclose, "disclose", "all", "all, none, or fields separated by commas; -FIELD withholds one")
	})
	if in == nil {
		return status
	}
	defer in.Close()
	if fs.NArg() != 1 {
		return c.misuse("want one execution")
	}
	fields := strings.Split(disclose, ",")
	if to != "" {
		file, err := osfile.NewOutput(to)
		if err != nil {
			return c.fail(fmt.Errorf("the proof %w", err))
		}
		defer file.Close()
		if err := in.WriteProof(ctx, fs.Arg(0), file, fields...); err != nil {
			return c.fail(err)
		}
		return 0
	}
	b, err := in.Proof(ctx, fs.Arg(0), fields...)
	if err != nil {
		return c.fail(err)
	}
	c.stdout.Write(b)
	return 0
}

func trust(ctx context.Context, c *call) int {
	if len(c.argv) > 0 && slices.Contains([]string{"-h", "--help", "-help"}, c.argv[0]) {
		c.argv = append([]string{"export"}, c.argv...)
	}
	if len(c.argv) == 0 || c.argv[0] != "export" {
		return c.misuse("want export")
	}
	c.argv = c.argv[1:]
	var to string
	var forNode bool
	in, _, _, status := c.query(ctx, func(fs *flag.FlagSet) {
		fs.StringVar(&to, "o", "", "file to write; default: standard output")
		fs.BoolVar(&forNode, "node", false, "what exeq-node install takes, to permit this user's executions")
	})
	if in == nil {
		return status
	}
	defer in.Close()
	encode := func() ([]byte, error) {
		t, err := in.Trust(ctx)
		if err != nil {
			return nil, err
		}
		return t.Encode()
	}
	if forNode {
		encode = in.NodeTrust
	}
	var file *osfile.Output
	if to != "" {
		var err error
		if file, err = osfile.NewOutput(to); err != nil {
			return c.fail(fmt.Errorf("the trust file %w", err))
		}
		defer file.Close()
	}
	b, err := encode()
	if err == nil && file != nil {
		err = file.Put(b)
	} else if err == nil {
		c.stdout.Write(b)
	}
	if err != nil {
		return c.fail(err)
	}
	return 0
}

func initialise(ctx context.Context, c *call) int {
	var state string
	var asJSON bool
	_, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&state, "state", "", "state directory")
		fs.BoolVar(&asJSON, "json", false, "print JSON")
	})
	if !ok {
		return status
	}
	dir, err := stateDir(state)
	if err != nil {
		return c.fail(err)
	}
	in, err := standalone.Open(ctx, standalone.Options{Dir: dir, Log: c.log(), Say: func(line string) { fmt.Fprintf(c.stderr, "exeq: %s\n", line) }})
	if err != nil {
		return c.fail(err)
	}
	defer in.Close()
	if asJSON {
		printJSON(c.stdout, map[string]any{"state": in.Dir, "created": in.Created, "origin": in.Keys.Origin(), "policy": in.PolicyPath()})
		return 0
	}
	was := "is there already"
	if in.Created {
		was = "created"
	}
	fmt.Fprintf(c.stdout, "state   %s (%s)\norigin  %s\npolicy  %s\n", in.Dir, was, in.Keys.Origin(), in.PolicyPath())
	return 0
}

// drain puts what a run recorded into the log. run leaves it behind, detached,
// so that nobody waits for the log.
func drain(ctx context.Context, c *call) int {
	var state string
	var inherits bool
	_, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&state, "state", "", "state directory")
		fs.BoolVar(&inherits, "inherits", false, "the store is left to us; its lock is descriptor 3")
	})
	if !ok {
		return status
	}
	var inherited *os.File
	if inherits {
		inherited = os.NewFile(3, "store.lock")
	}
	dir, err := stateDir(state)
	if err != nil {
		return c.fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, drainAtMost)
	defer cancel()
	go func() {
		// A state that was removed meanwhile has nothing to drain into.
		defer cancel()
		for ctx.Err() == nil && !standalone.Removed(dir) {
			time.Sleep(exeq.DefaultTick)
		}
	}()
	in, err := c.inherit(ctx, dir, inherited)
	if err != nil {
		return c.fail(err)
	}
	defer in.Close()
	standalone.Sweep()
	if err := in.Store.Drain(ctx); err != nil {
		return c.fail(err)
	}
	return 0
}

// drainAtMost bounds a drainer; what it leaves the next start drains.
const drainAtMost = 5 * time.Minute
