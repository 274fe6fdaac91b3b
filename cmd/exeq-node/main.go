//go:build linux

// Command exeq-node is the privileged daemon of the tiers kernel and kernel-lite: it takes
// permits over a unix socket and has the kernel hold what runs under them. See
// package node and docs/node.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/node"
	"github.com/exeq/exeq/node/wire"
)

func main() { os.Exit(dispatch(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `exeq-node: the kernel holds what a permit allows

  exeq-node serve   [flags]   serve permits (as root)
  exeq-node install [flags]   make directories, key, trust and systemd unit
  exeq-node status  [flags]   say what the node holds
  exeq-node scope   [flags] list | report SCOPE | open SCOPE | close SCOPE
                              tell of mandatory scopes; break the glass of one

exeq-node COMMAND -h tells the flags.
`

func dispatch(argv []string, stdout, stderr io.Writer) int {
	commands := map[string]func(*flag.FlagSet, []string, io.Writer) error{"serve": serve, "install": install, "status": status, "scope": scope}
	if len(argv) == 0 || commands[argv[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	fs := flag.NewFlagSet("exeq-node "+argv[0], flag.ContinueOnError)
	fs.SetOutput(stderr)
	err := commands[argv[0]](fs, argv[1:], stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "exeq-node %s: %s\n", argv[0], strings.TrimSpace(err.Error()))
		return 1
	}
	return 0
}

var errUsage = errors.New("usage")

// parse takes flags and nothing else.
func parse(fs *flag.FlagSet, argv []string) error {
	if err := fs.Parse(argv); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(fs.Output(), "%s: %q is one argument too many\n", fs.Name(), fs.Arg(0))
		return errUsage
	}
	return nil
}

// places are where a node keeps what is its own.
type places struct{ socket, state, trust, pins, cgroup string }

func (p *places) define(fs *flag.FlagSet) {
	fs.StringVar(&p.socket, "socket", wire.DefaultSocket, "unix socket to serve on")
	fs.StringVar(&p.state, "state", "/var/lib/exeq-node", "directory of the node's key")
	fs.StringVar(&p.trust, "trust", "/etc/exeq-node/trust", "directory of the issuers that are trusted, and for whom")
	fs.StringVar(&p.pins, "pins", "/sys/fs/bpf/exeq-node", "directory in a bpf file system, where the gate is pinned")
	fs.StringVar(&p.cgroup, "cgroup", "", "directory in the cgroup v2 hierarchy, where executions are put (default exeq-node at its root)")
}

// serve runs until it is told to stop. What it holds by then stays governed and
// ends by its lease.
func serve(fs *flag.FlagSet, argv []string, _ io.Writer) error {
	var p places
	p.define(fs)
	if err := parse(fs, argv); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("must be root: the kernel's gate is root's to close")
	}
	unix.Umask(0o077)
	first()
	if p.cgroup == "" {
		var err error
		if p.cgroup, err = node.DefaultCgroup(); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	n, err := node.Open(node.Config{State: p.state, Trust: p.trust, Pins: p.pins, Cgroup: p.cgroup, Log: log})
	if err != nil {
		return err
	}
	defer n.Close()
	l, err := node.Listen(p.socket)
	if err != nil {
		return err
	}
	log.Info("serving", "socket", p.socket, "node", n.Identity().Audience.Node, "tier", n.Identity().Tier, "above", n.Identity().Above, "missing", n.Identity().Missing)
	if err := ready(); err != nil {
		return err
	}
	return n.Serve(ctx, l)
}

// first asks that every thread, and by inheritance those to come, be served
// before what the node holds: a lease must not lapse because executions keep
// every processor busy.
func first() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, tid, -15) // where it may not, it goes on as it is
		}
	}
}

// ready tells a service manager that the node serves (sd_notify).
func ready() error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("READY=1"), 0, &unix.SockaddrUnix{Name: name})
}
