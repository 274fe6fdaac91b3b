package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

func policyCommand(ctx context.Context, c *call) int {
	subcommands := map[string]func(context.Context, *call) int{
		"check": policyCheck, "test": policyTest, "replay": policyReplay, "diff": policyDiff,
	}
	if len(c.argv) > 0 && slices.Contains([]string{"-h", "--help", "-help"}, c.argv[0]) {
		fmt.Fprintf(c.stderr, "usage: exeq %s %s\n", c.name, c.args)
		return 0
	}
	if len(c.argv) == 0 || subcommands[c.argv[0]] == nil {
		return c.misuse("want check, test, replay or diff")
	}
	sub := subcommands[c.argv[0]]
	c.name += " " + c.argv[0]
	c.args, c.most = "PATH…", len(c.argv)
	switch c.argv[0] {
	case "replay":
		c.args, c.most = "[flags] PATH", 1
	case "diff":
		c.args, c.most = "[flags] OLD NEW", 2
	}
	c.argv = c.argv[1:]
	return sub(ctx, c)
}

// policyPaths parses the arguments of a command that reads policies and no
// state; without paths it has answered.
func (c *call) policyPaths() (paths []string, asJSON bool, status int) {
	fs, status, ok := c.flags(func(fs *flag.FlagSet) { fs.BoolVar(&asJSON, "json", false, "print JSON") })
	if !ok {
		return nil, asJSON, status
	}
	if fs.NArg() == 0 {
		return nil, asJSON, c.misuse("name a policy directory or .cedar file")
	}
	return fs.Args(), asJSON, 0
}

func policyCheck(_ context.Context, c *call) int {
	paths, asJSON, status := c.policyPaths()
	if paths == nil {
		return status
	}
	problems, refused := []policy.Problem{}, false
	for _, path := range paths {
		found, err := policy.CheckDir(path)
		if err != nil {
			return c.fail(err)
		}
		if len(found) == 0 && !asJSON {
			fmt.Fprintf(c.stdout, "%s: no problem found\n", path)
		}
		for _, p := range found {
			switch {
			case p.File == "": // the set as a whole
				p.File = path
			case !strings.HasSuffix(path, ".cedar"):
				p.File = filepath.Join(path, p.File)
			}
			problems = append(problems, p)
			refused = refused || !p.Warning
		}
	}
	if asJSON {
		printJSON(c.stdout, problems)
	} else {
		for _, p := range problems {
			fmt.Fprintln(c.stdout, p)
		}
	}
	if refused {
		return exitFailed
	}
	return 0
}

func policyTest(_ context.Context, c *call) int {
	paths, asJSON, status := c.policyPaths()
	if paths == nil {
		return status
	}
	results := []policy.CaseResult{}
	for _, path := range paths {
		r, err := policy.TestDir(path)
		if err != nil {
			return c.fail(err)
		}
		results = append(results, r...)
	}
	failed := 0
	for _, r := range results {
		if r.Failure != "" {
			failed++
			if !asJSON {
				fmt.Fprintf(c.stdout, "%s: %s: %s\n", r.File, r.Name, r.Failure)
			}
		}
	}
	if asJSON {
		printJSON(c.stdout, results)
	} else {
		fmt.Fprintf(c.stdout, "%d cases, %d failed\n", len(results), failed)
	}
	if failed > 0 {
		return exitFailed
	}
	return 0
}

func policyReplay(ctx context.Context, c *call) int {
	in, fs, asJSON, status := c.query(ctx, nil)
	if in == nil {
		return status
	}
	defer in.Close()
	if fs.NArg() != 1 {
		return c.misuse("want one candidate policy")
	}
	set, err := policy.LoadDir(fs.Arg(0))
	if err != nil {
		return c.fail(err)
	}
	history, err := in.History(ctx)
	if err != nil {
		return c.fail(err)
	}
	changes, err := set.Replay(ctx, history)
	if err != nil {
		return c.fail(err)
	}
	others := 0
	for _, h := range history {
		if h.Decision.PolicySet != set.PolicySet() {
			others++
		}
	}
	if asJSON {
		printJSON(c.stdout, replayed{len(history), verdictChanges(changes), others, changes})
		return 0
	}
	printChanges(c, changes)
	fmt.Fprintf(c.stdout, "%d recorded decisions, %d would change from what is on record%s (%d were made under another set than this)\n",
		len(history), len(changes), summed(changes), others)
	return 0
}

