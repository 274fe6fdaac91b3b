package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/record"
)

// open opens the installation for a command that looks or revokes.
func (c *call) open(ctx context.Context, state string) (*standalone.Installation, error) {
	return c.inherit(ctx, state, nil)
}

// inherit is open for a command that another process left the store to.
func (c *call) inherit(ctx context.Context, state string, inherited *os.File) (*standalone.Installation, error) {
	dir, err := stateDir(state)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("there is no state in %s: nothing was governed yet (exeq run -- COMMAND), or name it with --state", dir)
	}
	return standalone.Open(ctx, standalone.Options{Dir: dir, Inherited: inherited, Log: c.log(), Say: func(line string) { fmt.Fprintf(c.stderr, "exeq: %s\n", line) }})
}

// query parses the flags that every looking command has and opens the state.
func (c *call) query(ctx context.Context, more func(*flag.FlagSet)) (in *standalone.Installation, fs *flag.FlagSet, asJSON bool, status int) {
	var state string
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&state, "state", "", "state directory")
		fs.BoolVar(&asJSON, "json", false, "print JSON")
		if more != nil {
			more(fs)
		}
	})
	if !ok {
		return nil, fs, asJSON, status
	}
	in, err := c.open(ctx, state)
	if err != nil {
		if id := os.Getenv(exeq.ExecutionVariable); id != "" {
			err = fmt.Errorf("%w (this is inside execution %s, from which its supervisor's state is out of reach)", err, id)
		}
		return nil, fs, asJSON, c.fail(err)
	}
	return in, fs, asJSON, 0
}

func ps(ctx context.Context, c *call) int {
	var all bool
	in, _, asJSON, status := c.query(ctx, func(fs *flag.FlagSet) {
		fs.BoolVar(&all, "all", false, "those that ended too")
	})
	if in == nil {
		return status
	}
	defer in.Close()
	list, err := in.Store.Running(ctx)
	if all {
		list, err = in.Store.Executions(ctx, 0)
	}
	if err != nil {
		return c.fail(err)
	}
	if asJSON {
		rows := make([]execution, len(list))
		for i, s := range list {
			rows[i] = summarise(ctx, in, s)
		}
		printJSON(c.stdout, rows)
		return 0
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "EXECUTION\tSTATE\tPID\tSTARTED\tAGENT\tCOMMAND")
	for _, s := range list {
		e := summarise(ctx, in, s)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, e.shown(), dash(e.PID), e.Started, exeq.Readable(e.Agent), clip(e.Command, 60))
	}
	w.Flush()
	return 0
}

// execution is the stable schema of ps and lineage.
type execution struct {
	ID      string     `json:"execution"`
	Parent  string     `json:"parent,omitempty"`
	State   exeq.State `json:"state"`
	Code    string     `json:"code,omitempty"`
	PID     int        `json:"pid,omitempty"`
	Started string     `json:"started,omitempty"`
	Ended   string     `json:"ended,omitempty"`
	Agent   string     `json:"agent,omitempty"`
	User    string     `json:"user,omitempty"`
	Command string     `json:"command,omitempty"`
}

// shown is how it stands with an execution in a word: an end that was not the
// command's own is not the same as one that was. In JSON that is the code.
func (e *execution) shown() string {
	switch {
	case e.State != exeq.Sealed || e.Code == "" || e.Code == "exited":
		return string(e.State)
	case e.Code == "policy", e.Code == "appraisal":
		return "revoked"
	}
	return e.Code
}

func summarise(ctx context.Context, in *standalone.Installation, s record.Summary) execution {
	e := execution{ID: s.ID, Parent: s.Parent, State: s.State, Code: s.Code, PID: s.PID, Started: stamp(s.Started), Ended: stamp(s.Ended)}
	if leaves, err := in.Store.Leaves(ctx, s.ID); err == nil && len(leaves) > 0 {
		if d, err := standalone.DecisionOf(leaves); err == nil {
			e.Agent, e.Command = d.Request.Subject.ID, d.Request.Context.Command
			if len(d.Request.OnBehalfOf) > 0 {
				e.User = d.Request.OnBehalfOf[len(d.Request.OnBehalfOf)-1].ID
			}
		}
	}
	return e
}

func logLeaves(ctx context.Context, c *call) int {
	var follow bool
	in, fs, asJSON, status := c.query(ctx, func(fs *flag.FlagSet) {
		fs.BoolVar(&follow, "follow", false, "go on with what is recorded from now")
	})
	if in == nil {
		return status
	}
	defer in.Close()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	only := fs.Arg(0)
	if only != "" {
		leaves, err := in.Store.Leaves(ctx, only)
		if err == nil && len(leaves) == 0 {
			err = fmt.Errorf("there is no execution %s; exeq ps --all lists them", only)
		}
		if err != nil {
			return c.fail(err)
		}
	}
	var after int64
	for {
		leaves, err := in.Store.Follow(ctx, after, 1000)
		if err != nil {
			return c.fail(err)
		}
		for _, l := range leaves {
			after = l.Row
			if only != "" && l.Leaf.Execution != only {
				continue
			}
			if asJSON {
				fmt.Fprintf(c.stdout, "{\"index\":%d,\"leaf\":%s}\n", l.Index, l.Bytes)
			} else {
				fmt.Fprintln(c.stdout, describe(&l))
			}
		}
		if c.stdout.err != nil {
			return 0 // see delivered
		}
		if len(leaves) > 0 {
			continue
		}
		if !follow {
			return 0
		}
		if err := in.Store.Wait(ctx, after); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			return c.fail(err)
		}
	}
}

