package policy

import (
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"

	"github.com/exeq/exeq"
)

// outcome is what evaluating each candidate once has given. The lists hold
// rules in ascending order of id.
type outcome struct {
	errors  []*rule
	forbids []*rule
	permits []*rule
}

// one makes a single policy iterable, which is how cedar-go takes it.
type one struct{ p *cedar.Policy }

func (o one) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) { yield("", o.p) }
}

// holds evaluates conditions alone; nil holds always.
func (q *query) holds(p *cedar.Policy) (bool, error) {
	if p == nil {
		return true, nil
	}
	_, diag := cedar.Authorize(one{p}, q, q.cedarRequest())
	if len(diag.Errors) > 0 {
		return false, evaluationError(diag.Errors[0].Message)
	}
	return len(diag.Reasons) > 0, nil
}

type evaluationError string

func (e evaluationError) Error() string { return string(e) }

// evaluate finds the candidates and evaluates each once, forbids and permits
// apart: Cedar would drop the permits that hold once a forbid does, and skip a
// forbid that errs.
func (q *query) evaluate() (o outcome) {
	q.set.index.find(q)
	var want deps
	for _, i := range q.found {
		want |= q.set.rules[i].pending
	}
	q.need(want)
	o.forbids = q.hold(false, q.forbids[:0], &o.errors)
	o.permits = q.hold(true, q.permits[:0], &o.errors)
	if len(o.errors) > 1 {
		slices.SortFunc(o.errors, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	}
	return o
}

// hold gives the candidates of one effect that hold, ascending.
func (q *query) hold(permit bool, out []*rule, errors *[]*rule) []*rule {
	var diag cedar.Diagnostic
	if slices.ContainsFunc(q.found, func(i int32) bool { r := q.set.rules[i]; return r.permit == permit && r.cond != nil }) {
		_, diag = cedar.Authorize(pending{q, permit}, q, q.cedarRequest())
	}
	// Reasons and errors stand in the order in which pending gave the policies.
	for _, i := range q.found {
		r := q.set.rules[i]
		switch {
		case r.permit != permit:
		case r.cond == nil:
			out = append(out, r)
		case len(diag.Reasons) > 0 && string(diag.Reasons[0].PolicyID) == r.id:
			out, diag.Reasons = append(out, r), diag.Reasons[1:]
		case len(diag.Errors) > 0 && string(diag.Errors[0].PolicyID) == r.id:
			*errors, diag.Errors = append(*errors, r), diag.Errors[1:]
		}
	}
	if len(diag.Reasons)+len(diag.Errors) > 0 { // it answered for what it was not asked
		for _, i := range q.found {
			*errors = append(*errors, q.set.rules[i])
		}
	}
	return out
}

// pending is the candidates of one effect whose conditions are to be evaluated.
type pending struct {
	q      *query
	permit bool
}

// All implements [cedar.PolicyIterator].
func (p pending) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, i := range p.q.found {
			r := p.q.set.rules[i]
			if r.permit == p.permit && r.cond != nil && !yield(cedar.PolicyID(r.id), r.cond) {
				return
			}
		}
	}
}

// Ways in which a decision falls; for its explanation.
type cause int

const (
	byPermit cause = iota
	byError
	byForbid
	byNothing
	byObligation
	byNeed
)

// verdict applies the algorithm of the design, section 4, to an outcome.
func (o *outcome) verdict(approved, present []string) (d exeq.Decision, why cause) {
	d = exeq.Decision{Verdict: exeq.Deny, Policies: []string{}}
	if len(o.errors) > 0 {
		d.Policies = ids(o.errors)
		return d, byError
	}
	left := o.forbids
	if slices.ContainsFunc(left, func(r *rule) bool { return r.lifted(approved, present) }) {
		left = nil
		for _, r := range o.forbids {
			if !r.lifted(approved, present) {
				left = append(left, r)
			}
		}
	}
	if final := slices.DeleteFunc(slices.Clone(left), func(r *rule) bool { return r.resolve != "" }); len(final) > 0 {
		d.Policies = ids(final)
		return d, byForbid
	}
	if len(o.permits) == 0 {
		return d, byNothing
	}
	var obligations, labels []string
	for _, r := range o.permits {
		obligations = append(obligations, r.obligations...)
		labels = append(labels, r.labels...)
	}
	obligations, labels = distinct(obligations), distinct(labels)
	// Before the forbids that can be lifted: else lifting one would turn a
	// step_up into this denial, and an approval would lower the verdict.
	if conflicting(obligations) || slices.ContainsFunc(obligations, func(ob string) bool { return checkObligation(ob) != nil }) {
		d.Policies = ids(o.permits)
		return d, byObligation
	}
	if len(left) > 0 {
		d.Verdict = exeq.StepUp
		for _, r := range left {
			if strings.HasPrefix(r.resolve, "defer:") {
				d.Verdict = exeq.Defer
			}
			d.Needs = append(d.Needs, r.resolve)
		}
		d.Needs = distinct(d.Needs)
		d.Policies = ids(left)
		return d, byNeed
	}
	d.Verdict, d.Policies, d.Obligations, d.Labels = exeq.Allow, ids(o.permits), obligations, labels
	if len(obligations) > 0 {
		d.Verdict = exeq.Modify
	}
	return d, byPermit
}

// lifted reports whether what the forbid waits for exists.
func (r *rule) lifted(approved, present []string) bool {
	if g, ok := strings.CutPrefix(r.resolve, "step_up:"); ok {
		return slices.Contains(approved, g)
	}
	if w, ok := strings.CutPrefix(r.resolve, "defer:"); ok {
		return slices.Contains(present, w)
	}
	return false
}

// static reports whether the decision holds for this resource as long as the
// execution lives: no candidate, satisfied or not, looks at what can change.
func (q *query) static(o *outcome, d *exeq.Decision) bool {
	if len(o.errors) > 0 || len(d.Labels) > 0 || len(d.Needs) > 0 {
		return false
	}
	for _, i := range q.found {
		if q.set.rules[i].uses&volatile[q.action.class] != 0 {
			return false
		}
	}
	// A forbid that an approval lifted: the approval may be for this once.
	return !slices.ContainsFunc(o.forbids, func(r *rule) bool { return r.resolve != "" })
}

func ids(rules []*rule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.id
	}
	return out
}

// distinct sorts and drops repeats; nothing stays nil.
func distinct(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// decide evaluates a query and applies the verdict algorithm.
func (q *query) decide() (exeq.Decision, outcome, cause) {
	o := q.evaluate()
	d, why := o.verdict(q.in.Approved, q.in.Present)
	d.PolicySet = q.set.digest
	d.Static = q.static(&o, &d)
	return d, o, why
}
