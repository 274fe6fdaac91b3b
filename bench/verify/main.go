// Command verify measures the offline verification of proofs, by their length:
//
//	verify [-quick] DIR
//
// The proofs are real: the flow, keys, store and log are Exeq's own. Only what
// runs is a stand-in that asks to read a forbidden file again and again, since
// each denial is a leaf of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/bench/measure"
	"github.com/exeq/exeq/bench/standin"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/proof"
)

// length of a proof that is measured.
type length struct {
	name   string
	leaves int
}

// Eight hours have 480 minutes, each with a summary of its ticks, and 28,800
// seconds, each with a leaf where something happened.
var lengths = []length{
	{"100 leaves", 100},
	{"483 leaves: eight quiet hours", 483},
	{"5,000 leaves", 5000},
	{"29,283 leaves: eight hours with an activity each second", 29_283},
}

func main() {
	quick := flag.Bool("quick", false, "leave out the longest")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: verify [-quick] DIR")
		os.Exit(2)
	}
	if *quick {
		lengths = lengths[:2]
	}
	if err := all(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "verify:", err)
		os.Exit(1)
	}
}

func all(dir string) error {
	ctx := context.Background()
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	// The starter set, but for its bound on denials: the stand-in's are activities.
	source := policy.Starter()
	source.Files["settings.json"] = strings.Replace(source.Files["settings.json"], `"denials": 10000`, `"denials": 1000000`, 1)
	set, err := policy.Load(source)
	if err != nil {
		return err
	}
	inst, err := standalone.Open(ctx, standalone.Options{Dir: dir, Set: set})
	if err != nil {
		return err
	}
	defer inst.Close()
	trust, err := standalone.TrustOf(dir)
	if err != nil {
		return err
	}
	out := measure.NewOut(os.Stdout)
	for _, l := range lengths {
		text, err := execute(ctx, inst, l.leaves)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if err := measured(out, l, text, trust); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// measured verifies from the bytes of the file, with the replay of the
// decision, as exeq verify does it, which collects garbage later where the proof
// is small.
func measured(out *measure.Out, l length, text []byte, trust *proof.Trust) error {
	if len(text) <= 1<<20 {
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	wall, cpu, err := measure.Loop(2*time.Second, 1, func() error {
		p, err := proof.Parse(text)
		if err != nil {
			return err
		}
		// An appraisal a minute comes on top.
		if n := len(p.Leaves); n < l.leaves || n > l.leaves+10 {
			return fmt.Errorf("the proof has %d leaves", n)
		}
		r, err := proof.Verify(p, trust, proof.Options{Replay: standalone.Replay})
		if err == nil && r.Verdict != proof.Valid {
			err = errors.New(r.Text())
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := out.Put(measure.Spread(measure.Result{Part: "verify", Case: l.name, Who: "verify", Unit: "ns",
		Note: "From the bytes of the file, everything disclosed, the decision replayed under the starter policy."}, wall)); err != nil {
		return err
	}
	if err := out.Put(measure.Spread(measure.Result{Part: "verify", Case: l.name, Who: "CPU time", Unit: "ns"}, cpu)); err != nil {
		return err
	}
	return out.Put(measure.Result{Part: "verify", Case: l.name, Who: "size of the proof", Unit: "bytes", Value: float64(len(text))})
}

// execute takes a stand-in through the flow and gives its proof.
func execute(ctx context.Context, inst *standalone.Installation, leaves int) ([]byte, error) {
	const wd = "/srv/work"
	program := exeq.Resource{Type: "Program", ID: "/usr/bin/true", SHA256: exeq.LeafHash([]byte("true"))}
	r := &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "bench"}, OnBehalfOf: []exeq.Entity{{Type: "User", ID: "someone"}},
		Action: exeq.ActionRun, Resource: program, Argv: []string{"true"}, Dir: wd,
		Context: exeq.Context{Workspace: wd, Home: "/home/someone", Tmp: "/tmp/exeq-1", Command: "true"},
	}
	// Permit, start and end are leaves, too.
	g, err := inst.Governor(standin.Enforcer{Denials: leaves - 3})
	if err != nil {
		return nil, err
	}
	g.DenialLeaves = leaves
	o, err := g.Run(ctx, &exeq.Launch{Request: r}, exeq.Inputs{Tier: exeq.TierRootless}, "")
	if err != nil {
		return nil, err
	}
	return inst.Proof(ctx, o.ID)
}
