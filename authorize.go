package exeq

import "context"

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
