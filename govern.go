package exeq

import (
	"context"
	"errors"
	"fmt"
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
	// IssuerKey signs denials and revocations in the record, NodeKey what the
	// enforcing side numbers: start, activity, appraisal, end.
	IssuerKey, NodeKey Signer
	// Actor gives the opaque id of a subject.
	Actor func(Entity) string
	// Revocations delivers verified revocations of one execution.
	Revocations func(ctx context.Context, id string) <-chan Revocation
	// Within narrows compiled rights (a nested run lies within its parent);
	// nil leaves them as they are, an error denies.
	Within      func(*Rights) (*Rights, error)
	Log         *slog.Logger
	Tick, Lease time.Duration
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
	out.Decision = d
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
	if err := g.Admitter.Admit(ctx, x.permit, on, l.Request, x.rights); err != nil {
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

// decide asks the active policy set. Whatever is not clearly a permit denies.
func (g *Governor) decide(ctx context.Context, x *Execution) (Decision, error) {
	deny := Decision{Verdict: Deny, Policies: []string{}}
	if err := x.Request.Validate(); err != nil {
		return deny, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	decider, err := g.Policies.Active(ctx)
	if err != nil {
		return deny, fmt.Errorf("%w: no policy set is active: %w", ErrDenied, err)
	}
	d, err := decider.Decide(ctx, x.Request, &x.inputs)
	if err != nil {
		d.Verdict = Deny
		return d, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if !d.Verdict.Permits() {
		return d, fmt.Errorf("%w: %s", ErrDenied, d.Reason)
	}
	rights, err := decider.Compile(ctx, x.Request, &x.inputs, d)
	if err == nil && g.Within != nil {
		rights, err = g.Within(rights)
	}
	if err != nil {
		d.Verdict = Deny
		return d, fmt.Errorf("%w: no rights: %w", ErrDenied, err)
	}
	if x.inputs.Tier < rights.TierFloor {
		d.Verdict = Deny
		return d, fmt.Errorf("%w: policy asks for tier %s, this machine gives %s: see exeq doctor", ErrDenied, rights.TierFloor, x.inputs.Tier)
	}
	x.decider, x.rights = decider, rights
	return d, nil
}

// permit issues and records; only then may the permit leave.
func (g *Governor) permit(ctx context.Context, x *Execution, d Decision) (*PermitRecord, error) {
	p, err := g.Issuer.Issue(x.ID, x.Request, &x.inputs, &d, x.rights, x.Parent)
	if err != nil {
		return nil, err
	}
	x.permit = p
	x.move(Permitted)
	on, err := x.permitted(ctx, d)
	if err != nil {
		return nil, err
	}
	x.move(Recorded)
	return on, nil
}

// fail ends a flow in which nothing ran.
func (g *Governor) fail(x *Execution, err error) error {
	x.move(Failed)
	return err
}
