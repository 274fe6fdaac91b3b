package main

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// listKeys lists the installation's public keys by role, or rotates one.
func listKeys(ctx context.Context, c *call) int {
	if len(c.argv) > 0 && c.argv[0] == "rotate" {
		c.argv = c.argv[1:]
		return c.rotate(ctx)
	}
	in, fs, asJSON, status := c.query(ctx, nil)
	if in == nil {
		return status
	}
	defer in.Close()
	if fs.NArg() > 0 {
		return c.misuse("keys does not take %q", fs.Arg(0))
	}
	type row struct {
		Role    string `json:"role"`
		ID      string `json:"id"`
		Present bool   `json:"present"`
	}
	var rows []row
	for _, role := range keyring.Roles {
		for _, pub := range in.Keys.Known(role) {
			rows = append(rows, row{role, exeq.KeyID(pub), pub.Equal(in.Keys.Public(role))})
		}
	}
	if asJSON {
		printJSON(c.stdout, rows)
		return 0
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tKEY\tIS")
	for _, r := range rows {
		is := "in force"
		if !r.Present {
			is = "retired"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Role, r.ID, is)
	}
	w.Flush()
	return 0
}

// rotate replaces the key of a role; both events are on record.
func (c *call) rotate(ctx context.Context) int {
	var compromised bool
	in, fs, _, status := c.query(ctx, func(fs *flag.FlagSet) {
		fs.BoolVar(&compromised, "compromised", false, "the old key may be in other hands: nothing that it signs from now on is believed")
	})
	if in == nil {
		return status
	}
	defer in.Close()
	if fs.NArg() != 1 {
		return c.misuse("want one role: issuer or node")
	}
	event := keyring.EventRetire
	if compromised {
		event = keyring.EventCompromised
	}
	was, is, err := in.RotateKey(ctx, fs.Arg(0), event)
	if err != nil {
		return c.fail(err)
	}
	fmt.Fprintf(c.stdout, "%s: %s is in force; %s is on record as %s\nProofs made until now go on verifying. Hand out the trust file again: exeq trust export\n",
		fs.Arg(0), is, was, map[string]string{keyring.EventRetire: "retired", keyring.EventCompromised: "compromised"}[event])
	return 0
}
