// Package enforce puts the rights of an execution in force on Linux and keeps
// them in force until it ends. This file is what callers see; behind it are two
// tiers, `rootless` and, where there are no namespaces to be had, `nested`
// (nested.go). Either is four processes:
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
	"io"
	"log/slog"

	"github.com/exeq/exeq"
)

// Options of Prepare. The zero value is ready to use.
type Options struct {
	// Tier is the tier that is wanted, exactly; 0 is the strongest that works.
	// One that a warden gives is its own, or 0.
	Tier exeq.Tier
	// Workspace decides whose uid the execution has when Exeq runs as root:
	// the owner of this directory. Empty: the current directory.
	Workspace string
	// Umask is the command's; nil is that of this process.
	Umask *int
	// Messages gets one line for each distinct denial (Ruling.Message) and
	// nothing else; nil means standard error.
	Messages io.Writer
	// Warden holds the execution from above the tier rootless, which is then the
	// only one that is prepared; nil: nobody does.
	Warden Warden
	// Logger gets what operators need; nil discards.
	Logger *slog.Logger
}

// Enforcer is a prepared tier; it serves one Launch.
var _ exeq.Enforcer = (*Enforcer)(nil)
