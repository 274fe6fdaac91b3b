package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
	"github.com/exeq/exeq/policy"
)

// decide answers one question. What is wrong with the question beyond the API's
// own rules denies, and says so; an error is the server's.
func (s *Server) decide(ctx context.Context, e *authzen.Evaluation) (authzen.Decision, error) {
	wants, err := wishesOf(e)
	var d exeq.Decision
	var permit *grant
	if err == nil {
		d, permit, err = s.judge(ctx, e, wants)
	}
	var unfit unfit
	switch {
	case errors.As(err, &unfit):
		return authzen.Decision{Context: errorContext(err)}, nil
	case err != nil:
		return authzen.Decision{}, err
	}
	// Obligations are met by whoever holds a permit; advice has none.
	out := authzen.Decision{Decision: d.Verdict == exeq.Allow || d.Verdict == exeq.Modify && permit != nil}
	if said := (answer{Permit: permit}); wants.Explain || len(d.Needs)+len(d.Obligations) > 0 || permit != nil {
		said.Verdict, said.Needs, said.Obligations = d.Verdict, d.Needs, d.Obligations
		if wants.Explain {
			said.Policies, said.PolicySet, said.Reason = d.Policies, d.PolicySet, d.Reason
		}
		out.Context = map[string]any{"exeq": said}
	}
	return out, nil
}

// wishes are the member "exeq" of a question's context.
type wishes struct {
	Explain bool
	Permit  *exeq.Audience // for whom one is asked; nil: for nobody
}

func wishesOf(e *authzen.Evaluation) (w wishes, err error) {
	of, ok := e.Context["exeq"]
	if !ok {
		return w, nil
	}
	m, ok := of.(map[string]any)
	if !ok {
		return w, unfit{errors.New("context.exeq: want an object")}
	}
	if v, ok := m["explain"]; ok {
		if w.Explain, ok = v.(bool); !ok {
			return w, unfit{errors.New("context.exeq.explain: want a boolean")}
		}
	}
	v, ok := m["permit"]
	if !ok {
		return w, nil
	}
	object, ok := v.(map[string]any)
	to := members{object, "context.exeq.permit.", nil}
	if !ok {
		return w, unfit{errors.New("context.exeq.permit: want an object: node, bootId and epoch of the enforcement point")}
	}
	w.Permit = &exeq.Audience{Node: to.text("node"), BootID: to.text("bootId"), Epoch: to.text("epoch")}
	if to.err == nil && (w.Permit.Node == "" || w.Permit.BootID == "" || w.Permit.Epoch == "") {
		to.err = errors.New("context.exeq.permit: needs node, bootId and epoch")
	}
	if to.err != nil {
		return w, unfit{to.err}
	}
	return w, nil
}

// answer is the member "exeq" of an answer's context.
type answer struct {
	Verdict     exeq.Verdict `json:"verdict"`
	Needs       []string     `json:"needs,omitempty"`
	Obligations []string     `json:"obligations,omitempty"`
	Policies    []string     `json:"policies,omitempty"`
	PolicySet   exeq.Digest  `json:"policySet,omitzero"`
	Reason      string       `json:"reason,omitempty"`
	Permit      *grant       `json:"permit,omitempty"`
}

// grant is a recorded permit with all that its enforcement point needs to check
// it, but the request, which is its own.
type grant struct {
	Execution string             `json:"execution"`
	Envelope  json.RawMessage    `json:"envelope"` // DSSE
	Record    *exeq.PermitRecord `json:"record"`
	Rights    *exeq.Rights       `json:"rights"`
}

// unfit is what is wrong with a question that the API's own rules let pass.
type unfit struct{ error }

// unfitting takes an error for the question's own fault, unless time ran out.
func unfitting(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return unfit{err}
}

// judge asks who decides about the subject's type.
func (s *Server) judge(ctx context.Context, e *authzen.Evaluation, w wishes) (exeq.Decision, *grant, error) {
	if a := s.application(e); a != nil {
		if w.Permit != nil {
			return exeq.Decision{}, nil, unfit{errors.New("context.exeq.permit: permits are for the action run; an application's decisions start nothing")}
		}
		d, err := a.Decide(ctx, e)
		return d, nil, unfitting(ctx, err)
	}
	r, in, err := coreRequest(e)
	if err != nil {
		return exeq.Decision{}, nil, unfit{err}
	}
	if w.Permit != nil {
		return s.authorize(ctx, *w.Permit, r, in)
	}
	set, err := s.policies.Active(ctx)
	if err != nil {
		return exeq.Decision{}, nil, fmt.Errorf("no policy set is active: %w", err)
	}
	d, err := set.Decide(ctx, r, in)
	return d, nil, unfitting(ctx, err)
}

// authorize gives a permit that is on record. A denial is on record, too.
func (s *Server) authorize(ctx context.Context, to exeq.Audience, r *exeq.Request, in *exeq.Inputs) (exeq.Decision, *grant, error) {
	if r.Action != exeq.ActionRun {
		return exeq.Decision{}, nil, unfit{fmt.Errorf("context.exeq.permit: permits are for the action run, not for %q", r.Action)}
	}
	if err := r.Validate(); err != nil {
		return exeq.Decision{}, nil, unfit{err}
	}
	a, err := s.config.Installation.Authorize(ctx, to, r, *in)
	switch {
	case errors.Is(err, exeq.ErrDenied):
		a.Decision.Verdict = denial(a.Decision.Verdict)
		a.Decision.Reason = err.Error()
		return a.Decision, nil, nil
	case err != nil:
		return exeq.Decision{}, nil, err
	}
	return a.Decision, &grant{a.ID, a.Permit.Envelope, a.Record, a.Rights}, nil
}

// denial is a verdict that yielded no permit.
func denial(v exeq.Verdict) exeq.Verdict {
	if v.Permits() {
		return exeq.Deny
	}
	return v
}

// application is the one that has the subject's type; nil: it is Exeq's own, or
// nobody's.
func (s *Server) application(e *authzen.Evaluation) *policy.Application {
	for _, a := range s.config.Applications {
		if a.Decides(e) {
			return a
		}
	}
	return nil
}
