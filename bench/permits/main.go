// Command permits measures permits with their record, in process: decide,
// sign, make decision and permit durable in the store, and be promised a place
// in the log.
//
//	permits [-quick] DIR
//
// A burst is what a store takes before anything is drained into the log; the
// sustained rate has the sequencer beside it and counts the time until the log
// is drained.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/bench/measure"
	"github.com/exeq/exeq/bench/standin"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
)

func main() {
	quick := flag.Bool("quick", false, "sustain for a few seconds only")
	only := flag.String("only", "", "measure only what has this in its name")
	profile := flag.String("cpuprofile", "", "write a profile to this file")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: permits [flags] DIR")
		os.Exit(2)
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "permits:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	long := time.Minute
	if *quick {
		long = 5 * time.Second
	}
	if err := all(flag.Arg(0), *only, long); err != nil {
		pprof.StopCPUProfile()
		fmt.Fprintln(os.Stderr, "permits:", err)
		os.Exit(1)
	}
}

func all(dir, only string, long time.Duration) error {
	out := measure.NewOut(os.Stdout)
	for _, c := range []struct {
		name     string
		callers  int
		duration time.Duration
		drain    bool
	}{
		{"1 caller", 1, 3 * time.Second, false},
		{"256 callers, burst", 256, 3 * time.Second, false},
		{"256 callers, sustained", 256, long, true},
	} {
		if !strings.Contains(c.name, only) {
			continue
		}
		if err := measured(out, filepath.Join(dir, fmt.Sprintf("state-%d-%v", c.callers, c.drain)), c.name, c.callers, c.duration, c.drain); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// permitter makes permits for one kind of request.
type permitter struct {
	inst   *standalone.Installation
	flow   *exeq.Governor
	set    *policy.Set
	rights *exeq.Rights
}

// newPermitter opens a new installation with a policy for an agent's tools.
func newPermitter(ctx context.Context, dir string) (*permitter, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	set, err := policy.Load(&policy.Source{Version: 1, Files: map[string]string{"bench.cedar": `
@id("search")
permit (principal, action == Exeq::Action::"call_tool", resource in Exeq::ToolServer::"docs");

@id("system-programs")
permit (principal, action in [Exeq::Action::"run", Exeq::Action::"exec", Exeq::Action::"read"], resource in Exeq::Path::"/usr");

@id("no-risk")
forbid (principal, action == Exeq::Action::"run", resource) when { context.risk > 80 };
`}})
	if err != nil {
		return nil, err
	}
	p := &permitter{set: set}
	if p.inst, err = standalone.Open(ctx, standalone.Options{Dir: dir}); err != nil {
		return nil, err
	}
	if p.flow, err = p.inst.Governor(standin.Enforcer{}); err != nil {
		return nil, err
	}
	r, in := request()
	d, err := set.Decide(ctx, r, in)
	if err != nil {
		return nil, err
	}
	p.rights, err = set.Compile(ctx, r, in, d)
	return p, err
}

func request() (*exeq.Request, *exeq.Inputs) {
	r := &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "reviewer"}, OnBehalfOf: []exeq.Entity{{Type: "User", ID: "someone"}},
		Action: "run", Resource: exeq.Resource{Type: "Program", ID: "/usr/bin/grep", SHA256: exeq.LeafHash([]byte("grep"))},
		Argv: []string{"grep", "-rn", "needle", "src"}, Dir: "/srv/work",
		Context: exeq.Context{Workspace: "/srv/work", Home: "/home/someone", Tmp: "/tmp/exeq-1", Command: "grep -rn needle src"},
	}
	return r, &exeq.Inputs{Tier: exeq.TierRootless, Time: exeq.At(time.Now())}
}

// one takes one request from decision to the promise, as exeq.Governor does.
func (p *permitter) one(ctx context.Context) error {
	id := exeq.NewID()
	r, in := request()
	d, err := p.set.Decide(ctx, r, in)
	if err != nil || !d.Verdict.Permits() {
		return fmt.Errorf("verdict %s: %w", d.Verdict, err)
	}
	permit, err := p.flow.Issuer.Issue(id, r, in, &d, p.rights, "")
	if err != nil {
		return err
	}
	leaf := exeq.Leaf{Kind: exeq.KindPermit, Execution: id, Actor: p.flow.Actor(r.Subject), Body: exeq.LeafBody{Verdict: d.Verdict, Policies: d.Policies}}
	e, err := exeq.NewEntry(leaf, permit.Private(&d), nil)
	if err != nil {
		return err
	}
	_, err = p.inst.Store.Record(ctx, e)
	return err
}

// measured has callers make permits for a while. A permit that the store
// refuses because the log lags is asked for again, and its wait counts.
func measured(out *measure.Out, dir, name string, callers int, d time.Duration, drain bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := newPermitter(ctx, dir)
	if err != nil {
		return err
	}
	defer p.inst.Close()
	sequenced := make(chan error, 1)
	if drain {
		go func() { sequenced <- p.inst.Store.Sequence(ctx) }()
	}
	var wg sync.WaitGroup
	var refused atomic.Int64
	var failed atomic.Pointer[error]
	waits := make([][]float64, callers)
	start, used := time.Now(), measure.ProcessTime()
	for i := range callers {
		wg.Go(func() {
			for time.Since(start) < d && failed.Load() == nil {
				asked := time.Now()
				for {
					err := p.one(ctx)
					if err == nil {
						break
					}
					if !errors.Is(err, exeq.ErrRecord) || time.Since(start) > 2*d {
						failed.Store(&err)
						return
					}
					refused.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
				waits[i] = append(waits[i], float64(time.Since(asked)))
			}
		})
	}
	wg.Wait()
	issued := time.Since(start)
	if err := failed.Load(); err != nil {
		return *err
	}
	note := ""
	if drain {
		if err := p.inst.Store.Drain(ctx); err != nil {
			return err
		}
		n, lag, err := p.inst.Store.Lag(ctx)
		if err != nil || n > 0 {
			return fmt.Errorf("after the drain %d leaves wait for %v: %w", n, lag, err)
		}
		note = fmt.Sprintf("Sustained for %.0f s with the sequencer in the same process; the log was drained %.1f s later, which is counted; %d times a permit was refused because the log lagged, and asked for again.",
			issued.Seconds(), (time.Since(start) - issued).Seconds(), refused.Load())
	}
	took, cpu := time.Since(start), measure.ProcessTime()-used
	cancel()
	if drain {
		<-sequenced
	}
	w := slices.Concat(waits...)
	slices.Sort(w)
	for _, r := range []measure.Result{
		{Who: "permits", Value: float64(len(w)) / took.Seconds(), Unit: "/s", Note: note},
		{Who: "p50", Value: measure.Quantile(w, 0.5), Unit: "ns"},
		{Who: "p99", Value: measure.Quantile(w, 0.99), Unit: "ns"},
		{Who: "longest", Value: w[len(w)-1], Unit: "ns"},
		{Who: "CPU time a permit", Value: float64(cpu) / float64(len(w)), Unit: "ns"},
	} {
		r.Part, r.Case = "permits", name
		if err := out.Put(r); err != nil {
			return err
		}
	}
	return nil
}
