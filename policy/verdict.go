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

// settled says what is known of a candidate before Cedar is asked.
type settled uint8

const (
	fails settled = iota
	holds
	askRest // Cedar has to be asked for what is not quick
	askAll  // and for everything
)

// settle holds the quick conditions of a rule against the query.
func (q *query) settle(r *rule) settled {
	for _, k := range r.quick {
		switch ok, known := q.ask(k); {
		case !known:
			return askAll
		case !ok:
			return fails
		}
	}
	if r.rest == nil {
		return holds
	}
	return askRest
}

// condition gives what Cedar is asked for, and what that looks at.
func (r *rule) condition(s settled) (*cedar.Policy, deps) {
	switch s {
	case askRest:
		return r.rest, r.left
	case askAll:
		return r.cond, r.pending
	}
	return nil, 0
}

// evaluate finds the candidates and evaluates each once, forbids and permits
// apart: Cedar would drop the permits that hold once a forbid does, and skip a
// forbid that errs.
func (q *query) evaluate() (o outcome) {
	q.set.index.find(q, false)
	var want deps
	var ask [2]bool // by effect
	state := q.settled[:0]
	for _, i := range q.found {
		r := q.set.rules[i]
		s := q.settle(r)
		state = append(state, s)
		if c, d := r.condition(s); c != nil {
			want |= d
			ask[effect(r.permit)] = true
		}
	}
	if want != 0 {
		q.need(want)
	}
	o.forbids = q.hold(false, ask[0], state, q.forbids[:0], &o.errors)
	o.permits = q.hold(true, ask[1], state, q.permits[:0], &o.errors)
	if len(o.errors) > 1 {
		slices.SortFunc(o.errors, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	}
	return o
}

func effect(permit bool) int {
	if permit {
		return 1
	}
	return 0
}

// hold gives the candidates of one effect that hold, ascending.
func (q *query) hold(permit, ask bool, state []settled, out []*rule, errors *[]*rule) []*rule {
	var diag cedar.Diagnostic
	if ask {
		_, diag = cedar.Authorize(pending{q, permit, state}, q, q.cedarRequest())
	}
	// Reasons and errors stand in the order in which pending gave the policies.
	for n, i := range q.found {
		r := q.set.rules[i]
		switch {
		case r.permit != permit || state[n] == fails:
		case state[n] == holds:
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

// pending is the candidates of one effect for which Cedar is asked.
type pending struct {
	q      *query
	permit bool
	state  []settled
}

// All implements [cedar.PolicyIterator].
func (p pending) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for n, i := range p.q.found {
			r := p.q.set.rules[i]
			if c, _ := r.condition(p.state[n]); r.permit == p.permit && c != nil && !yield(cedar.PolicyID(r.id), c) {
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
	why = o.judge(&d, approved, present)
	return d, why
}

// judge is verdict into a decision that says nothing yet.
func (o *outcome) judge(d *exeq.Decision, approved, present []string) cause {
	d.Verdict, d.Policies = exeq.Deny, []string{}
	if len(o.errors) > 0 {
		d.Policies = ids(o.errors)
		return byError
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
	if final := slices.DeleteFunc(slices.Clone(left), resolvable); len(final) > 0 {
		d.Policies = ids(final)
		return byForbid
	}
	if len(o.permits) == 0 {
		return byNothing
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
		return byObligation
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
		return byNeed
	}
	d.Verdict, d.Policies, d.Obligations, d.Labels = exeq.Allow, ids(o.permits), obligations, labels
	if len(obligations) > 0 {
		d.Verdict = exeq.Modify
	}
	return byPermit
}

func resolvable(r *rule) bool { return r.resolve != "" }

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
	if len(o.errors) > 0 || len(d.Labels) > 0 || len(d.Needs) > 0 || q.unseen&volatile[q.action.class] != 0 {
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

// decide evaluates a query and applies the verdict algorithm; d says nothing
// yet.
func (q *query) decide(d *exeq.Decision) (outcome, cause) {
	o := q.evaluate()
	why := o.judge(d, q.in.Approved, q.in.Present)
	d.PolicySet = q.set.digest
	d.Static = q.static(&o, d)
	return o, why
}
