package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"

	"github.com/exeq/exeq/proof/monitor"
)

// monitorLog walks a whole log: what absence alone can show.
func monitorLog(ctx context.Context, c *call) int {
	var trustFile, state string
	var asJSON bool
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&trustFile, "trust", "", "trust file; default: what the state directory's owner trusts")
		fs.StringVar(&state, "state", "", "state directory, where no log or trust file is named")
		fs.BoolVar(&asJSON, "json", false, "print JSON")
	})
	if !ok {
		return status
	}
	t, err := c.trustFor(trustFile, state)
	if err != nil {
		return c.fail(err)
	}
	at := fs.Arg(0)
	if at == "" {
		dir, err := stateDir(state)
		if err != nil {
			return c.fail(err)
		}
		at = filepath.Join(dir, "log")
	}
	report, err := monitor.Walk(ctx, at, t)
	if err != nil {
		fmt.Fprintf(c.stderr, "exeq monitor: cannot tell: %s\n", err)
		return exitUsage
	}
	if asJSON {
		printJSON(c.stdout, report)
	} else {
		fmt.Fprint(c.stdout, report.Text())
	}
	return report.Exit()
}
