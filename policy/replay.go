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
	// Changed names what does: verdict, needs, obligations, labels, policies.
	Changed []string `json:"changed"`
}

// Verdict reports whether the verdict itself changes.
func (c *Change) Verdict() bool { return c.Decision.Verdict != c.Now.Verdict }

// Rules reports whether nothing but the deciding policies changes.
func (c *Change) Rules() bool { return len(c.Changed) == 1 && c.Changed[0] == "policies" }

// Words say what changes, before and after, in the words of the record.
func (c *Change) Words() string {
	var out []string
	for _, part := range c.parts() {
		if part.name != "verdict" && !slices.Equal(part.was, part.now) {
			out = append(out, part.name+" "+listed(part.was)+" → "+listed(part.now))
		}
	}
	return strings.Join(out, "; ")
}

func listed(ids []string) string {
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}

type part struct {
	name     string
	was, now []string
}

// parts are all that is hashed and published of a decision but the set that
// made it.
func (c *Change) parts() []part {
	a, b := &c.Decision, &c.Now
	return []part{
		{"verdict", []string{string(a.Verdict)}, []string{string(b.Verdict)}}, {"needs", a.Needs, b.Needs},
		{"obligations", a.Obligations, b.Obligations}, {"labels", a.Labels, b.Labels}, {"policies", a.Policies, b.Policies},
	}
}

// rank puts what matters first: another verdict, another consequence, another
// reason.
func (c *Change) rank() int {
	switch {
	case c.Verdict():
		return 0
	case !c.Rules():
		return 1
	}
	return 2
}

// Replay decides recorded requests again and gives those whose verdict, needs,
// obligations, labels or determining policies change: verdicts first, then the
// other consequences, then where the deciding policies alone change, each in the
// order of history. A request that cannot be decided any more counts as denied. The error is the
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
					found[w] = append(found[w], changed(h, now))
				}
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all := slices.Concat(found...)
	slices.SortStableFunc(all, func(a, b Change) int { return a.rank() - b.rank() })
	return all, nil
}

func changed(h Recorded, now exeq.Decision) Change {
	c := Change{Recorded: h, Now: now}
	for _, part := range c.parts() {
		if !slices.Equal(part.was, part.now) {
			c.Changed = append(c.Changed, part.name)
		}
	}
	return c
}

func (s *Set) replayOne(h Recorded) (d exeq.Decision) {
	if err := s.judge(&d, h.Request, h.Inputs, false); err != nil {
		d.Verdict = exeq.Deny
	}
	return d
}

// sameDecision compares the parts of two decisions without making them.
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
	// Recorded is how many requests both sets decided, Verdicts for how many of
	// them the verdict changes.
	Recorded int `json:"recorded"`
	Verdicts int `json:"verdicts"`
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
		Recorded: len(history),
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
	for i := range d.Decisions {
		if d.Decisions[i].Verdict() {
			d.Verdicts++
		}
	}
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
