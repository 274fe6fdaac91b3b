//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
)

// scopeCommand declares, lists and lifts mandatory scopes of the node, and tells
// what it saw in them. Whatever the act, what people opened meanwhile is put on
// record first.
func scopeCommand(ctx context.Context, c *call) int {
	acts := map[string]func(*scopeCall, context.Context) error{
		"declare": (*scopeCall).declare, "lift": (*scopeCall).lift, "list": (*scopeCall).list, "report": (*scopeCall).report}
	if len(c.argv) == 0 || acts[c.argv[0]] == nil {
		if len(c.argv) > 0 && slices.Contains([]string{"-h", "--help", "-help"}, c.argv[0]) {
			fmt.Fprintf(c.stdout, "usage: exeq scope %s\nexeq scope declare -h tells the flags.\n", c.args)
			return 0
		}
		return c.misuse("want declare, lift, list or report")
	}
	act := c.argv[0]
	c.argv = c.argv[1:]
	s := &scopeCall{call: c}
	fs, status, ok := c.flags(s.define)
	if !ok {
		return status
	}
	if (act == "list") != (fs.NArg() == 0) {
		return c.misuse("%s takes one scope: uid:NUMBER, cgroup:/PATH or host", act)
	}
	err := s.open(ctx)
	if err == nil && act != "list" {
		s.scope, err = parseScope(fs.Arg(0))
	}
	if err == nil {
		err = acts[act](s, ctx)
	}
	if s.in != nil {
		err = errors.Join(err, s.in.LeaveDrainer(ctx), s.in.Close())
	}
	switch {
	case errors.Is(err, exeq.ErrDenied):
		c.fail(err)
		return exitDenied
	case err != nil:
		return c.fail(err)
	}
	return 0
}

type scopeCall struct {
	*call
	state, policy, agent, mode, people string
	most, rehearsal                    time.Duration
	without, asJSON                    bool

	in    *standalone.Installation
	node  *client.Scopes
	scope exeq.Scope
}

func (s *scopeCall) define(fs *flag.FlagSet) {
	fs.StringVar(&s.state, "state", "", "state directory")
	fs.BoolVar(&s.asJSON, "json", false, "print JSON")
	fs.StringVar(&s.policy, "policy", "", "policy directory or file; default: the state's own")
	fs.StringVar(&s.agent, "agent", "machine", "agent that the machine lives as: what policy lets it execute, executes without a permit")
	fs.StringVar(&s.mode, "mode", string(exeq.ScopeRehearse), "rehearse or enforce")
	fs.StringVar(&s.people, "break-glass", "", "users who may open the scope, by number, with commas")
	fs.DurationVar(&s.most, "break-glass-max", 30*time.Minute, "for how long at most")
	fs.DurationVar(&s.rehearsal, "rehearsal", exeq.DefaultRehearsal, "how long the host is rehearsed before it is enforced")
	fs.BoolVar(&s.without, "without-rehearsal", false, "enforce the host without (the statement says so)")
}

// open opens the installation and finds the node, and records what was opened.
func (s *scopeCall) open(ctx context.Context) error {
	dir, err := stateDir(s.state)
	if err != nil {
		return err
	}
	if s.node, err = client.DialScopes(ctx, nodeSocket()); err != nil {
		return fmt.Errorf("%w (exeq-node at %s; %s names another)", err, nodeSocket(), wire.Variable)
	}
	if s.in, err = standalone.Open(ctx, standalone.Options{Dir: dir, Policy: s.policy, Log: s.log(), Say: func(line string) { fmt.Fprintf(s.stderr, "exeq: %s\n", line) }}); err != nil {
		return err
	}
	after := s.in.LastOpening(ctx, s.node.Node())
	for {
		opened, err := s.node.Openings(ctx, after)
		if err != nil || len(opened) == 0 {
			return err
		}
		for i := range opened {
			if err := s.in.RecordOpening(ctx, s.node.PublicKey(), &opened[i]); err != nil {
				return err
			}
			o := &opened[i]
			fmt.Fprintf(s.stderr, "exeq: on record: user %d opened %s at %s for %s: %s\n", o.UID, o.Scope, o.Time, time.Duration(o.Millis)*time.Millisecond, exeq.Readable(o.Reason))
		}
		after = opened[len(opened)-1].ID
		if err := s.in.SetLastOpening(ctx, s.node.Node(), after); err != nil {
			return err
		}
	}
}

// parseScope reads a scope as String writes it.
func parseScope(text string) (exeq.Scope, error) {
	kind, subject, _ := strings.Cut(text, ":")
	s := exeq.Scope{Kind: kind, Subject: exeq.EncodeBytes(subject)}
	return s, s.Validate()
}