// describe is one line for a person.
func describe(s *record.Stored) string {
	l, b := &s.Leaf, &s.Leaf.Body
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if b.Verdict != "" {
		add("%s", b.Verdict)
	}
	if b.Code != "" {
		add("%s", b.Code)
	}
	if len(b.Policies) > 0 {
		add("by %s", strings.Join(b.Policies, ","))
	}
	if len(b.Needs) > 0 {
		add("needs %s", strings.Join(b.Needs, ","))
	}
	switch l.Kind {
	case exeq.KindStart:
		add("tier %s, Landlock %d", b.Tier, b.LandlockABI)
	case exeq.KindActivity:
		for _, class := range slices.Sorted(keys(b.Counts)) {
			add("%s×%d", class, b.Counts[class])
		}
	case exeq.KindAppraisal:
		add("ticks %d–%d passed", b.FirstTick, b.LastTick)
		if len(b.Failed) > 0 {
			add("but %s", strings.Join(b.Failed, "; "))
		}
	case exeq.KindKey:
		add("%s %s", b.Event, b.Role)
	case exeq.KindPolicy, exeq.KindScope:
		add("%s", b.Event)
	}
	index := "waiting"
	if s.Index >= 0 {
		index = fmt.Sprint(s.Index)
	}
	return fmt.Sprintf("%s %7s %-9s %s  %s", l.Time, index, l.Kind, l.Execution, strings.Join(words, " "))
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func lineage(ctx context.Context, c *call) int {
	in, fs, asJSON, status := c.query(ctx, nil)
	if in == nil {
		return status
	}
	defer in.Close()
	list, err := in.Store.Executions(ctx, 0)
	if err != nil {
		return c.fail(err)
	}
	children := map[string][]record.Summary{}
	known := map[string]bool{}
	for _, s := range list {
		known[s.ID] = true
	}
	for _, s := range slices.Backward(list) { // oldest first
		parent := s.Parent
		if !known[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}
	roots := children[""]
	if id := fs.Arg(0); id != "" {
		i := slices.IndexFunc(list, func(s record.Summary) bool { return s.ID == id })
		if i < 0 {
			return c.fail(fmt.Errorf("there is no execution %s; exeq ps --all lists them", id))
		}
		roots = list[i : i+1]
	}
	var rows []execution
	var walk func(s record.Summary, depth int)
	walk = func(s record.Summary, depth int) {
		e := summarise(ctx, in, s)
		if rows = append(rows, e); !asJSON {
			who := ""
			if depth == 0 {
				who = e.User + " → "
			}
			fmt.Fprintf(c.stdout, "%s%s%s  %s  %s  %s\n", strings.Repeat("  ", depth), who, exeq.Readable(e.Agent), e.ID, e.shown(), clip(e.Command, 60))
		}
		for _, child := range children[s.ID] {
			walk(child, depth+1)
		}
	}
	for _, s := range roots {
		walk(s, 0)
	}
	if asJSON {
		printJSON(c.stdout, rows)
	}
	return 0
}

func revoke(ctx context.Context, c *call) int {
	var reason string
	in, fs, asJSON, status := c.query(ctx, func(fs *flag.FlagSet) {
		fs.StringVar(&reason, "reason", "revoked by a person", "why; goes on record")
	})
	if in == nil {
		return status
	}
	defer in.Close()
	if fs.NArg() != 1 {
		return c.misuse("want one execution")
	}
	id := fs.Arg(0)
	running := func() (bool, error) {
		list, err := in.Store.Running(ctx)
		return slices.ContainsFunc(list, func(s record.Summary) bool { return s.ID == id }), err
	}
	live, err := running()
	if err != nil {
		return c.fail(err)
	}
	if !live {
		return c.fail(fmt.Errorf("execution %s does not run; exeq ps lists those that do", id))
	}
	signed, err := in.Revoke(ctx, id, reason)
	if err != nil {
		return c.fail(err)
	}
	node := revokeAtNode(ctx, signed)
	deadline := time.Now().Add(exeq.DefaultLease + 2*time.Second)
	for live && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		if live, err = running(); err == nil && live {
			err = in.Wake(ctx, id)
		}
		if err != nil {
			return c.fail(err)
		}
	}
	dead := !live
	if live {
		select { // an execution that the node does not hold is its supervisor's alone
		case err := <-node:
			dead = err == nil
		default:
		}
	}
	if asJSON {
		printJSON(c.stdout, map[string]any{"execution": id, "ended": dead, "recorded": !live})
	}
	switch {
	case live && dead:
		fmt.Fprintf(c.stderr, "exeq revoke: the node ended execution %s, nothing of it is alive; its supervisor stands still, so its end is not on record yet\n", id)
	case live:
		return c.fail(fmt.Errorf("execution %s is revoked and its end is not on record yet; without a renewal it dies with its lease", id))
	}
	return 0
}

func stamp(t exeq.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.String()
}

func dash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// clip is an encoded command for a person, on one line.
func clip(s string, n int) string {
	s = exeq.Readable(s)
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
