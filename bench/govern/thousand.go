//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/bench/measure"
	"github.com/exeq/exeq/bench/standin"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/policy"
)

// thousand reads what the daemon, a process of its own, holds with nothing and
// with 1,000 executions under the policy of first use. This process stands in
// for their supervisors; what they would run waits, frozen.
func (n *noded) thousand() (err error) {
	const count = 1000
	own := *n
	h := &holder{noded: &own, dir: filepath.Join(n.dir, "thousand")}
	if err := h.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	for _, held := range []int{0, count} {
		for len(h.held) < held {
			if err := h.one(); err != nil {
				return fmt.Errorf("execution %d: %w", len(h.held)+1, err)
			}
		}
		m, err := rollup(strconv.Itoa(h.daemon.Process.Pid))
		if err != nil {
			return err
		}
		for _, what := range []string{"Rss", "Pss"} {
			if err := n.out.Put(measure.Result{Part: "node memory", Case: fmt.Sprintf("%d executions", held), Who: what, Unit: "bytes", Value: m[what+":"],
				Note: "Of the daemon; the kernel's maps are not in it."}); err != nil {
				return err
			}
		}
	}
	return nil
}

// holder has executions at a daemon of its own.
type holder struct {
	*noded
	dir    string
	daemon *exec.Cmd
	inst   *standalone.Installation
	set    *policy.Set
	stop   context.CancelFunc
	held   []*heldOne
}

type heldOne struct {
	node  *client.Client
	agent *exec.Cmd
}

func (h *holder) open() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	if h.set, err = policy.Load(policy.Starter()); err != nil {
		return err
	}
	if h.inst, err = standalone.Open(ctx, standalone.Options{Dir: h.dir + "/exeq", Set: h.set}); err != nil {
		return err
	}
	go h.inst.Store.Sequence(ctx) // or permits would wait for the log
	trust, err := h.inst.NodeTrust()
	if err != nil {
		return err
	}
	for _, d := range []string{"state", "trust"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(h.dir+"/trust/held.json", trust, 0o600); err != nil {
		return err
	}
	h.socket, h.cgroup = h.dir+"/sock", h.cgroup+"-held"
	h.daemon = h.plain(filepath.Join(filepath.Dir(h.exeq), "exeq-node"), "serve", "-socket", h.socket, "-state", h.dir+"/state",
		"-trust", h.dir+"/trust", "-pins", filepath.Join(h.noded.dir, "node/bpf/held"), "-cgroup", h.cgroup)
	if err := h.daemon.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, _, err = client.Look(ctx, h.socket); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// one admits an execution, has it enclosed, its programs approved, and held.
func (h *holder) one() (err error) {
	ctx := context.Background()
	x := &heldOne{}
	if x.node, err = client.Dial(ctx, h.socket); err != nil {
		return err
	}
	flow, err := h.inst.GovernorAt(ctx, standin.Enforcer{}, x.node)
	if err != nil {
		return err
	}
	program, digest, err := h.program()
	if err != nil {
		return err
	}
	defer program.Close()
	r := &exeq.Request{Subject: exeq.Entity{Type: "Agent", ID: "local"}, Action: "run",
		Resource: exeq.Resource{Type: "Program", ID: program.Name(), SHA256: digest}, Argv: []string{"sleep", "1000"}, Dir: h.workspace,
		Context: exeq.Context{Workspace: h.workspace, Home: "/root", Tmp: "/tmp/exeq", Command: "sleep 1000"}}
	in := &exeq.Inputs{Tier: x.node.Tier(), Time: exeq.At(time.Now())}
	d, err := h.set.Decide(ctx, r, in)
	if err != nil || !d.Verdict.Permits() {
		return fmt.Errorf("verdict %s: %w", d.Verdict, err)
	}
	rights, err := h.set.Compile(ctx, r, in, d)
	if err != nil {
		return err
	}
	id := exeq.NewID()
	p, err := flow.Issuer.Issue(id, r, in, &d, rights, "")
	if err != nil {
		return err
	}
	leaf := exeq.Leaf{Kind: exeq.KindPermit, Execution: id, Time: exeq.At(time.Now()), Actor: flow.Actor(r.Subject), Body: exeq.LeafBody{Verdict: d.Verdict, Policies: d.Policies}}
	e, err := exeq.NewEntry(leaf, p.Private(&d), nil)
	if err != nil {
		return err
	}
	promises, err := h.inst.Store.Record(ctx, e)
	if err != nil {
		return err
	}
	on := &exeq.PermitRecord{Leaf: e.Bytes, Promise: promises[0]}
	for _, c := range e.Disclosures {
		if c.Field == "permit" {
			on.Permit = c
		}
	}
	if err := flow.Admitter.Admit(ctx, p, on, r, rights); err != nil {
		return err
	}
	h.held = append(h.held, x)
	if err := h.enclose(ctx, x); err != nil {
		return err
	}
	return errors.Join(x.node.Approve(ctx, program.Name(), digest, program, false), x.node.Hold(ctx))
}

// program is the one that each of them names.
func (h *holder) program() (*os.File, exeq.Digest, error) {
	f, err := os.Open("/usr/bin/sleep")
	if err != nil {
		return nil, exeq.Digest{}, err
	}
	b, err := os.ReadFile(f.Name())
	return f, exeq.Digest(sha256.Sum256(b)), err
}

// enclose gives the daemon an agent's child, process 1, and its child.
func (h *holder) enclose(ctx context.Context, x *heldOne) error {
	x.agent = h.plain("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 1000 & echo; wait")
	out, err := x.agent.StdoutPipe()
	if err == nil {
		err = x.agent.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	if err != nil {
		return err
	}
	var fds [2]int
	for i, of := 0, x.agent.Process.Pid; i < 2; i++ {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", of))
		if err != nil {
			return err
		}
		if _, err := fmt.Sscan(string(b), &of); err != nil {
			return err
		}
		if fds[i], err = unix.PidfdOpen(of, 0); err != nil {
			return err
		}
		defer unix.Close(fds[i])
	}
	_, err = x.node.Enclose(ctx, fds[0], fds[1], netip.AddrPort{}, nil)
	return err
}

// close ends them all.
func (h *holder) close() (err error) {
	for _, x := range h.held {
		_, oerr := x.node.Over(context.Background())
		if err = errors.Join(err, oerr); x.agent != nil {
			x.agent.Process.Kill()
			x.agent.Wait()
		}
	}
	h.daemon.Process.Signal(unix.SIGTERM)
	err = errors.Join(err, h.daemon.Wait())
	h.stop()
	os.Remove(h.cgroup)
	return errors.Join(err, h.inst.Close())
}
