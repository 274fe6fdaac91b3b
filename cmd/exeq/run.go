//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/adapter/egress"
	"github.com/exeq/exeq/client"
	"github.com/exeq/exeq/enforce"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/nested"
	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
)

// runOptions are the flags of run, which learn shares.
type runOptions struct {
	who    standalone.Who
	state  string
	policy string
	tier   string
	proof  string
	json   bool
	url    string         // of a server that decides; empty: this installation does
	server *client.Client // nil beside an empty url
	argv   []string
	// set and observe are learn's: grant what the command does, and note it.
	set     *policy.Set
	observe bool
	reached sync.Map // host:port that a connection was made to, for learn
}

func run(ctx context.Context, c *call) int {
	var o runOptions
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		o.define(fs)
		fs.StringVar(&o.policy, "policy", "", "policy directory or file; default: the state's own")
		fs.StringVar(&o.url, "server", os.Getenv(serverVariable), "https URL of the server that decides, records and renews; default: this installation")
		fs.StringVar(&o.proof, "proof", "", "wait for the log and write the proof to this file")
	})
	if !ok {
		return status
	}
	if o.argv = fs.Args(); len(o.argv) == 0 {
		return c.misuse("no command given")
	}
	if nested.Inside() {
		return o.nest(c)
	}
	go keyring.Warm()
	var out *exeq.Outcome
	err := roomToWork()
	if err == nil {
		out, err = o.govern(ctx, c)
	}
	if o.json {
		printJSON(c.stderr, jsonOutcome(out, err))
	} else if err != nil {
		fmt.Fprintf(c.stderr, "exeq: %s\n", err)
	}
	return exitOf(out, err)
}

func (o *runOptions) define(fs *flag.FlagSet) {
	fs.StringVar(&o.who.Agent, "agent", "", "name of the agent that acts (default local)")
	fs.StringVar(&o.who.Intent, "intent", "", "what the caller says it wants; recorded as claimed")
	fs.StringVar(&o.state, "state", "", "state directory")
	fs.StringVar(&o.tier, "tier", "auto", "auto, kernel, kernel-lite, rootless or nested")
	fs.BoolVar(&o.json, "json", false, "report the outcome as JSON on stderr")
}

// govern takes the command through the flow. The mount agent is cloned before
// anything else, so that no key is ever in a child's memory.
func (o *runOptions) govern(ctx context.Context, c *call) (*exeq.Outcome, error) {
	enforcer, node, err := o.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	defer enforcer.Close()
	dir, err := stateDir(o.state)
	if err != nil {
		return nil, err
	}
	if err := o.reach(); err != nil {
		return nil, err
	}
	var proofTo *osfile.Output
	if o.proof != "" {
		if proofTo, err = osfile.NewOutput(o.proof); err != nil {
			return nil, fmt.Errorf("the proof %w", err)
		}
		defer proofTo.Close()
	}
	at, cleanup, err := standalone.NewPlace()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := cleanup(); err != nil {
			fmt.Fprintf(c.stderr, "exeq: %s\n", exeq.Readable(exeq.EncodeBytes(err.Error())))
		}
	}()
	seen := at.Look()
	// What a run needs before its command starts is soon garbage, and collecting
	// it then costs as much as making it. Later memory counts again.
	percent := debug.SetGCPercent(400)
	defer time.AfterFunc(exeq.DefaultTick, func() { debug.SetGCPercent(percent) }).Stop()
	program, inst, err := o.open(ctx, c, dir, at)
	if err != nil {
		return nil, err
	}
	defer program.File.Close()
	left := false
	defer func() {
		if !left {
			inst.Close()
		}
	}()
	drainer := func(start func(context.Context) error) error {
		// Whoever drains must not have the priority of who holds a lease.
		return enforcer.AsBefore(func() error { return start(ctx) })
	}
	// A run longer than the log may lag has its leaves drained meanwhile.
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go inst.Store.WhenBehind(watching, func(context.Context) error { return drainer(inst.LeaveDrainer) })

	hidden, unseen := inst.Hidden()
	for _, p := range hidden {
		if within(at.Workspace, p) {
			return nil, fmt.Errorf("the working directory lies in %s, which is hidden from what runs: run this elsewhere", p)
		}
	}
	if node != nil {
		hidden = append(hidden, nodeSocket())
	}
	launch := &exeq.Launch{
		Request: standalone.Request(o.who, at, program.Path, program.SHA256, o.argv),
		Program: program.File, Argv: o.argv, Env: at.Environ(os.Environ()), Dir: at.Workspace,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Hidden: hidden, Scratch: inst.Scratch(), Observe: o.observe,
	}
	children := newChildren(ctx, inst)
	o.giveEgress(ctx, c, launch, inst.Log, children)
	back := &lookingBack{Enforcer: enforcer, live: children.open, workspace: at.Workspace, before: seen}
	governor, err := o.governor(ctx, inst, back, node)
	if err != nil {
		return nil, err
	}
	governor.Within = inst.Protect(seen)
	if unseen != nil { // a policy that cannot be read is a denial, on record like others
		governor.Within = func(*exeq.Rights) (*exeq.Rights, error) { return nil, unseen }
	}
	out, err := governor.Run(ctx, launch, exeq.Inputs{Tier: enforcer.Tier()}, "")
	children.wait()
	back.tell(c.stderr)
	if proofTo != nil && out != nil && (out.State == exeq.Sealed || out.State == exeq.Denied) { // a denial has a proof, too
		switch perr := o.writeProof(ctx, inst, out.ID, proofTo); {
		case perr != nil && err == nil:
			err = &unproved{perr}
		case perr != nil:
			err = errors.Join(err, perr)
		}
	}
	if out != nil && out.State == exeq.Sealed {
		if out.Exit.Code != 0 && o.server == nil {
			if hint := unseenRepository(at.Workspace, launch.Rights); hint != "" && ranGit(ctx, inst, o, out.ID) {
				fmt.Fprintf(c.stderr, "exeq: %s\n", hint)
			}
		}
		o.tell(c, inst, out, err)
	}
	left = true
	if lerr := drainer(inst.Leave); lerr != nil {
		inst.Log.Warn("no drainer: the next start drains", "err", lerr)
	}
	return out, err
}

