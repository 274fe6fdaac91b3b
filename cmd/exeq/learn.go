//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/exeq/exeq"
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

func learn(ctx context.Context, c *call) int {
	var o runOptions
	var out string
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		o.define(fs)
		fs.StringVar(&out, "o", "policy", "directory to write the policy to; must not exist")
	})
	if !ok {
		return status
	}
	if o.argv = fs.Args(); len(o.argv) == 0 {
		return c.misuse("no command given")
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
	o.set, o.observe = set, true
	outcome, err := o.govern(ctx, c)
	if outcome == nil || outcome.State != exeq.Sealed {
		fmt.Fprintf(c.stderr, "exeq learn: %s\n", err)
		return exitOf(outcome, err)
	}
	if err := writeLearned(ctx, c, &o, outcome.ID, out); err != nil {
		return c.fail(err)
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
	observed := make([]exeq.Activity, 0, len(entries))
	for _, e := range entries {
		if e.Verdict.Permits() {
			observed = append(observed, e.Activity)
		}
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
