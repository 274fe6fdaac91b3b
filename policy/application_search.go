package policy

import (
	"context"
	"maps"
	"slices"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
)

// Search gives the evaluations that would be permitted, one for each subject,
// resource or action that the application knows and that could stand in the place
// of what is searched for, in the order of their ids. It asks about every one of
// them. What the application does not know, or what is not as its schema has it,
// is found nowhere.
func (a *Application) Search(ctx context.Context, e *authzen.Evaluation, k authzen.Kind) ([]authzen.Evaluation, error) {
	found := []authzen.Evaluation{}
	for _, c := range a.candidates(e, k) {
		switch d, err := a.Decide(ctx, &c); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil && d.Verdict == exeq.Allow:
			found = append(found, c)
		}
	}
	return found, nil
}

// candidates are the evaluations to hold against the policies.
func (a *Application) candidates(e *authzen.Evaluation, k authzen.Kind) (out []authzen.Evaluation) {
	if k == authzen.Actions {
		for _, name := range slices.Sorted(maps.Keys(a.actions)) {
			c := *e
			c.Action = &authzen.Action{Name: name}
			out = append(out, c)
		}
		return out
	}
	of := e.Subject
	if k == authzen.Resources {
		of = e.Resource
	}
	for _, uid := range a.listed[a.kinds[of.Type]] {
		c, one := *e, &authzen.Entity{Type: of.Type, ID: string(uid.ID), Properties: of.Properties}
		if k == authzen.Subjects {
			c.Subject = one
		} else {
			c.Resource = one
		}
		out = append(out, c)
	}
	return out
}
