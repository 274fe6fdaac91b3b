//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/nested"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
)

// observer permits everything and has every use put to it: under it nothing is
// granted beforehand, each right is granted and noted as it comes.
// A label on a write could not be set before the fact, so policy refuses it; a
// write is put to us all the same, once for each path.
const observer = `@id("observe")
permit (
  principal,
  action in [Exeq::Action::"run", Exeq::Action::"exec", Exeq::Action::"read", Exeq::Action::"connect"],
  resource
);

@id("observe-writes")
permit (principal, action == Exeq::Action::"write", resource);
`

// unconfined is what is to be known before learn is used.
const unconfined = `learn runs COMMAND nearly unconfined: it may read, write, start and reach what you
may. Kept from it are Exeq's own state, keys, policy and binary, and the addresses of
cloud metadata; what it does is on record. Learn from what you would run without Exeq.
`

func learn(ctx context.Context, c *call) int {
	var o runOptions
	var out string
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		o.define(fs)
		usage := fs.Usage
		fs.Usage = func() { usage(); fmt.Fprint(c.stderr, "\n"+unconfined) }
		fs.StringVar(&out, "o", "policy", "directory to write the policy to; must not exist")
	})
	if !ok {
		return status
	}
	if o.argv = fs.Args(); len(o.argv) == 0 {
		return c.misuse("no command given")
	}
	if nested.Inside() {
		return c.fail(fmt.Errorf("this is inside execution %s, which observes for nobody: learn outside of it", os.Getenv(exeq.ExecutionVariable)))
	}
	if _, err := os.Lstat(out); err == nil {
		return c.fail(fmt.Errorf("%s exists: name another directory with -o", out))
	}
	set, err := policy.Load(&policy.Source{Version: 1, Files: map[string]string{
		// The environment that the learned policy will give, so that the
		// command behaves as it will under it.
		"observe.cedar": observer, policy.SettingsFile: policy.Starter().Files[policy.SettingsFile],
	}})
	if err != nil {
		return c.fail(err)
	}
	fmt.Fprintln(c.stderr, "exeq: learn runs this nearly unconfined: it may do what you may, but for Exeq's own state and policy (exeq learn -h)")
	o.set, o.observe = set, true
	outcome, err := o.govern(ctx, c)
	if outcome == nil || outcome.State != exeq.Sealed {
		fmt.Fprintf(c.stderr, "exeq learn: %s\n", err)
		return exitOf(outcome, err)
	}
	if err := writeLearned(ctx, c, &o, outcome.ID, out); err != nil {
		return c.fail(err)
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "exeq: %s\n", err)
	}
	if outcome.Exit.Code != 0 {
		fmt.Fprintf(c.stderr, "exeq: the command failed (exit status %d): the policy allows what it did until then, and not what it would have done\n", outcome.Exit.Code)
	}
	return exitOf(outcome, err)
}

// writeLearned turns what was observed into a policy that passes its check.
func writeLearned(ctx context.Context, c *call, o *runOptions, id, out string) error {
	in, err := c.open(ctx, o.state)
	if err != nil {
		return err
	}
	defer in.Close()
	leaves, err := in.Store.Leaves(ctx, id)
	if err != nil {
		return err
	}
	d, err := standalone.DecisionOf(leaves)
	if err != nil {
		return err
	}
	entries, err := standalone.ActivitiesOf(leaves)
	if err != nil {
		return err
	}
	unreached := map[string]bool{}
	observed := make([]exeq.Activity, 0, len(entries))
	for _, e := range entries {
		if !e.Verdict.Permits() {
			continue
		}
		if _, ok := o.reached.Load(e.Activity.Resource.ID); e.Activity.Action == exeq.ActionConnect && !ok {
			unreached[e.Activity.Resource.ID] = true
			continue
		}
		observed = append(observed, e.Activity)
	}
	for _, endpoint := range slices.Sorted(keys(unreached)) {
		fmt.Fprintf(c.stderr, "exeq: %s was asked for and not reached: the policy does not allow it\n", exeq.Readable(endpoint))
	}
	src, err := policy.Learn(observed, d.Request)
	if err != nil {
		return err
	}
	if _, err := policy.Load(src); err != nil {
		return err
	}
	if err := src.WriteDir(out); err != nil { // over nothing that the command left there
		return err
	}
	for _, g := range policy.Guarded(observed, d.Request) {
		fmt.Fprintf(c.stderr, "exeq: the run %s; the starter policy (%s) would not let it, and the learned one does: take it out unless it is meant\n", g.What, g.Policy)
	}
	fmt.Fprintf(c.stderr, "exeq: %d activities seen; policy in %s: read it, then exeq run --policy %s -- …\n", len(observed), out, out)
	return nil
}
