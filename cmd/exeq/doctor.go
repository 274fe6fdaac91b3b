//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/probe"
)

// doctor says what this machine can enforce, what it cannot, what to do, and
// where the honest limits are.
func doctor(ctx context.Context, c *call) int {
	var asJSON bool
	var state string
	_, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.BoolVar(&asJSON, "json", false, "print JSON")
		fs.StringVar(&state, "state", "", "state directory")
	})
	if !ok {
		return status
	}
	dir, err := stateDir(state)
	if err != nil {
		return c.fail(err)
	}
	if _, err := os.Stat(dir); err != nil {
		dir = os.TempDir() // nothing is made only to look
	}
	if id := os.Getenv(exeq.ExecutionVariable); id != "" {
		fmt.Fprintf(c.stderr, "exeq doctor: this is inside execution %s: what follows is what is left to it, and says nothing about the machine\n", id)
	}
	facts := probe.Full(probe.Options{Scratch: dir})
	tier, why := probe.BestTier(facts)
	if node, err := askNode(ctx); err == nil && tier == exeq.TierRootless {
		tier, why = node.Tier(), nil
		if node.Above() != "" {
			why = []string{"kernel: exeq-node gives " + tier.String() + "; " + node.Above()}
		}
	} else if err != nil {
		for i, line := range why {
			if strings.HasPrefix(line, "kernel-lite: ") {
				why[i] = "kernel-lite: " + err.Error()
			}
		}
	}
	limits := probe.Limits()
	if asJSON {
		printJSON(c.stdout, struct {
			Tier   string        `json:"tier"`
			Above  []string      `json:"above,omitempty"`
			Facts  probe.Facts   `json:"facts"`
			Limits []probe.Limit `json:"limits"`
		}{tier.String(), why, facts, limits})
		return 0
	}
	fmt.Fprintf(c.stdout, "tier  %s\n", tier)
	for _, line := range why {
		fmt.Fprintf(c.stdout, "      not %s\n", line)
	}
	fmt.Fprintln(c.stdout)
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	for _, f := range facts.List {
		mark := "yes"
		if !f.OK {
			mark = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, f.Name, f.Detail)
		if f.Do != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", f.Do)
		}
	}
	w.Flush()
	fmt.Fprintf(c.stdout, "\nLimits of tier %s, whatever the policy:\n", tier)
	for _, l := range limits {
		if slices.Contains(l.Tiers, tier) {
			fmt.Fprintf(c.stdout, "  %s\n    %s\n    %s\n", l.ID, l.What, l.Instead)
		}
	}
	return 0
}
