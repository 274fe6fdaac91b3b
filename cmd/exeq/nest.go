//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/internal/nested"
	"github.com/exeq/exeq/internal/standalone"
)

// nest runs inside an execution: the supervisor outside decides.
func (o *runOptions) nest(c *call) int {
	if o.policy != "" || o.proof != "" || o.who.Agent != "" || o.tier != "auto" {
		return c.misuse("inside an execution, policy, proof, agent and tier are its supervisor's")
	}
	out, err := nested.Run(o.argv, o.who.Intent)
	switch {
	case o.json && out != nil:
		printJSON(c.stderr, out)
	case err != nil:
		fmt.Fprintf(c.stderr, "exeq: %s\n", err)
	case out.Error != "":
		fmt.Fprintf(c.stderr, "exeq: %s\n", out.Error)
	}
	if err != nil {
		return exitOf(nil, err)
	}
	return out.Status
}

// children serves the runs that an execution asks for inside itself.
type children struct {
	ctx    context.Context
	inst   *standalone.Installation
	opened chan struct{}
	parent *nested.Parent
	served sync.WaitGroup
}

func newChildren(ctx context.Context, inst *standalone.Installation) *children {
	return &children{ctx: ctx, inst: inst, opened: make(chan struct{})}
}

// open says what the parent is, once it runs.
func (k *children) open(l *exeq.Launch, r exeq.Running) {
	k.parent = &nested.Parent{
		Digest: func(path string) (exeq.Digest, error) {
			p, err := programs.LookPath(path, "", "/", "")
			if err != nil {
				return exeq.Digest{}, err
			}
			return p.SHA256, p.File.Close()
		},
		ID: l.ID, Request: l.Request, Rights: l.Rights, Applied: r.Applied(), Governor: k.inst.Governor, Status: exitOf,
		End: func(reason string) {
			if _, err := k.inst.Revoke(k.ctx, l.ID, reason); err != nil {
				r.Kill(reason)
			}
		},
	}
	if in, ok := r.(looked); ok {
		k.parent.Sight = sight{in}
	}
	close(k.opened)
}

// looked is an execution that can be looked into.
type looked interface {
	Living() ([]enforce.Process, error)
	Holders(port int) ([]enforce.Process, error)
}

// sight is what a supervisor sees inside its execution.
type sight struct{ in looked }

func (s sight) Living() ([]nested.Process, error)          { return processes(s.in.Living()) }
func (s sight) Holders(port int) ([]nested.Process, error) { return processes(s.in.Holders(port)) }

func processes(in []enforce.Process, err error) ([]nested.Process, error) {
	out := make([]nested.Process, len(in))
	for i, p := range in {
		out[i] = nested.Process(p)
	}
	return out, err
}

// bound gives the narrower rights of whoever connects.
func (k *children) bound(c net.Conn) *exeq.Rights {
	select {
	case <-k.opened:
		return k.parent.Bound(c)
	default:
		return nil // nobody is released yet who could have asked
	}
}

func (k *children) serve(c net.Conn) {
	k.served.Add(1)
	defer k.served.Done()
	select {
	case <-k.opened:
		k.parent.Serve(k.ctx, c)
	case <-time.After(exeq.DefaultLease):
		c.Close()
	}
}

// wait returns when the children of an ended parent are sealed: their clients
// ended with it.
func (k *children) wait() { k.served.Wait() }