// replayed is what `policy replay --json` prints.
type replayed struct {
	Recorded int             `json:"recorded"`
	Verdicts int             `json:"verdicts"` // that would change; these come first in Changes
	OtherSet int             `json:"otherSet"` // decisions that were made under another set
	Changes  []policy.Change `json:"changes"`
}

func verdictChanges(changes []policy.Change) (n int) {
	for i := range changes {
		if changes[i].Verdict() {
			n++
		}
	}
	return n
}

// printChanges prints a line for each verdict that changes, and one for all
// decisions that keep it and change in the same way.
func printChanges(c *call, changes []policy.Change) {
	var kinds []string
	alike := map[string][]*policy.Change{}
	for i := range changes {
		ch := &changes[i]
		if ch.Verdict() {
			fmt.Fprintf(c.stdout, "%s  %s → %s  %s; %s\n", ch.ID, ch.Decision.Verdict, ch.Now.Verdict, asked(ch), ch.Words())
			continue
		}
		kind := fmt.Sprintf("%s as before; %s", ch.Now.Verdict, ch.Words())
		if alike[kind] == nil {
			kinds = append(kinds, kind)
		}
		alike[kind] = append(alike[kind], ch)
	}
	for _, kind := range kinds {
		same := alike[kind]
		fmt.Fprintf(c.stdout, "%s", same[0].ID)
		if n := len(same) - 1; n > 0 {
			fmt.Fprintf(c.stdout, " and %d more", n)
		}
		fmt.Fprintf(c.stdout, "  %s\n", kind)
	}
}

// asked is what a decision was about.
func asked(ch *policy.Change) string {
	what := ch.Request.Context.Command
	if ch.Request.Action != exeq.ActionRun || what == "" {
		what = ch.Request.Resource.ID
	}
	return ch.Request.Action + " " + clip(what, 60)
}

// summed counts changes by what they are; "" where there are none.
func summed(changes []policy.Change) string {
	if len(changes) == 0 {
		return ""
	}
	turns, rules := map[string]int{}, 0
	for i := range changes {
		switch ch := &changes[i]; {
		case ch.Verdict():
			turns[string(ch.Decision.Verdict)+" → "+string(ch.Now.Verdict)]++
		case ch.Rules():
			rules++
		}
	}
	var out []string
	for _, turn := range slices.Sorted(maps.Keys(turns)) {
		out = append(out, fmt.Sprintf("%d %s", turns[turn], turn))
	}
	if len(out) == 0 {
		out = []string{"no verdict"}
	}
	if n := len(changes) - verdictChanges(changes) - rules; n > 0 {
		out = append(out, fmt.Sprintf("%d in obligations, labels or needs", n))
	}
	if rules > 0 {
		out = append(out, fmt.Sprintf("%d in the deciding policies alone", rules))
	}
	return ": " + strings.Join(out, ", ")
}

func policyDiff(ctx context.Context, c *call) int {
	var state string
	var asJSON bool
	fs, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&state, "state", "", "state directory whose history is decided by both")
		fs.BoolVar(&asJSON, "json", false, "print JSON")
	})
	if !ok {
		return status
	}
	if fs.NArg() != 2 {
		return c.misuse("want an old and a new policy")
	}
	from, err := policy.LoadDir(fs.Arg(0))
	if err != nil {
		return c.fail(err)
	}
	to, err := policy.LoadDir(fs.Arg(1))
	if err != nil {
		return c.fail(err)
	}
	var history []policy.Recorded
	if in, err := c.open(ctx, state); err == nil {
		defer in.Close()
		if history, err = in.History(ctx); err != nil {
			return c.fail(err)
		}
	} else if state != "" {
		return c.fail(err)
	}
	d, err := policy.Diff(ctx, from, to, history)
	if err != nil {
		return c.fail(err)
	}
	if asJSON {
		printJSON(c.stdout, d)
		return 0
	}
	for _, x := range []struct {
		sign string
		ids  []string
	}{{"+", d.Added}, {"-", d.Removed}, {"~", d.Changed}} {
		for _, id := range x.ids {
			fmt.Fprintln(c.stdout, x.sign, id)
		}
	}
	if d.Settings {
		fmt.Fprintln(c.stdout, "~ settings.json")
	}
	if d.Entities {
		fmt.Fprintln(c.stdout, "~ entities.json")
	}
	printChanges(c, d.Decisions)
	fmt.Fprintf(c.stdout, "%d recorded requests decided by both sets, %d would change from the old set to the new%s (what is on record is not compared: see replay)\n",
		len(history), len(d.Decisions), summed(d.Decisions))
	return 0
}
