//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/bench/measure"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/permit"
)

// noded is a node that serves in this process, so that its CPU time is known.
type noded struct {
	*bench
	socket, cgroup, tier string
	audience             exeq.Audience
}

// node measures what goes through exeq-node: the start of a command, programs and
// files inside, and how long a revocation takes until nothing is alive. It needs
// root and is a part that has to be named.
func (b *bench) node() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	n, stop, err := b.serve()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return errors.Join(n.start(), n.inside(), n.revocations())
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

// revocations takes the time from handing a signed revocation to the node until
// it answers that nothing is alive, beside writing cgroup.kill and waiting for
// the same.
func (n *noded) revocations() error {
	for _, kind := range []struct {
		name, does string
		counts     []int // with 1,000 that are busy whoever makes them gets no turn
	}{
		{"sleeping", "sleep 1000", []int{1, 100, 1000}},
		{"spinning", "(while :; do :; done)", []int{1, 100}},
		{"forking", "(while :; do /bin/true; done)", []int{1, 100}},
	} {
		for _, count := range kind.counts {
			script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s & i=$((i+1)); done; wait", count, kind.does)
			if err := n.turns("revoke", fmt.Sprintf("%d %s", count, kind.name), n.rounds(10),
				side{"cgroup.kill", func(int) (times, error) { return n.bareKill(script, count) }},
				side{"revoke", func(int) (times, error) { return n.revoke(script, count) }}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bareKill ends the same in a cgroup that nothing governs.
func (n *noded) bareKill(script string, count int) (t times, err error) {
	dir := n.cgroup + "-bare"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	at, err := os.Open(dir)
	if err != nil {
		return t, err
	}
	defer at.Close()
	c := n.plain("sh", "-c", script)
	c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(at.Fd())
	if err := c.Start(); err != nil {
		return t, err
	}
	defer c.Wait()
	err = populated(dir, count)
	began := time.Now()
	if err = errors.Join(err, os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)); err != nil {
		return t, err
	}
	err = empty(dir)
	return times{wall: float64(time.Since(began))}, err
}

// revoke ends an execution by a revocation that nobody but the node is told of.
func (n *noded) revoke(script string, count int) (t times, err error) {
	c := n.at(n.tier)("sh", "-c", script)
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		return t, err
	}
	defer func() {
		c.Process.Signal(unix.SIGTERM)
		c.Wait()
		_, werr := orphans()
		if err = errors.Join(err, werr); err != nil {
			err = fmt.Errorf("%w: %s", err, said.Bytes())
		}
	}()
	dir, err := n.execution()
	if err != nil {
		return t, err
	}
	if err := populated(dir, count); err != nil {
		return t, err
	}
	ring, err := keyring.Open(n.state)
	if err != nil {
		return t, err
	}
	issuer, err := permit.NewIssuer(permit.IssuerConfig{Key: ring.Signer(exeq.RoleIssuer), Audience: n.audience})
	if err != nil {
		return t, err
	}
	signed, err := issuer.Revoke(filepath.Base(dir), "measured", exeq.At(time.Now()))
	if err != nil {
		return t, err
	}
	began := time.Now()
	err = client.Revoke(context.Background(), n.socket, &signed)
	return times{wall: float64(time.Since(began))}, err
}

// empty waits until nothing lives in a cgroup.
func empty(dir string) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "populated 0") {
			return nil
		}
	}
	return fmt.Errorf("%s is still populated", dir)
}

// execution waits for the one that runs.
func (n *noded) execution() (string, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, st, err := client.Look(context.Background(), n.socket)
		if err != nil {
			return "", err
		}
		for _, h := range st.Executions {
			if h.State == "running" {
				return filepath.Join(n.cgroup, h.Permit), nil
			}
		}
	}
	return "", errors.New("the execution does not run")
}

// populated waits until so many processes and the one that made them are in a
// cgroup.
func populated(dir string, count int) error {
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		if strings.Count(string(b), "\n") > count {
			return nil
		}
	}
	return fmt.Errorf("there are no %d processes", count)
}
