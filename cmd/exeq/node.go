//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce"
	"github.com/exeq/exeq/internal/remote"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
)

// nodeSocket is where the node is asked for.
func nodeSocket() string { return cmp.Or(os.Getenv(wire.Variable), wire.DefaultSocket) }

// askNode finds the node, if it serves this user.
func askNode(ctx context.Context) (n *client.Client, err error) {
	// Where there is none, dialling takes a fiftieth of a short run to say so.
	if _, err = os.Lstat(nodeSocket()); err == nil {
		n, err = client.Dial(ctx, nodeSocket())
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("exeq-node does not run here (no socket %s; %s names another)", nodeSocket(), wire.Variable)
	}
	return n, err
}

// revokeAtNode hands a revocation to the node as well, which ends the execution
// also where its supervisor stands still. It tells what came of it; nil: nothing
// of the execution is alive.
func revokeAtNode(ctx context.Context, v *exeq.Revocation) <-chan error {
	told := make(chan error, 1)
	go func() { told <- client.Revoke(ctx, nodeSocket(), v) }()
	return told
}

// prepare readies the strongest tier that was asked for and can be had, and
// gives the node that holds it from above, if one does.
func (o *runOptions) prepare(ctx context.Context, c *call) (*enforce.Enforcer, *client.Client, error) {
	t := exeq.TierNone // the strongest that works
	if o.tier != "auto" {
		var err error
		if t, err = exeq.ParseTier(o.tier); err != nil {
			return nil, nil, err
		}
	}
	options := enforce.Options{Tier: t, Umask: &umask, Messages: c.stderr}
	if t == exeq.TierRootless || t == exeq.TierNested {
		e, err := enforce.Prepare(options)
		return e, nil, err
	}
	if o.url != "" && (t == exeq.TierKernel || t == exeq.TierKernelLite) {
		return nil, nil, fmt.Errorf("%w: tier %s under a server is not built yet: the node of this machine believes its own installations alone", exeq.ErrEnforce, t)
	}
	if o.url != "" {
		e, err := enforce.Prepare(options)
		return e, nil, err
	}
	node, err := askNode(ctx)
	if err == nil {
		options.Warden = node
		var e *enforce.Enforcer
		if e, err = enforce.Prepare(options); err == nil {
			return e, node, nil
		}
	}
	if t != exeq.TierNone {
		return nil, nil, fmt.Errorf("%w: tier %s: %w; see exeq doctor", exeq.ErrEnforce, t, err)
	}
	// Below is as good as policy says: its floor decides.
	c.log().Info("without exeq-node", "reason", err)
	options.Warden = nil
	e, err := enforce.Prepare(options)
	return e, nil, err
}

// governor is the flow over this installation, at the node where there is one, or
// under the server that was asked for.
func (o *runOptions) governor(ctx context.Context, inst *standalone.Installation, e exeq.Enforcer, node *client.Client) (*exeq.Governor, error) {
	switch {
	case o.server != nil:
		return remote.Governor(ctx, o.server, inst.Here(), e, inst.Log)
	case node == nil:
		return inst.Governor(e)
	}
	return inst.GovernorAt(ctx, e, node)
}
