package exeq

import (
	"context"
	"net"
	"os"
	"time"
)

// Applied says what enforcement achieved, never what it tried.
type Applied struct {
	Tier Tier `json:"tier"`
	// LandlockABI is the ABI in force, 0 for none.
	LandlockABI int `json:"landlockABI"`
	// Downgrades names, sorted, each limit of these rights that this machine
	// could not enforce, in the words that docs and doctor use.
	Downgrades []string `json:"downgrades,omitempty"`
	// Seen says per activity class (exec, map, read, write, connect) whether
	// "all", "denials" or "none" of its activities reach the record.
	Seen map[string]string `json:"seen"`
	// Canary is the name of the forbidden act that was tried inside and
	// refused before the workload was released.
	Canary string `json:"canary"`
	// Environment is as measured at the canary; every tick is held to it.
	Environment Environment `json:"environment"`
	// Enclosure is the word of the node that holds the execution; nil: none does.
	Enclosure *Enclosure `json:"enclosure,omitempty"`
}

// Program is a program that runs inside an execution.
type Program struct {
	Path   string `json:"path"` // EncodeBytes
	SHA256 Digest `json:"sha256"`
	// Intact: the inode that runs is still the one that was decided on.
	Intact bool `json:"intact"`
}

// Environment is what must stay as it was at the start.
type Environment struct {
	BootID     string            `json:"bootId"`
	UID        int               `json:"uid"`
	Namespaces map[string]string `json:"namespaces"` // name → "type:[inode]"
	Mounts     Digest            `json:"mounts"`     // of the mounts that Exeq made, approved programs aside
	Seccomp    string            `json:"seccomp"`    // mode of every process: "filter"
	NoNewPrivs bool              `json:"noNewPrivs"`
	Landlock   int               `json:"landlock"` // ABI
}

// Evidence is what the enforcing side measured at one tick.
type Evidence struct {
	Sequence uint64 `json:"sequence"`
	Time     Time   `json:"time"`
	// Challenge is fresh and random, hexadecimal; the renewal must answer it.
	Challenge   string      `json:"challenge"`
	Programs    []Program   `json:"programs"` // distinct, sorted by path
	Environment Environment `json:"environment"`
	Session     Session     `json:"session"` // filled in by the flow
	Processes   int         `json:"processes"`
	OutputBytes int64       `json:"outputBytes"`
	WallMillis  int64       `json:"wallMillis"` // CLOCK_BOOTTIME since the release
	// Supervisor and Watchdog answered within this tick.
	Supervisor bool `json:"supervisor"`
	Watchdog   bool `json:"watchdog"`
	// Stopped: every process is stopped (^Z or hold); the lease is suspended.
	Stopped bool `json:"stopped,omitempty"`
	// Faults names what could not be measured; any entry fails appraisal.
	Faults []string `json:"faults,omitempty"`
}

// Renewal extends a lease. It counts from the moment its challenge was sent.
type Renewal struct {
	Permit    string `json:"permit"`
	Sequence  uint64 `json:"sequence"`
	Challenge string `json:"challenge"`
	// Millis is the period of the lease that this renewal grants.
	Millis int64 `json:"millis"`
	// Key is the issuer's key id, Signature is over TagRenewal ‖ JCS of the
	// members above, base64.
	Key       string `json:"key"`
	Signature string `json:"sig"`
}

// Exit is how an execution's first process ended.
type Exit struct {
	// Code is the exit status, or 128 + Signal.
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// Launch is everything an enforcement point needs to start one execution.
// Strings are raw, as the kernel takes them.
type Launch struct {
	ID      string // of the permit
	Request *Request
	Rights  *Rights
	// Program is the resolved command, open; its digest is in Request. What
	// is executed is this file, whatever its path says by then.
	Program *os.File
	Argv    []string
	Env     []string // the flow scrubs it to Rights.Environment
	Dir     string
	// Stdin, Stdout, Stderr pass through untouched.
	Stdin, Stdout, Stderr *os.File
	Lease                 time.Duration
	Gate                  Gate
	// CheckRenewal verifies a renewal's signature, permit and sequence.
	CheckRenewal func(Renewal) error
	// Ready is called when the rights are in force and the canary was refused,
	// before the workload is released; an error ends the launch. The flow
	// records the start there.
	Ready func(Applied) error
	// Egress serves the proxy on a listener that only the execution reaches;
	// it returns when the listener closes. Nil: no network.
	Egress func(net.Listener)
	// Recheck, where set, has open connections decided again; the flow calls
	// it when labels or the policy set changed.
	Recheck func()
	// BytesOut, where set, counts what left through the proxy.
	BytesOut func() int64
	// Observe has each file that is about to be opened, made, renamed or
	// removed told to Gate.Seen: what learn learns from. Nothing is refused
	// by it.
	Observe bool
	// Hidden are raw paths that must not exist inside: Exeq's state.
	Hidden []string
	// Scratch is a directory of Exeq's own outside the governed side's reach,
	// for the store of approved programs.
	Scratch string
}

// Enforcer applies rights and starts executions.
//
// Launch fails closed: it returns an error wrapping [ErrEnforce] and leaves
// nothing alive unless the rights are in force, the canary was refused and the
// workload was released. The tier achieved is never below Rights.TierFloor.
type Enforcer interface {
	// Tier is what this enforcer will achieve, found by an active self-test.
	Tier() Tier
	Launch(ctx context.Context, l *Launch) (Running, error)
}

// Stager is an Enforcer that can make what rights need (rulesets, mounts,
// processes that wait) while the permit is being recorded. It asks the gate
// nothing, and neither the program nor anything else of the governed side runs,
// before Launch of the same l, which finds the errors. A launch that never comes
// leaves nothing alive once the enforcer is closed.
type Stager interface {
	Stage(ctx context.Context, l *Launch)
}

// Running is one live execution.
type Running interface {
	Applied() Applied
	// Evidence measures now and sends a new challenge. Calls do not overlap.
	// Once the tree is gone it returns ErrGone, as Renew does.
	Evidence(ctx context.Context) (*Evidence, error)
	// Renew extends the lease from the moment the renewal's challenge was
	// sent; an unknown, used or older challenge is refused.
	Renew(r Renewal) error
	// Reload tells enforcement that the policy set changed: cached rulings
	// are void and open connections are decided again.
	// Whoever decides besides takes back what the set in force denies. An error:
	// it did not, and the execution must end.
	Reload(ctx context.Context) error
	// Hold stops every process and suspends the lease; Resume goes on.
	Hold() error
	Resume() error
	// Stops delivers true when every process has been stopped from within
	// (^Z) and false when they go on again.
	Stops() <-chan bool
	// Kill ends the whole tree and returns when nothing of it is alive.
	Kill(reason string) error
	// Exited returns when the whole tree is gone.
	Exited()
	// Lapsed says, once the tree is gone, why the lease's holder killed it;
	// nil when it did not. A *[QuotaError]: the permit's wall time was up, a
	// bound that no renewal passes. Renew answers with the same. An ErrRevoked:
	// a revocation reached whoever holds it besides before it reached us.
	Lapsed() error
	// Wait returns how the first process ended, when the whole tree is gone.
	Wait() (Exit, error)
}
