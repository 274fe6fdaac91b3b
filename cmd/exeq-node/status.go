//go:build linux

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
)

// status says who the node is and what it holds: for root all of it.
func status(fs *flag.FlagSet, argv []string, out io.Writer) error {
	var socket string
	var asJSON bool
	fs.StringVar(&socket, "socket", wire.DefaultSocket, "unix socket of the node")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	if err := parse(fs, argv); err != nil {
		return err
	}
	id, s, err := client.Look(context.Background(), socket)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Node   *wire.Identity `json:"node"`
			Status *wire.Status   `json:"status"`
		}{id, s})
	}
	fmt.Fprintf(out, "node  %s\ntier  %s\n", id.Audience.Node, id.Tier)
	if id.Above != "" {
		fmt.Fprintf(out, "not   %s\n", id.Above)
	}
	for _, m := range id.Missing {
		fmt.Fprintf(out, "lacks %s\n", m)
	}
	for _, f := range s.Found {
		fmt.Fprintf(out, "found %s\n", f)
	}
	if s.Dropped > 0 {
		fmt.Fprintf(out, "lost  %d events of the gate (no decision was lost with them)\n", s.Dropped)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "EXECUTION\tUID\tSTATE\tLEASE\tPROGRAMS\tDENIALS")
	for _, x := range s.Executions {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d ms\t%d\t%d\n", x.Permit, x.UID, x.State, x.LeaseMillis, x.Programs, x.Denials)
	}
	return w.Flush()
}
