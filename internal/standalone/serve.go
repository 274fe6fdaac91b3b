package standalone

import (
	"context"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/remote"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/policy"
)

// Policies is where the active set comes from.
func (in *Installation) Policies() exeq.PolicySource { return in.policies }

// Here is this installation as the enforcing side of a server's permits: its node
// key and its burn list.
func (in *Installation) Here() remote.Here {
	return remote.Here{
		Audience: in.audience, Public: in.Keys.Public(exeq.RoleNode), Key: in.Keys.Signer(exeq.RoleNode), Burner: in.Store,
	}
}

// ActiveSet is the policy set in force.
func (in *Installation) ActiveSet(ctx context.Context) (*policy.Set, error) {
	d, err := in.policies.Active(ctx)
	if err != nil {
		return nil, err
	}
	return d.(*policy.Set), nil
}

// Issuer renews and revokes permits of this installation.
func (in *Installation) Issuer() exeq.Issuer { return in.issuer }

// Authorize gives a recorded permit for an enforcement point elsewhere, or denies
// on record; see [exeq.Governor.Authorize]. What this machine keeps from its own
// executions is not in the rights: it is not there that they bite.
func (in *Installation) Authorize(ctx context.Context, to exeq.Audience, r *exeq.Request, inputs exeq.Inputs) (*exeq.Authorization, error) {
	issuer, err := permit.NewIssuer(permit.IssuerConfig{
		Key: in.Keys.Signer(exeq.RoleIssuer), Audience: to, Checkpoint: in.Store.Latest,
	})
	if err != nil {
		return nil, err
	}
	g := &exeq.Governor{
		Policies: in.policies, Issuer: issuer, Recorder: in.Store,
		IssuerKey: in.Keys.Signer(exeq.RoleIssuer), Actor: in.actor, Log: in.Log,
	}
	return g.Authorize(ctx, r, inputs, "")
}

// DrainWhile brings what is recorded into the log until ctx ends, and then what is
// left: for a process that stays. Where it fails it tries again; meanwhile permits
// are refused once the log lags too far.
func (in *Installation) DrainWhile(ctx context.Context) error {
	t := time.NewTicker(exeq.MaxMergeDelay / 20)
	defer t.Stop()
	for {
		if err := in.drainWaiting(ctx); err != nil && ctx.Err() == nil {
			in.Log.Error("what is recorded does not reach the log; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), exeq.MaxMergeDelay)
			defer cancel()
			return in.drainWaiting(end)
		case <-t.C:
		}
	}
}

func (in *Installation) drainWaiting(ctx context.Context) error {
	n, _, err := in.Store.Lag(ctx)
	if err != nil || n == 0 {
		return err
	}
	return in.Store.Drain(ctx)
}