func (s *scopeCall) declare(ctx context.Context) error {
	body := exeq.ScopeBody{Scope: s.scope, Mode: exeq.ScopeMode(s.mode)}
	if s.people != "" {
		body.BreakGlass = &exeq.BreakGlass{MaxMillis: s.most.Milliseconds()}
		for t := range strings.SplitSeq(s.people, ",") {
			uid, err := strconv.Atoi(t)
			if err != nil {
				return fmt.Errorf("break-glass: %q is no number", t)
			}
			body.BreakGlass.UIDs = append(body.BreakGlass.UIDs, uid)
		}
		slices.Sort(body.BreakGlass.UIDs)
	}
	if s.scope.Kind == exeq.ScopeHost && body.Mode == exeq.ScopeEnforce {
		if body.WithoutRehearsal = s.without; !s.without {
			r, err := s.node.Report(ctx, s.scope)
			if err != nil {
				return fmt.Errorf("the host is enforced by the report of its rehearsal: %w", err)
			}
			if body.Rehearsal, err = s.in.RecordReport(ctx, s.node.PublicKey(), r); err != nil {
				return err
			}
			body.RehearsalMillis = s.rehearsal.Milliseconds()
		}
	}
	return s.act(ctx, body)
}

func (s *scopeCall) lift(ctx context.Context) error {
	return s.act(ctx, exeq.ScopeBody{Scope: s.scope, Mode: exeq.ScopeLift})
}

// act decides, records, and hands over.
func (s *scopeCall) act(ctx context.Context, body exeq.ScopeBody) error {
	own, err := standalone.OwnProgram()
	if err != nil {
		return err
	}
	body.Node = s.node.Node()
	d, err := s.in.Declare(ctx, standalone.Declaration{Agent: s.agent, Program: own, Body: body,
		Argv: []string{"exeq", "scope", string(body.Mode), s.scope.String()}})
	if err != nil {
		return err
	}
	if err := s.node.Declare(ctx, d.Envelope, d.Record); err != nil {
		return fmt.Errorf("the statement is on record, and the node did not take it: %w", err)
	}
	if s.asJSON {
		printJSON(s.stdout, d.Body)
		return nil
	}
	for _, left := range d.Left {
		fmt.Fprintf(s.stderr, "exeq: not part of the machine's life: %s\n", exeq.Readable(left))
	}
	switch body.Mode {
	case exeq.ScopeLift:
		fmt.Fprintf(s.stdout, "%s is lifted\n", s.scope)
	case exeq.ScopeEnforce:
		fmt.Fprintf(s.stdout, "%s: nothing executes without a permit but %d programs and what is below %d directories\n", s.scope, len(d.Body.Programs), len(d.Body.Trees))
	default:
		fmt.Fprintf(s.stdout, "%s is rehearsed: exeq scope report %[1]s says what would be denied\n", s.scope)
	}
	return nil
}

func (s *scopeCall) list(ctx context.Context) error {
	list, err := s.node.List(ctx)
	if err != nil {
		return err
	}
	if s.asJSON {
		printJSON(s.stdout, list)
		return nil
	}
	return printScopes(s.stdout, list)
}

func printScopes(to io.Writer, list []wire.HeldScope) error {
	w := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SCOPE\tMODE\tSERIAL\tISSUER\tOPEN\tDENIED\tWOULD\tOPENED\tREHEARSED")
	for _, h := range list {
		open := "-"
		if h.OpenMillis > 0 {
			open = (time.Duration(h.OpenMillis) * time.Millisecond).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.12s\t%s\t%d\t%d\t%d\t%s\n", h.Scope, h.Mode, h.Serial, h.Issuer, open, h.Denied, h.Would, h.Opened,
			(time.Duration(h.RehearsedMillis) * time.Millisecond).Round(time.Second))
		for _, f := range h.Faults {
			fmt.Fprintf(w, "  %s\n", exeq.Readable(f))
		}
	}
	return w.Flush()
}

// report prints what the node saw, and puts it on record.
func (s *scopeCall) report(ctx context.Context) error {
	r, err := s.node.Report(ctx, s.scope)
	if err != nil {
		return err
	}
	if _, err := s.in.RecordReport(ctx, s.node.PublicKey(), r); err != nil {
		return err
	}
	if s.asJSON {
		printJSON(s.stdout, r)
		return nil
	}
	fmt.Fprintf(s.stdout, "%s (%s) since %s, rehearsed for %s\n", r.Scope, r.Mode, r.Since, (time.Duration(r.RehearsedMillis) * time.Millisecond).Round(time.Second))
	w := tabwriter.NewWriter(s.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "COUNT\tVERDICT\tUID\tPROGRAM\tSHA-256\tSTARTED BY\tFIRST\tLAST")
	for _, a := range r.Attempts {
		program, sum := a.Path, "unknown"
		if program == "" {
			program = "as named: " + a.Name
		}
		if !a.SHA256.IsZero() {
			sum = a.SHA256.String()[:12]
		}
		fmt.Fprintf(w, "%d\t%s (%s)\t%d\t%s\t%s\t%s\t%s\t%s\n", a.Count, a.Verdict, a.Why, a.UID, exeq.Readable(program), sum, exeq.Readable(a.Starter), a.First, a.Last)
	}
	w.Flush()
	if r.More > 0 || r.Missed > 0 || r.Unmarked > 0 {
		fmt.Fprintf(s.stdout, "not told apart: %d; lost before they were read: %d; processes whose descent is not held: %d\n", r.More, r.Missed, r.Unmarked)
	}
	for _, l := range r.Lacking {
		fmt.Fprintf(s.stdout, "it does not live by %s\n", exeq.Readable(l))
	}
	return nil
}
