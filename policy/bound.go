package policy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// Compile implements [exeq.Decider]. Paths fall into cells: between two cut
// points (every path that the set or the context names) no rule can tell one
// path from another, so the decider's answer for one path of a cell holds for
// all. The approvals in the inputs, given for the run, lift the read and write
// forbids that wait for them while the execution lives.
func (s *Set) Compile(ctx context.Context, r *exeq.Request, in *exeq.Inputs, d exeq.Decision) (*exeq.Rights, error) {
	switch {
	case !d.Verdict.Permits():
		return nil, fmt.Errorf("policy: no rights for a request with the verdict %s: %w", d.Verdict, exeq.ErrDenied)
	case d.PolicySet != s.digest:
		return nil, fmt.Errorf("policy: the decision was made by set %s, not by %s", d.PolicySet, s.digest)
	}
	if err := validRequest(r, in); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	q, err := s.newQuery(r, in)
	if err != nil {
		return nil, fmt.Errorf("policy: %w: %w", exeq.ErrDenied, err)
	}
	rights := &exeq.Rights{
		Version:     1,
		Environment: slices.Clone(s.settings.Environment),
		Quotas:      s.settings.Quotas,
		TierFloor:   s.settings.floor,
	}
	cuts, err := s.cutPoints(&r.Context)
	if err != nil {
		return nil, err
	}
	for i, p := range cuts {
		if i%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		rights.Cells = append(rights.Cells, exeq.Cell{Path: p, At: q.access(p), Under: q.access(below(p))})
	}
	rights.Cells = reduce(rights.Cells)
	rights.Endpoints = q.endpoints()
	if err := applyObligations(rights, d.Obligations); err != nil {
		return nil, err
	}
	if err := rights.Validate(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return rights, nil
}

// below stands for every path under p that no policy can name: a NUL is in no
// path.
func below(p string) string {
	if p == "/" {
		return "/%00"
	}
	return p + "/%00"
}

// cutPoints gives every path at which an answer can change, sorted.
func (s *Set) cutPoints(c *exeq.Context) ([]string, error) {
	cuts := map[string]bool{"/": true, c.Workspace: true, c.Home: true, c.Tmp: true}
	for u := range s.named {
		p := string(u.ID)
		switch u.Type {
		case typeWorkspace:
			p = join(c.Workspace, p)
		case typeHome:
			p = join(c.Home, p)
		case typeTmp:
			p = join(c.Tmp, p)
		}
		if err := exeq.CheckPath(p); err != nil {
			return nil, fmt.Errorf("policy: %s: %w", u, err)
		}
		cuts[p] = true
	}
	return slices.Sorted(maps.Keys(cuts)), nil
}

func join(place, rel string) string {
	switch {
	case rel == ".":
		return place
	case place == "/":
		return "/" + rel
	}
	return place + "/" + rel
}

// namedPlaces collects the literals that are cut points.
func namedPlaces(rules []*rule) map[types.EntityUID]bool {
	named := map[types.EntityUID]bool{}
	for _, r := range rules {
		for _, u := range r.literals() {
			switch u.Type {
			case typePath, typeProgram, typeWorkspace, typeHome, typeTmp:
				named[u] = true
			}
		}
	}
	return named
}

// access compiles one representative path. Its programs are looked at each time,
// even where each would be allowed, if they may be written (what may be written
// may change) and if reading them is refused or sets a label (running or mapping
// a file reads it).
func (q *query) access(p string) (a exeq.Access) {
	v := vocabulary()
	read := q.bound(v.read, p)
	a.Read, a.Labels = read.possible, read.labels
	a.Write = q.bound(v.write, p).possible
	switch exec := q.bound(v.exec, p); {
	case exec.certain && a.Read && !a.Write && len(a.Labels) == 0:
		a.Exec = exeq.ExecAll
	case exec.possible:
		a.Exec = exeq.ExecAsk
	}
	return a
}

// bound says what is true of every request with an action on a resource, for
// whatever digest, arguments, session and risk.
type bound struct {
	possible bool // some such request could be permitted
	certain  bool // each is permitted, and without labels
	labels   []string
}

// bound evaluates each candidate without the conditions that vary; a rule that
// holds so far and has such conditions may hold or not.
func (q *query) bound(a *action, resource string) (b bound) {
	if err := q.aim(a, resource, exeq.Digest{}); err != nil {
		return bound{}
	}
	q.set.index.find(q, true)
	var want deps
	for _, i := range q.found {
		want |= q.set.rules[i].pending &^ varying[a.class]
	}
	q.need(want)
	b.certain = true
	granted := false // by a permit that holds for certain
	for _, i := range q.found {
		r := q.set.rules[i]
		ok, err := q.holds(r.residue[a.class])
		varies := r.varies[a.class]
		switch {
		case err != nil && !varies:
			return bound{} // it errors always, and an error denies
		case err == nil && !ok:
			continue
		case r.permit:
			b.possible = true
			granted = granted || !varies
			b.labels = append(b.labels, r.labels...)
		case r.lifted(q.in.Approved, q.in.Present):
			b.certain = false
		case varies:
			if a.class == classPath {
				return bound{} // refused at load; a doubt denies
			}
			b.certain = false
		case r.resolve == "" || a.class == classPath:
			return bound{}
		default:
			b.certain = false
		}
	}
	b.labels = distinct(b.labels)
	b.certain = b.certain && granted && len(b.labels) == 0
	if !b.possible {
		b.labels = nil
	}
	return b
}

// reduce drops each cell that says what the cell above it says already.
func reduce(cells []exeq.Cell) []exeq.Cell {
	under := make(map[string]exeq.Access, len(cells))
	kept := cells[:0]
	for _, c := range cells { // ancestors come before descendants
		if c.Path != "/" {
			above := nearest(under, c.Path)
			if sameAccess(c.At, above) && sameAccess(c.Under, above) {
				continue
			}
		}
		under[c.Path] = c.Under
		kept = append(kept, c)
	}
	return kept
}

// nearest gives the access under the closest kept ancestor.
func nearest(under map[string]exeq.Access, p string) (a exeq.Access) {
	for p != "/" {
		cut := strings.LastIndexByte(p, '/')
		if p = p[:cut]; p == "" {
			p = "/"
		}
		if a, ok := under[p]; ok {
			return a
		}
	}
	return a
}

func sameAccess(a, b exeq.Access) bool {
	return a.Read == b.Read && a.Write == b.Write && a.Exec == b.Exec && slices.Equal(a.Labels, b.Labels)
}
