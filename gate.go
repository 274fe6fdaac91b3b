package exeq

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Ask implements Gate: the activity is decided by the active set with the
// session as it stands.
func (x *Execution) Ask(ctx context.Context, a Activity) Ruling {
	if s := x.State(); s != Live && s != Admitted {
		return Ruling{Message: fmt.Sprintf("%s denied: the execution is %s", a.Action, s)}
	}
	d, why := x.judge(ctx, a)
	if !d.Verdict.Permits() {
		return x.denied(ctx, a, d, why)
	}
	if err := x.permittedActivity(ctx, a, d); err != nil {
		x.end("record", err)
		return Ruling{Message: a.Action + " denied: it could not be recorded"}
	}
	return Ruling{Allow: true, Cacheable: d.Static && len(d.Labels) == 0, Decision: d}
}

// Explain implements Gate.
func (x *Execution) Explain(ctx context.Context, a Activity) string {
	d, why := x.judge(ctx, a)
	if d.Verdict.Permits() {
		return ""
	}
	return worded(a, why)
}

// judge decides an activity. Whatever is not clearly permitted is denied, and
// why says for what reason.
func (x *Execution) judge(ctx context.Context, a Activity) (d Decision, why string) {
	deny := func(d Decision, why string) (Decision, string) {
		d.Verdict = Deny
		return d, why
	}
	r := x.requestFor(a)
	if err := r.Validate(); err != nil {
		return deny(Decision{}, err.Error())
	}
	in := x.inputs
	in.Session, in.Time = x.snapshot(), At(time.Now())
	d, err := x.active().Decide(ctx, r, &in)
	switch {
	case err != nil:
		return deny(d, err.Error())
	case d.Verdict.Permits() && len(d.Obligations) > 0:
		return deny(d, "the policy asks for obligations that no activity can meet: "+fmt.Sprint(d.Obligations))
	}
	return d, d.Reason
}

func worded(a Activity, why string) string {
	return fmt.Sprintf("%s %s denied: %s", a.Action, a.Resource.ID, why)
}

// Seen implements Gate.
func (x *Execution) Seen(a Activity, allowed bool) {
	v := Allow
	if !allowed {
		v = Deny
	}
	x.note(ActivityEntry{Time: At(time.Now()), Activity: a, Verdict: v})
}

// requestFor makes the request that an activity is decided as: by the run's
// own agent, never another.
func (x *Execution) requestFor(a Activity) *Request {
	c := x.Request.Context
	if a.Action == ActionExec {
		c.Command = CommandLine(a.Argv)
	}
	return &Request{
		Subject: x.Request.Subject, OnBehalfOf: x.Request.OnBehalfOf,
		Action: a.Action, Resource: a.Resource, Argv: a.Argv, Dir: a.Dir, Context: c,
	}
}

// denied records a denial at once and words it for the person. Whoever is denied
// in a loop does not fill the disk with it.
func (x *Execution) denied(ctx context.Context, a Activity, d Decision, why string) Ruling {
	x.mu.Lock()
	x.session.Denials++
	over := x.session.Denials > cmp.Or(x.governor.DenialLeaves, MaxDenialLeaves)
	if over {
		x.unleaved[denialKind{a.Action, a.Resource.Type}]++
	}
	x.mu.Unlock()
	if over {
		return Ruling{Decision: d, Message: worded(a, why)}
	}
	e := ActivityEntry{Time: At(time.Now()), Activity: a, Verdict: d.Verdict, Policies: d.Policies}
	if err := x.activities(ctx, []ActivityEntry{e}, d.Verdict, d.Policies); err != nil {
		x.end("record", err)
	}
	return Ruling{Decision: d, Message: worded(a, why)}
}

// permittedActivity counts an allowed activity. One that sets a label which
// the session did not hold is on record before it returns.
func (x *Execution) permittedActivity(ctx context.Context, a Activity, d Decision) error {
	e := ActivityEntry{Time: At(time.Now()), Activity: a, Verdict: d.Verdict, Policies: d.Policies, Labels: d.Labels}
	x.mu.Lock()
	labels := union(x.session.Labels, d.Labels)
	grown := len(labels) > len(x.session.Labels)
	x.session.Labels = labels
	if grown {
		x.count(a.Action)
	}
	x.mu.Unlock()
	if !grown {
		x.note(e)
		return nil
	}
	if err := x.activities(ctx, []ActivityEntry{e}, d.Verdict, d.Policies); err != nil {
		return err
	}
	x.recheck()
	return nil
}

// note keeps an activity for the tick's leaf.
func (x *Execution) note(e ActivityEntry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.Verdict.Permits() {
		x.count(e.Activity.Action)
	} else {
		x.session.Denials++
	}
	if len(x.pending) >= 16*MaxTickActivities {
		x.dropped++
		return
	}
	x.pending = append(x.pending, e)
}

// count adds to the session; x.mu is held.
func (x *Execution) count(action string) {
	x.counts[action]++
	switch action {
	case ActionExec:
		x.session.Execs++
	case ActionRead:
		x.session.Reads++
	case ActionWrite:
		x.session.Writes++
	case ActionConnect:
		x.session.Connects++
	}
}

// recheck has open connections decided again.
func (x *Execution) recheck() {
	if x.launch.Recheck != nil {
		x.launch.Recheck()
	}
}

func union(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}
