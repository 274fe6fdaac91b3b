package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/proof"
	"github.com/exeq/exeq/proof/monitor"
)

// monitorLog walks a whole log for what no single proof can show. With --seen
// it remembers the checkpoint that it walked, and finds a log that forked since.
func monitorLog(ctx context.Context, c *call) int {
	var trustFile, state, seen string
	var asJSON bool
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&trustFile, "trust", "", "trust file; default: what the state directory's owner trusts")
		fs.StringVar(&state, "state", "", "state directory, where no log or trust file is named")
		fs.StringVar(&seen, "seen", "", "file with the checkpoint that was walked last; written when all is well")
		fs.BoolVar(&asJSON, "json", false, "print JSON")
	})
	if !ok {
		return status
	}
	cannotTell := func(err error) int {
		fmt.Fprintf(c.stderr, "exeq monitor: cannot tell: %s\n", err)
		return exitUsage
	}
	config, err := c.monitorConfig(ctx, fs.Arg(0), trustFile, state, seen)
	if err != nil {
		return cannotTell(err)
	}
	var file *osfile.Output
	if seen != "" {
		if file, err = osfile.NewOutput(seen); err != nil {
			return cannotTell(fmt.Errorf("the checkpoint %w", err))
		}
		defer file.Close()
	}
	report, err := monitor.Walk(config)
	if err != nil {
		return cannotTell(err)
	}
	if err := c.printReport(report, asJSON); err != nil {
		return cannotTell(err)
	}
	if report.Verdict == proof.Valid && file != nil && c.stdout.err == nil {
		if err := file.Put(report.Checkpoint()); err != nil {
			return cannotTell(err)
		}
	}
	return report.Verdict.Exit()
}

func (c *call) monitorConfig(ctx context.Context, at, trustFile, state, seen string) (monitor.Config, error) {
	var config monitor.Config
	var err error
	if config.Trust, err = c.trustFor(ctx, trustFile, state); err != nil {
		return config, err
	}
	if seen != "" {
		if info, err := os.Stat(seen); err == nil && !info.Mode().IsRegular() {
			return config, fmt.Errorf("--seen %s: it is no regular file, and remembers nothing", seen)
		}
		b, err := os.ReadFile(seen)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return config, err
		}
		if b = bytes.TrimSpace(b); len(b) > 0 {
			config.Seen = append(config.Seen, append(b, '\n'))
		}
	}
	if strings.Contains(at, "://") {
		config.Log, err = monitor.Remote(ctx, at, nil)
		return config, err
	}
	if at == "" {
		dir, err := stateDir(state)
		if err != nil {
			return config, err
		}
		at = filepath.Join(dir, "log")
	}
	if _, err := os.Stat(at); err != nil {
		return config, err
	}
	config.Log = os.DirFS(at)
	return config, nil
}
