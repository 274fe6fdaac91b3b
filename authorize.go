package exeq

import (
	"context"
	"errors"
	"fmt"
)

// Authorization is a recorded permit with all that its enforcing side needs to
// check it: what was asked is the asker's own.
type Authorization struct {
	ID       string // of the permit, and of the execution that it starts
	Decision Decision
	Permit   *Permit
	Record   *PermitRecord
	Rights   *Rights
}

// Authorize takes a request as far as a recorded permit, for an enforcing side
// elsewhere: whoever the permit's audience is admits it, and starts what it
// permits. A request that yields none is denied on record; the error wraps
// [ErrDenied], and the authorization holds the decision alone. Of g it uses
// Policies, Issuer, Recorder, IssuerKey, Actor, Within and Log.
func (g *Governor) Authorize(ctx context.Context, r *Request, in Inputs, parent string) (*Authorization, error) {
	x := newExecution(g, &Launch{Request: r}, in, parent)
	out := &Authorization{ID: x.ID}
	d, err := g.decide(ctx, x)
	out.Decision = d
	if err != nil {
		x.refuse(ctx, d, err)
		return out, err
	}
	on, err := g.permit(ctx, x, d)
	if err != nil {
		return out, g.fail(x, err)
	}
	out.Permit, out.Record, out.Rights = x.permit, on, x.rights
	return out, nil
}

// decide asks the active policy set. Whatever is not clearly a permit denies.
func (g *Governor) decide(ctx context.Context, x *Execution) (Decision, error) {
	deny := Decision{Verdict: Deny, Policies: []string{}}
	if err := x.Request.Validate(); err != nil {
		return deny, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if g.Authority != nil {
		return g.askAuthority(ctx, x)
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
	x.decider, x.rights, x.granted = decider, rights, rights
	return d, nil
}

// permit issues and records; only then may the permit leave.
func (g *Governor) permit(ctx context.Context, x *Execution, d Decision) (*PermitRecord, error) {
	if x.on != nil { // by an authority
		x.move(Permitted)
		x.move(Recorded)
		return x.on, nil
	}
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

// Authority is a decision point elsewhere that issues and records, too.
//
// Authorize returns a permit only when it is on record there. A denial is on
// record there as well: the error then wraps [ErrDenied] beside an authorization
// that holds id and decision. Any other error gives nothing, and nothing runs; it
// is never answered by deciding here instead.
type Authority interface {
	Authorize(ctx context.Context, r *Request, t Tier) (*Authorization, error)
}

// askAuthority is decide where another decides. The permit's rights are the upper
// bound: what is in force here may be narrower.
func (g *Governor) askAuthority(ctx context.Context, x *Execution) (Decision, error) {
	a, err := g.Authority.Authorize(ctx, x.Request, x.inputs.Tier)
	if a == nil {
		return Decision{Verdict: Deny, Policies: []string{}}, err
	}
	x.ID, x.launch.ID = a.ID, a.ID
	if err != nil {
		x.deniedThere = errors.Is(err, ErrDenied)
		return a.Decision, err
	}
	leaf, err := ParseLeaf(a.Record.Leaf)
	if err == nil && (leaf.Execution != a.ID || a.Permit.Body.ID != a.ID) {
		err = fmt.Errorf("%w: permit and record are of another execution", ErrPermit)
	}
	if err != nil {
		return a.Decision, err
	}
	x.permit, x.on, x.granted, x.rights = a.Permit, a.Record, a.Rights, a.Rights
	x.seq, x.prev = leaf.Seq+1, LeafHash(a.Record.Leaf)
	if x.decider, err = g.Policies.Active(ctx); err == nil && x.decider.PolicySet() != a.Decision.PolicySet {
		err = fmt.Errorf("%w: the policy set changed while it was decided: ask again", ErrDenied)
	}
	if err == nil && g.Within != nil {
		x.rights, err = g.Within(a.Rights)
	}
	return a.Decision, err
}
