package policy

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/exeq/exeq"
)

// Recorded is one decision of the past.
type Recorded struct {
	ID       string        `json:"id"`
	Request  *exeq.Request `json:"request"`
	Inputs   *exeq.Inputs  `json:"inputs"`
	Decision exeq.Decision `json:"decision"`
}

// Change is a recorded decision that a candidate set would take otherwise.
type Change struct {
	Recorded
	Now exeq.Decision `json:"now"`
}

// Replay decides recorded requests again and gives those whose verdict, needs,
// obligations, labels or determining policies change, in the order of history.
// A request that cannot be decided any more counts as denied. The error is the
// context's.
func (s *Set) Replay(ctx context.Context, history []Recorded) ([]Change, error) {
	workers := min(runtime.GOMAXPROCS(0), len(history)/64+1)
	found := make([][]Change, workers)
	var wg sync.WaitGroup
	for w := range workers {
		part := history[len(history)*w/workers : len(history)*(w+1)/workers]
		wg.Go(func() {
			for i, h := range part {
				if i%1024 == 0 && ctx.Err() != nil {
					return
				}
				if now := s.replayOne(h); !sameDecision(h.Decision, now) {
					found[w] = append(found[w], Change{h, now})
				}
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return slices.Concat(found...), nil
}

func (s *Set) replayOne(h Recorded) (d exeq.Decision) {
	if err := s.judge(&d, h.Request, h.Inputs, false); err != nil {
		d.Verdict = exeq.Deny
	}
	return d
}

// sameDecision compares all that is hashed and published of a decision but the
// set that made it.
func sameDecision(a, b exeq.Decision) bool {
	return a.Verdict == b.Verdict && slices.Equal(a.Policies, b.Policies) && slices.Equal(a.Needs, b.Needs) &&
		slices.Equal(a.Obligations, b.Obligations) && slices.Equal(a.Labels, b.Labels)
}

// Difference is what changed between two sets.
type Difference struct {
	// Added, Removed and Changed are policy ids, sorted. A policy whose layout
	// or comments alone changed is not among them.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Changed []string `json:"changed,omitempty"`
	// Settings and Entities tell whether these files changed.
	Settings bool `json:"settings,omitempty"`
	Entities bool `json:"entities,omitempty"`
	// Decisions are the recorded requests that the new set decides otherwise
	// than the old one.
	Decisions []Change `json:"decisions,omitempty"`
}

// Diff compares two sets by policy, and by what they decide on a history
// (which may be empty; the decisions recorded in it are not looked at).
func Diff(ctx context.Context, from, to *Set, history []Recorded) (*Difference, error) {
	d := &Difference{
		Settings: from.source.Files[SettingsFile] != to.source.Files[SettingsFile],
		Entities: from.source.Files[EntitiesFile] != to.source.Files[EntitiesFile],
	}
	old := map[string]*rule{}
	for _, r := range from.rules {
		old[r.id] = r
	}
	for _, r := range to.rules {
		was, ok := old[r.id]
		switch {
		case !ok:
			d.Added = append(d.Added, r.id)
		case meaning(was) != meaning(r):
			d.Changed = append(d.Changed, r.id)
		}
		delete(old, r.id)
	}
	for _, r := range from.rules {
		if old[r.id] != nil {
			d.Removed = append(d.Removed, r.id)
		}
	}
	before := slices.Clone(history)
	for i := range before {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		before[i].Decision = from.replayOne(before[i])
	}
	var err error
	d.Decisions, err = to.Replay(ctx, before)
	return d, err
}

// meaning is the policy without layout, comments and order of annotations.
func meaning(r *rule) string {
	text := string(r.full.MarshalCedar())
	var notes, rest []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "@") {
			notes = append(notes, strings.TrimSpace(line))
		} else {
			rest = append(rest, line)
		}
	}
	slices.Sort(notes)
	return strings.Join(notes, "\n") + "\n" + strings.Join(rest, "")
}
