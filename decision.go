package exeq

import "context"

// Verdict is the outcome of a decision.
type Verdict string

const (
	// Allow yields a permit.
	Allow Verdict = "allow"
	// Modify yields a permit with obligations that change the request.
	Modify Verdict = "modify"
	// Deny yields nothing.
	Deny Verdict = "deny"
	// StepUp is a denial until each approval named in Needs exists.
	StepUp Verdict = "step_up"
	// Defer is a denial until each context named in Needs is supplied.
	Defer Verdict = "defer"
)

// Permits reports whether the verdict yields a permit.
func (v Verdict) Permits() bool { return v == Allow || v == Modify }

// Decision is what a decision point answers. The same request, inputs and
// policy set give the same bytes: every list is sorted and without repeats.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	// Policies are the ids of the determining policies.
	Policies []string `json:"policies"`
	// Needs holds "step_up:GROUP" or "defer:WHAT".
	Needs       []string `json:"needs,omitempty"`
	Obligations []string `json:"obligations,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	// PolicySet is the digest of the set that decided.
	PolicySet Digest `json:"policySet"`
	// Static says that neither session, risk, time nor arguments had a part
	// in it: the ruling may be cached for this resource under this policy set.
	Static bool `json:"-"`
	// Reason explains in words for the person at the terminal. Neither hashed
	// nor published: it may carry values.
	Reason string `json:"-"`
}

// Decider is a policy decision point.
//
// Decide never returns a permitting verdict beside a non-nil error, and any
// doubt (evaluation error, unknown entity, missing attribute, empty set) is a
// Deny. It is safe for concurrent use and a pure function of its arguments and
// the active policy set, whose digest it returns in the decision.
type Decider interface {
	Decide(ctx context.Context, r *Request, in *Inputs) (Decision, error)
	// Compile turns the active set into the rights of an execution that r
	// starts: the upper bound that enforcement installs. The decision for r
	// must have permitted. Rights equal naive evaluation of the set over
	// every path (differentially tested in policy).
	Compile(ctx context.Context, r *Request, in *Inputs, d Decision) (*Rights, error)
	// PolicySet is the digest of the active set.
	PolicySet() Digest
}
