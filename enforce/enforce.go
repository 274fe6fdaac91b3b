// Package enforce puts the rights of an execution in force on Linux and keeps
// them in force until it ends. This file is what callers see; the tier
// `rootless` behind it is three processes:
//
//	S  this process: the supervisor, which answers notified system calls
//	A  the mount agent: owns the namespaces, holds the lease, has the only
//	   capabilities; cloned by Prepare, before keys and policy are in memory
//	B  process 1 of the pid namespace: reaps, no capabilities
//	C  the command
//
// S dead kills A (PDEATHSIG), A dead kills B, B dead kills everything inside.
// Nothing in this package knows a policy language.
package enforce

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/exeq/exeq"
)

// Options of Prepare. The zero value is ready to use.
type Options struct {
	// Workspace decides whose uid the execution has when Exeq runs as root:
	// the owner of this directory. Empty: the current directory.
	Workspace string
	// Messages gets one line for each distinct denial (Ruling.Message) and
	// nothing else; nil means standard error.
	Messages io.Writer
	// Logger gets what operators need; nil discards.
	Logger *slog.Logger
}

// Enforcer is the prepared tier `rootless`; it serves one Launch.
var _ exeq.Enforcer = (*Enforcer)(nil)

// Enforcer holds a prepared mount agent.
type Enforcer struct{ opt Options }

// Prepare clones the mount agent into namespaces of its own. It must be the
// first thing that a program does: the agent is a copy of this process, and
// what is not yet in memory (keys, policy, store) can never leak through it.
// An error means that this user cannot have the tier on this machine.
func Prepare(o Options) (*Enforcer, error) {
	return nil, fmt.Errorf("%w: rootless", exeq.ErrEnforce)
}

// Close ends an agent that was prepared and never launched. After Launch it
// does nothing.
func (e *Enforcer) Close() error { return nil }

// Tier implements exeq.Enforcer.
func (e *Enforcer) Tier() exeq.Tier { return exeq.TierNone }

// Launch implements exeq.Enforcer. It serves once.
func (e *Enforcer) Launch(ctx context.Context, l *exeq.Launch) (exeq.Running, error) {
	return nil, fmt.Errorf("%w: rootless", exeq.ErrEnforce)
}
