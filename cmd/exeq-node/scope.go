//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
)

// scope tells of mandatory scopes, and opens one for a person whom its statement
// names. It needs no installation of exeq: who is locked out has none at hand.
func scope(fs *flag.FlagSet, argv []string, out io.Writer) error {
	var socket, reason string
	var asJSON bool
	var within time.Duration
	fs.StringVar(&socket, "socket", cmp.Or(os.Getenv(wire.Variable), wire.DefaultSocket), "unix socket of the node")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.StringVar(&reason, "reason", "", "open: why; it is recorded")
	fs.DurationVar(&within, "for", 10*time.Minute, "open: for how long; it closes by itself")
	if err := fs.Parse(argv); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	act := fs.Arg(0)
	if act == "list" && fs.NArg() != 1 || act != "list" && fs.NArg() != 2 {
		fmt.Fprintf(fs.Output(), "%s: want list, or report, open or close with a scope (uid:NUMBER, cgroup:/PATH, host); flags come first\n", fs.Name())
		return errUsage
	}
	kind, subject, _ := strings.Cut(fs.Arg(1), ":")
	of := exeq.Scope{Kind: kind, Subject: exeq.EncodeBytes(subject)}
	if act != "list" {
		if err := of.Validate(); err != nil {
			return err
		}
	}
	ctx := context.Background()
	node, err := client.DialScopes(ctx, socket)
	if err != nil {
		return err
	}
	var what any
	var say func()
	switch act {
	case "list":
		list, err := node.List(ctx)
		if err != nil {
			return err
		}
		what, say = list, func() { printScopes(out, list) }
	case "report":
		r, err := node.Report(ctx, of)
		if err != nil {
			return err
		}
		what, say = r, func() { printAttempts(out, r) }
	case "open", "close":
		o := wire.Open{Scope: of, Reason: exeq.EncodeBytes(reason)}
		if act == "open" {
			o.Millis = max(within.Milliseconds(), 1)
		}
		opened, err := node.Open(ctx, o)
		if err != nil {
			return err
		}
		what, say = opened, func() {
			if act == "close" {
				fmt.Fprintf(out, "%s is closed (recorded: %s)\n", of, opened.ID)
				return
			}
			fmt.Fprintf(out, "%s is open for %s (recorded: %s)\n", of, within, opened.ID)
		}
	default:
		return fmt.Errorf("there is no %q", act)
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(what)
	}
	say()
	return nil
}

func printScopes(out io.Writer, list []wire.HeldScope) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SCOPE\tMODE\tSERIAL\tISSUER\tOPEN\tDENIED\tWOULD\tOPENED")
	for _, h := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%.12s\t%s\t%d\t%d\t%d\n", h.Scope, h.Mode, h.Serial, h.Issuer,
			(time.Duration(h.OpenMillis) * time.Millisecond).Round(time.Second), h.Denied, h.Would, h.Opened)
		for _, f := range h.Faults {
			fmt.Fprintf(w, "  %s\n", exeq.Readable(f))
		}
	}
	w.Flush()
}

func printAttempts(out io.Writer, r *exeq.ScopeReport) {
	fmt.Fprintf(out, "%s (%s), rehearsed for %s\n", r.Scope, r.Mode, (time.Duration(r.RehearsedMillis) * time.Millisecond).Round(time.Second))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "COUNT\tVERDICT\tUID\tPROGRAM\tSTARTED BY\tLAST")
	for _, a := range r.Attempts {
		fmt.Fprintf(w, "%d\t%s (%s)\t%d\t%s\t%s\t%s\n", a.Count, a.Verdict, a.Why, a.UID, exeq.Readable(cmp.Or(a.Path, "as named: "+a.Name)), exeq.Readable(a.Starter), a.Last)
	}
	w.Flush()
}
