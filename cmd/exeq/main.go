// Command exeq governs what autonomous systems execute: it decides, permits,
// records, enforces and verifies one command, and checks the proof of it.
//
// Each subcommand has a file of its own; what they share is in standalone
// (the parts of one installation) and in ui.go (how exeq speaks).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/exeq/exeq/internal/osfile"
)

// command is one subcommand. Its run returns the exit status.
type command struct {
	name, args, short string
	// most is how many arguments it takes that are no flags; unbounded for those
	// whose arguments are a command of their own, before which its flags end.
	most int
	run  func(ctx context.Context, c *call) int
}

const unbounded = -1

// call is one invocation of a subcommand.
type call struct {
	command
	argv   []string
	stdout *output
	stderr io.Writer
}

func commands() []command {
	return []command{
		{"run", "[flags] -- COMMAND [ARG…]", "govern a command", unbounded, run},
		{"verify", "[flags] PROOF", "check a proof offline", 1, verify},
		{"proof", "[flags] EXECUTION", "write the proof of an execution", 1, proofOf},
		{"ps", "[flags]", "list executions", 0, ps},
		{"log", "[flags] [EXECUTION]", "show the record", 1, logLeaves},
		{"lineage", "[flags] [ID]", "show what caused what", 1, lineage},
		{"why", "[flags] ID [read|write|exec|connect WHAT]", "explain a decision", 3, why},
		{"revoke", "[flags] ID", "end an execution now", 1, revoke},
		{"monitor", "[flags] [LOG]", "check a whole log", 1, monitorLog},
		{"policy", "check|test|replay|diff …", "work on policy", unbounded, policyCommand},
		{"learn", "[flags] -- COMMAND [ARG…]", "write the policy that a command needs", unbounded, learn},
		{"doctor", "[flags]", "say what this machine can enforce", 0, doctor},
		{"init", "[flags]", "create keys, log and starter policy", 0, initialise},
		{"scope", "declare|lift|list|report [flags] [uid:N|cgroup:/PATH|host]", "hold a user, a cgroup or the host to permits", 1, scopeCommand},
		{"serve", "[flags]", "answer enforcement points (AuthZEN)", 0, serve},
		{"keys", "[rotate ROLE] [flags]", "list the installation's keys, or replace one", 1, listKeys},
		{"trust", "export [flags]", "write the trust file of this installation", 0, trust},
		{"version", "", "say which build this is", 0, version},
		{"drain", "", "", unbounded, drain}, // left behind by run; not for people
	}
}

// umask is the caller's: what runs is to have it. What exeq writes needs bits
// that it may take away.
var umask = osfile.PrivateUmask()

func main() {
	os.Exit(dispatch(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func dispatch(ctx context.Context, argv []string, stdout, stderr io.Writer) int {
	if len(argv) == 0 {
		usage(stderr)
		return exitUsage
	}
	switch argv[0] {
	case "help", "-h", "--help":
		if len(argv) > 1 {
			return dispatch(ctx, []string{argv[1], "-h"}, stdout, stderr)
		}
		c := &call{command{name: "help"}, argv, &output{to: stdout}, stderr}
		usage(c.stdout)
		return c.delivered(0)
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == argv[0] })
	if i < 0 {
		fmt.Fprintf(stderr, "exeq: there is no command %q; see exeq help\n", argv[0])
		return exitUsage
	}
	c := &call{all[i], argv[1:], &output{to: stdout}, stderr}
	return c.delivered(c.run(ctx, c))
}

func usage(w io.Writer) {
	fmt.Fprint(w, "exeq: no authorization, no execution\n\n")
	for _, c := range commands() {
		if c.short != "" {
			fmt.Fprintf(w, "  exeq %-8s %-27s %s\n", c.name, c.args, c.short)
		}
	}
	fmt.Fprint(w, "\nexeq COMMAND -h tells the flags. State: --state, else $EXEQ_STATE, else $XDG_STATE_HOME/exeq.\n")
}

// flags parses the call's flags; ok is false when it has already answered.
func (c *call) flags(define func(*flag.FlagSet)) (fs *flag.FlagSet, status int, ok bool) {
	fs = flag.NewFlagSet("exeq "+c.name, flag.ContinueOnError)
	fs.SetOutput(c.stderr)
	fs.Usage = func() {
		fmt.Fprintf(c.stderr, "usage: exeq %s %s\n", c.name, c.args)
		fs.PrintDefaults()
	}
	define(fs)
	switch err := c.parse(fs); {
	case errors.Is(err, flag.ErrHelp):
		return fs, 0, false
	case err != nil:
		return fs, exitUsage, false
	case c.most != unbounded && fs.NArg() > c.most:
		return fs, c.misuse("%q is one argument too many", fs.Arg(c.most)), false
	}
	return fs, 0, true
}

// parse takes flags among the arguments, too, and not only before them, but for
// a command whose arguments are another's.
func (c *call) parse(fs *flag.FlagSet) error {
	if c.most == unbounded {
		return fs.Parse(c.argv)
	}
	var rest []string
	for argv := c.argv; ; {
		if err := fs.Parse(argv); err != nil {
			return err
		}
		left := fs.Args()
		if n := len(argv) - len(left); len(left) == 0 || n > 0 && argv[n-1] == "--" {
			rest = append(rest, left...)
			break
		}
		rest, argv = append(rest, left[0]), left[1:]
	}
	return fs.Parse(append([]string{"--"}, rest...))
}

// version says which build this is, as the Go command recorded it.
func version(_ context.Context, c *call) int {
	if _, status, ok := c.flags(func(*flag.FlagSet) {}); !ok {
		return status
	}
	of, revision := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		of = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	fmt.Fprintf(c.stdout, "exeq %s%s %s %s/%s\n", of, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return 0
}

// misuse reports wrong arguments.
func (c *call) misuse(format string, args ...any) int {
	fmt.Fprintf(c.stderr, "exeq %s: %s\nusage: exeq %s %s\n", c.name, fmt.Sprintf(format, args...), c.name, c.args)
	return exitUsage
}

// fail reports that the command could not do its work.
func (c *call) fail(err error) int {
	fmt.Fprintf(c.stderr, "exeq %s: %s\n", c.name, strings.TrimSpace(err.Error()))
	return exitFailed
}

// Exit statuses. run and verify have their own beside these.
const (
	exitFailed = 1 // run: the command ran, and its proof could not be written
	exitUsage  = 2

	exitExeqFailed = 125 // run: Exeq itself failed and nothing ran
	exitDenied     = 126 // run: policy denied
	exitKilled     = 137 // run: revoked or lapsed
)
