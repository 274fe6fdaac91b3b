package exeq

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Governor runs the flow of doc.go. Its parts are interfaces whose comments
// are their contracts; the same flow runs standalone and across processes.
type Governor struct {
	Policies  PolicySource
	Issuer    Issuer
	Recorder  Recorder
	Admitter  Admitter
	Enforcer  Enforcer
	Appraiser Appraiser
	// Authority, where it is set, decides, permits and records in place of
	// Policies, Issuer and Recorder, which go on from there.
	Authority Authority
	// IssuerKey signs denials and revocations in the record, NodeKey what the
	// enforcing side numbers: start, activity, appraisal, end.
	IssuerKey, NodeKey Signer
	// Actor gives the opaque id of a subject.
	Actor func(Entity) string
	// Revocations delivers verified revocations of one execution.
	Revocations func(ctx context.Context, id string) <-chan Revocation
	// Within narrows compiled rights (a nested run lies within its parent);
	// nil leaves them as they are, an error denies.
	Within       func(*Rights) (*Rights, error)
	Log          *slog.Logger
	Tick, Lease  time.Duration
	DenialLeaves int // of one execution at most; 0: MaxDenialLeaves
}

// Outcome is what became of a request.
type Outcome struct {
	ID       string
	State    State // Denied, Failed, Sealed, or Ending with ErrUnsealed
	Decision Decision
	Exit     Exit
	// Code is the code of the end leaf, or of the revocation that ended it.
	Code string
}

// Run takes one request through the whole flow and returns when the execution
// is sealed, denied or refused. The error, if any, wraps one sentinel of
// errors.go; unless the state is Sealed or Ending nothing ran.
func (g *Governor) Run(ctx context.Context, l *Launch, in Inputs, parent string) (*Outcome, error) {
	x := newExecution(g, l, in, parent)
	out := &Outcome{ID: x.ID, State: Failed}

	// Decide: a permitting verdict or nothing.
	d, err := g.decide(ctx, x)
	out.ID, out.Decision = x.ID, d
	if err != nil {
		out.State = x.refuse(ctx, d, err)
		return out, err
	}

	x.stage(ctx)

	// Permit, then record: the permit is inert until its leaf is durable and
	// a place in the log is promised.
	on, err := g.permit(ctx, x, d)
	if err != nil {
		return out, g.fail(x, err)
	}

	// Enforce: the enforcing side checks for itself and burns the nonce; the
	// start is on record before the workload is released.
	if err := g.Admitter.Admit(ctx, x.permit, on, l.Request, x.granted); err != nil {
		x.refuse(ctx, d, err)
		return out, g.fail(x, err)
	}
	x.move(Admitted)
	l.CheckRenewal = g.Admitter.CheckRenewal(x.ID)
	run, err := g.Enforcer.Launch(ctx, l)
	if err != nil {
		// The nonce is burnt and a start may be on record: seal that nothing ran.
		x.move(Ending)
		err = errors.Join(err, x.seal(ctx, out, "failed", Exit{Code: 125}))
		out.State = Failed
		return out, err
	}
	x.move(Live)

	// Verify every tick until the command or trust ends, then seal.
	code, err := x.verify(ctx, run)
	x.move(Ending)
	if code != "exited" {
		code, err = x.kill(run, code, err)
	}
	exit, werr := run.Wait()
	return out, errors.Join(err, werr, x.seal(ctx, out, code, exit))
}

// fail ends a flow in which nothing ran.
func (g *Governor) fail(x *Execution, err error) error {
	x.move(Failed)
	return err
}
