//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/permit"
)

// revocations takes the time from handing a signed revocation to the node until
// it answers that nothing is alive, beside writing cgroup.kill and waiting for
// the same.
func (n *noded) revocations() error {
	free, err := bounded(4096)
	if err != nil {
		return err
	}
	defer free()
	for _, how := range []string{"sleeping", "spinning", "forking"} {
		for _, count := range []int{1, 100, 1000} {
			if err := n.turns("revoke", fmt.Sprintf("%d %s", count, how), n.rounds(10),
				side{"cgroup.kill", func(int) (times, error) { return n.bareKill(how, count) }},
				side{"revoke", func(int) (times, error) { return n.revoke(how, count) }}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bounded puts this process and what it starts below a limit of processes, where
// there is a hierarchy of its own for that: nothing of a crowd escapes it.
func bounded(most int) (free func(), err error) {
	const controller = "/sys/fs/cgroup/pids"
	dir := filepath.Join(controller, fmt.Sprintf("exeq-bench-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "govern: no hierarchy of the pids controller: crowds are bounded by what they are alone")
		return func() {}, nil
	} else if err != nil {
		return nil, err
	}
	self := fmt.Append(nil, os.Getpid())
	err = errors.Join(os.WriteFile(filepath.Join(dir, "pids.max"), fmt.Append(nil, most), 0), os.WriteFile(filepath.Join(dir, "cgroup.procs"), self, 0))
	return func() {
		os.WriteFile(filepath.Join(controller, "cgroup.procs"), self, 0)
		os.Remove(dir)
	}, err
}

// crowd is processes that wait for their beginning, so that whoever makes them is
// not kept from it by those that are there.
type crowd struct {
	how   string
	count int
	fifo  *os.File
}

func (b *bench) crowd(how string, count int) (*crowd, error) {
	name := filepath.Join(b.workspace, "fifo")
	if err := unix.Mkfifo(name, 0o644); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0) // which waits for nobody
	return &crowd{how, count, f}, err
}

func (c *crowd) argv() []string {
	does := "spin"
	if c.how == "forking" {
		does = "fork"
	}
	return []string{"./crowd", does, fmt.Sprint(c.count), "fifo"}
}

// begin waits until all are there, beside so many others, lets them go, and waits
// until they take processor time. Those that sleep go on waiting.
func (c *crowd) begin(dir string, others int) error {
	if err := populated(dir, c.count+others); err != nil || c.how == "sleeping" {
		return err
	}
	had, err := used(dir)
	if err := errors.Join(err, c.fifo.Close()); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if has, err := used(dir); err != nil || has-had > 50*time.Millisecond {
			return err
		}
	}
	return errors.New("they do not begin")
}

// used is the processor time of a cgroup of version 2.
func used(dir string) (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	var micros int64
	_, err = fmt.Sscanf(string(b), "usage_usec %d", &micros)
	return time.Duration(micros) * time.Microsecond, err
}

// bareKill ends the same in a cgroup that nothing governs.
func (n *noded) bareKill(how string, count int) (t times, err error) {
	all, err := n.crowd(how, count)
	if err != nil {
		return t, err
	}
	defer all.fifo.Close()
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
	c := n.plain(all.argv()...)
	c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(at.Fd())
	if err := c.Start(); err != nil {
		return t, err
	}
	defer c.Wait()
	err = all.begin(dir, 1) // whoever makes them
	began := time.Now()     // whatever happened, nothing goes on
	if err = errors.Join(err, os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)); err != nil {
		return t, err
	}
	err = empty(dir)
	return times{wall: float64(time.Since(began))}, err
}

// revoke ends an execution by a revocation that nobody but the node is told of.
func (n *noded) revoke(how string, count int) (t times, err error) {
	all, err := n.crowd(how, count)
	if err != nil {
		return t, err
	}
	defer all.fifo.Close()
	c := n.at(n.tier)(all.argv()...)
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
	if err := all.begin(dir, 2); err != nil {
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

// populated waits until so many processes are in a cgroup.
func populated(dir string, count int) error {
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		if strings.Count(string(b), "\n") >= count {
			return nil
		}
	}
	return fmt.Errorf("there are no %d processes", count)
}
