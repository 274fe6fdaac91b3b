// Command decide measures policy decisions and the replay of a history:
//
//	decide DIR
//
// It makes the shapes in DIR and leaves them, with Exeq's answers, to
// bench/peers, which must agree.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/bench/measure"
	"github.com/exeq/exeq/bench/shape"
	"github.com/exeq/exeq/policy"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: decide DIR")
		os.Exit(2)
	}
	out := measure.NewOut(os.Stdout)
	for _, n := range shape.Sizes {
		if err := decide(out, shape.Dir(os.Args[1], n), n); err != nil {
			fmt.Fprintf(os.Stderr, "decide: %d policies: %v\n", n, err)
			os.Exit(1)
		}
	}
	if err := replay(out, shape.Dir(os.Args[1], 1000)); err != nil {
		fmt.Fprintf(os.Stderr, "decide: replay: %v\n", err)
		os.Exit(1)
	}
}

// decide times Decide on one caller, validation of the request included.
func decide(out *measure.Out, dir string, n int) error {
	if err := shape.Write(dir, n); err != nil {
		return err
	}
	set, err := policy.LoadDir(filepath.Join(dir, shape.SetDir))
	if err != nil {
		return err
	}
	requests, err := shape.Read(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	answers := make([]shape.Answer, len(requests))
	for i := range requests {
		d, err := set.Decide(ctx, &requests[i].Request, &requests[i].Inputs)
		if err != nil {
			return fmt.Errorf("request %d: %w", i, err)
		}
		answers[i] = shape.Answer{Allow: d.Verdict == exeq.Allow, Policies: d.Policies}
	}
	if err := shape.WriteAnswers(dir, answers); err != nil {
		return err
	}
	wall, cpu, err := measure.Loop(2*time.Second, len(requests), func() error {
		for i := range requests {
			if _, err := set.Decide(ctx, &requests[i].Request, &requests[i].Inputs); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := out.Put(measure.Spread(measure.Result{Part: "decide", Case: strconv.Itoa(n), Who: "exeq", Unit: "ns"}, wall)); err != nil {
		return err
	}
	return out.Put(measure.Spread(measure.Result{Part: "decide, CPU time", Case: strconv.Itoa(n), Who: "exeq", Unit: "ns"}, cpu))
}

// history is how many recorded requests are replayed.
const history = 100_000

// replay times a candidate set over a recorded history, as exeq policy replay
// and exeq policy diff do it.
func replay(out *measure.Out, dir string) error {
	src, err := policy.ReadDir(filepath.Join(dir, shape.SetDir))
	if err != nil {
		return err
	}
	active, err := policy.Load(src)
	if err != nil {
		return err
	}
	src.Files["candidate.cedar"] = `@id("candidate")
forbid (principal, action == Exeq::Action::"read", resource in Exeq::Path::"/srv/area-3");
`
	candidate, err := policy.Load(src)
	if err != nil {
		return err
	}
	requests, err := shape.Read(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	recorded := make([]policy.Recorded, history)
	for i := range recorded {
		r := requests[i%len(requests)]
		// Each has a resource of its own, as a history has.
		if r.Request.Resource.Type == "Path" {
			r.Request.Resource.ID += "." + strconv.Itoa(i)
		}
		d, err := active.Decide(ctx, &r.Request, &r.Inputs)
		if err != nil {
			return err
		}
		recorded[i] = policy.Recorded{ID: strconv.Itoa(i), Request: &r.Request, Inputs: &r.Inputs, Decision: d}
	}
	changed := 0
	wall, cpu, err := measure.Loop(2*time.Second, 1, func() error {
		changes, err := candidate.Replay(ctx, recorded)
		changed = len(changes)
		return err
	})
	if err != nil {
		return err
	}
	if changed == 0 {
		return fmt.Errorf("the candidate changes no decision: nothing was replayed")
	}
	r := measure.Result{Part: "replay", Case: "100,000 recorded requests, 1,001 policies", Who: "exeq", Unit: "ns",
		Note: fmt.Sprintf("The candidate changed %d of %d recorded decisions.", changed, history)}
	if err := out.Put(measure.Spread(r, wall)); err != nil {
		return err
	}
	r.Who = "CPU time"
	return out.Put(measure.Spread(r, cpu))
}