// open looks the program up while it opens the installation.
func (o *runOptions) open(ctx context.Context, c *call, dir string, at standalone.Place) (program *programs.Command, inst *standalone.Installation, err error) {
	var notFound error
	var looked sync.WaitGroup
	looked.Go(func() {
		program, notFound = programs.LookPath(o.argv[0], os.Getenv("PATH"), at.Workspace, enforce.StoreDir(standalone.Scratch(dir)))
	})
	inst, err = standalone.Open(ctx, standalone.Options{Log: c.log(), Dir: dir, Policy: o.policy, Set: o.set, Ahead: o.server == nil, Say: func(line string) {
		fmt.Fprintf(c.stderr, "exeq: %s\n", line)
	}})
	looked.Wait()
	switch {
	case err != nil && notFound == nil:
		program.File.Close()
	case err == nil && notFound != nil:
		inst.Close()
	}
	if err = cmp.Or(notFound, err); err != nil {
		return nil, nil, err
	}
	return program, inst, nil
}

// giveEgress gives the execution its only way out.
func (o *runOptions) giveEgress(ctx context.Context, c *call, l *exeq.Launch, log *slog.Logger, inside *children) {
	var proxy atomic.Pointer[egress.Proxy]
	l.Egress = func(from net.Listener) {
		config := egress.Config{Gate: l.Gate, Rights: l.Rights, Observe: o.observe, Logger: log,
			Say:     func(line string) { fmt.Fprintln(c.stderr, line) },
			Reached: func(endpoint string) { o.reached.Store(endpoint, true) },
		}
		if o.server == nil { // which is not asked about nested runs: there are none under it
			config.InsideHost, config.Inside, config.Bound = nested.Host, inside.serve, inside.bound
		}
		p := egress.New(config)
		proxy.Store(p)
		p.Serve(from)
	}
	l.Recheck = func() {
		if p := proxy.Load(); p != nil {
			p.Recheck(ctx)
		}
	}
	l.BytesOut = func() int64 {
		if p := proxy.Load(); p != nil {
			return p.BytesOut()
		}
		return 0
	}
}

// tell says where the proof is, when somebody looks or it is the first time.
func (o *runOptions) tell(c *call, inst *standalone.Installation, out *exeq.Outcome, err error) {
	if o.server != nil || o.json || !inst.Created && !term.IsTerminal(int(os.Stderr.Fd())) {
		return
	}
	where := "exeq proof " + out.ID
	if o.proof != "" && err == nil {
		where = o.proof
	}
	hint := ""
	if out.Exit.Code != 0 { // what the kernel refuses says nothing by itself
		hint = fmt.Sprintf("; a file that could not be opened: exeq why %s read PATH", out.ID)
	}
	fmt.Fprintf(c.stderr, "exeq: %s sealed; proof: %s%s\n", out.ID, where, hint)
}

// jsonOutcome is the stable schema of run --json.
func jsonOutcome(out *exeq.Outcome, err error) any {
	v := struct {
		Execution string         `json:"execution,omitempty"`
		State     exeq.State     `json:"state"`
		Decision  *exeq.Decision `json:"decision,omitempty"`
		Code      string         `json:"code,omitempty"`
		Exit      *exeq.Exit     `json:"exit,omitempty"`
		Error     string         `json:"error,omitempty"`
		Status    int            `json:"status"`
	}{State: exeq.Failed, Status: exitOf(out, err)}
	if out != nil {
		v.Execution, v.State, v.Code = out.ID, out.State, out.Code
		if out.Decision.Verdict != "" {
			v.Decision = &out.Decision
		}
		if out.State == exeq.Sealed {
			v.Exit = &out.Exit
		}
	}
	if err != nil {
		v.Error = strings.TrimSpace(err.Error())
	}
	return v
}
