//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/bench/measure"
	"github.com/exeq/exeq/node"
)

// noded is a node that serves in this process, so that its CPU time is known.
type noded struct {
	*bench
	socket, cgroup, tier string
	audience             exeq.Audience
}

// node measures what goes through exeq-node: the start of a command, programs and
// files inside, what events take, how long a revocation takes until nothing is
// alive, and the daemon's memory. It needs root and is a part that has to be named.
func (b *bench) node() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	n, stop, err := b.serve()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, part := range []struct {
		name string
		run  func() error
	}{{"start", n.start}, {"inside", n.inside}, {"events", n.events}, {"revoke", n.revocations}, {"memory", n.thousand}} {
		if slices.Contains(b.parts, "node") || slices.Contains(b.parts, "node."+part.name) {
			err = errors.Join(err, part.run())
		}
	}
	return err
}

// serve starts a node in places of its own, which trusts the bench's exeq.
func (b *bench) serve() (n *noded, stop func() error, err error) {
	dir := filepath.Join(b.dir, "node")
	root, err := node.DefaultCgroup()
	if err != nil {
		return nil, nil, err
	}
	n = &noded{bench: b, socket: filepath.Join(dir, "sock"), cgroup: filepath.Join(filepath.Dir(root), fmt.Sprintf("exeq-bench-%d", os.Getpid()))}
	for _, d := range []string{dir, dir + "/bpf", dir + "/state", dir + "/trust"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	trust, _, err := output(b.plain(b.exeq, "trust", "export", "--node", "--state", b.state))
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(dir+"/trust/bench.json", []byte(trust), 0o600); err != nil {
		return nil, nil, err
	}
	if err := unix.Mount("bpf", dir+"/bpf", "bpf", 0, "mode=0700"); err != nil {
		return nil, nil, err
	}
	unmount := func() error { return unix.Unmount(dir+"/bpf", unix.MNT_DETACH) }
	served, err := node.Open(node.Config{State: dir + "/state", Trust: dir + "/trust", Pins: dir + "/bpf/gate", Cgroup: n.cgroup})
	if err != nil {
		return nil, nil, errors.Join(err, unmount())
	}
	l, err := node.Listen(n.socket)
	if err != nil {
		return nil, nil, errors.Join(err, served.Close(), unmount())
	}
	n.tier, n.audience = served.Identity().Tier.String(), served.Identity().Audience
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- served.Serve(ctx, l) }()
	return n, func() error {
		cancel()
		err := errors.Join(<-ended, served.Close(), unmount())
		os.Remove(n.cgroup)
		return err
	}, nil
}

// at is a command under exeq in a tier; above rootless through the node.
func (n *noded) at(tier string) func(argv ...string) *exec.Cmd {
	return func(argv ...string) *exec.Cmd {
		c := n.plain(append([]string{n.exeq, "run", "--state", n.state, "--tier", tier, "--"}, argv...)...)
		c.Env = append(c.Env, "EXEQ_NODE="+n.socket)
		return c
	}
}

// counted adds what the node took.
func counted(f func(int) (times, error)) func(int) (times, error) {
	return func(round int) (times, error) {
		used := measure.ProcessTime()
		t, err := f(round)
		if t.cpu != 0 {
			t.cpu += float64(measure.ProcessTime() - used)
		}
		return t, err
	}
}

// start is the whole life of one command that does nothing.
func (n *noded) start() error {
	const program = "/bin/true"
	whole := func(c func(...string) *exec.Cmd, argv ...string) func(int) (times, error) {
		return func(int) (times, error) { return timed(c(append(argv, program)...)) }
	}
	sides := []side{
		{"bwrap --unshare-all", whole(n.plain, "bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--")},
		{n.tier, counted(whole(n.at(n.tier)))},
		{"rootless", whole(n.at("rootless"))},
		{"plain", whole(n.plain)},
	}
	if strace, err := exec.LookPath("strace"); err == nil {
		sides = append(sides, side{"strace -f --seccomp-bpf", whole(n.plain, strace, "-f", "--seccomp-bpf", "-e", "trace=execve", "-o", "/dev/null")})
	} else {
		fmt.Fprintln(os.Stderr, "govern: strace is left out: it is not installed")
	}
	return n.turns("node", "true", n.rounds(40), sides...)
}

// inside compares what runs in the tree with the tier rootless.
func (n *noded) inside() error {
	spawn := func(command func(...string) *exec.Cmd) func(int) (times, error) {
		return func(int) (times, error) {
			r, err := repeat(command, n.rounds(1000), func(int) []string { return []string{"/bin/true"} })
			return times{wall: r.others, cpu: r.cpu}, err
		}
	}
	if err := n.turns("node", "start a program and wait", n.rounds(15), side{"rootless", spawn(n.at("rootless"))}, side{n.tier, spawn(n.at(n.tier))}); err != nil {
		return err
	}
	files, err := n.files("files")
	if err != nil {
		return err
	}
	argv := append([]string{"./open", "read", fmt.Sprint(n.rounds(100_000))}, files...)
	open := func(command func(...string) *exec.Cmd) func(int) (times, error) {
		return func(int) (times, error) { return opened(command(argv...)) }
	}
	return n.turns("node", "open for reading, close", n.rounds(25), side{"rootless", open(n.at("rootless"))}, side{n.tier, open(n.at(n.tier))})
}
