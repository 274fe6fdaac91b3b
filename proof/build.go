package proof

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/exeq/exeq"
)

// Material is what a record holds of one execution.
type Material struct {
	Leaves  [][]byte // the execution's, by sequence, exact bytes
	Context [][]byte // key leaves and the policy leaf, by index, exact bytes
	Promise exeq.Promise
	// Receipts of the permit, start and last leaf and of every context leaf,
	// all at one checkpoint.
	Receipts    []exeq.Receipt
	Consistency []exeq.Digest // from the permit's checkpoint to that one
	Disclosures []exeq.Disclosure
	Source      []byte // of the policy set that decided, canonical; nil: not at hand
}

// Names under which a holder discloses; the other names are those of the
// leaves' commitments (permit, request, inputs, decision, rights, policySet,
// applied, audience, entries, exit, reason, …).
const (
	DiscloseAll    = "all"
	DiscloseNone   = "none"
	DiscloseSource = "source" // of the policy set
)

// Build bundles an execution. disclose holds "all", "none", or names: fields
// of commitments, "source", or "activity.SEQ.N" for entry N of the activity
// leaf with that sequence. "-" before a name withholds it; with nothing but
// such names all else is disclosed. A name that opens nothing is an error.
func Build(m *Material, disclose ...string) (*Proof, error) {
	if len(m.Leaves) == 0 {
		return nil, fmt.Errorf("proof: %w: the execution has no leaves", exeq.ErrCannotTell)
	}
	p := &Proof{
		Version: 1, Promise: m.Promise, Receipts: slices.Clone(m.Receipts), Consistency: m.Consistency,
		Leaves: []string{}, Context: []string{}, Disclosures: []exeq.Disclosure{},
	}
	s := newSelection(disclose)
	order := map[string]int{}
	seqs := map[string]*exeq.Leaf{}
	leaves := make([]*exeq.Leaf, 0, len(m.Leaves))
	for i, raw := range m.Leaves {
		l, err := exeq.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("proof: %w", err)
		}
		if i == 0 {
			p.Execution = l.Execution
		}
		order[l.ID], seqs[l.ID] = len(order), l
		leaves = append(leaves, l)
		p.Leaves = append(p.Leaves, string(raw))
	}
	if err := p.addContext(m, leaves, s, order); err != nil {
		return nil, err
	}
	for _, d := range m.Disclosures {
		if _, ours := order[d.Leaf]; !ours {
			continue
		}
		if s.takes(d.Field) {
			p.Disclosures = append(p.Disclosures, d)
		} else if l := seqs[d.Leaf]; l != nil && l.Kind == exeq.KindActivity && d.Field == fieldEntries {
			some, err := s.entries(l, &d)
			if err != nil {
				return nil, err
			}
			p.Activities = append(p.Activities, some...)
		}
	}
	p.Receipts = slices.DeleteFunc(p.Receipts, func(r exeq.Receipt) bool { _, ours := order[r.Leaf]; return !ours })
	slices.SortStableFunc(p.Receipts, func(x, y exeq.Receipt) int { return order[x.Leaf] - order[y.Leaf] })
	slices.SortStableFunc(p.Activities, func(x, y Activity) int {
		return cmp.Or(order[x.Leaf]-order[y.Leaf], x.Index-y.Index)
	})
	slices.SortStableFunc(p.Disclosures, func(x, y exeq.Disclosure) int {
		if c := order[x.Leaf] - order[y.Leaf]; c != 0 {
			return c
		}
		return strings.Compare(x.Field, y.Field)
	})
	if !slices.ContainsFunc(p.Disclosures, func(d exeq.Disclosure) bool { return d.Field == fieldPermit }) {
		p.Consistency = nil // it starts at the checkpoint that the permit names
	}
	if m.Source != nil && s.takes(DiscloseSource) {
		p.Source = m.Source
		if !slices.ContainsFunc(p.Disclosures, func(d exeq.Disclosure) bool {
			return d.Field == fieldPermit || d.Field == fieldPolicySet || d.Field == fieldDecision
		}) {
			return nil, fmt.Errorf("proof: the source alone shows nothing: disclose permit, decision or %s beside it, which name its set", fieldPolicySet)
		}
	}
	return p, s.unused()
}

// addContext takes in the leaves that the execution's rest on, but none that
// would say nothing in this proof; see idle.
func (p *Proof) addContext(m *Material, leaves []*exeq.Leaf, s *selection, order map[string]int) error {
	var context []*exeq.Leaf
	for _, raw := range m.Context {
		l, err := exeq.ParseLeaf(raw)
		if err != nil {
			return fmt.Errorf("proof: %w", err)
		}
		context = append(context, l)
	}
	opens := map[string]bool{} // policy leaves
	var permit *exeq.Permit
	for _, d := range m.Disclosures {
		switch {
		case d.Field == fieldPolicySet && d.Leaf != leaves[0].ID && s.takes(d.Field):
			opens[d.Leaf] = true
		case d.Field == fieldPermit && d.Leaf == leaves[0].ID && s.takes(d.Field):
			var envelope string
			if err := json.Unmarshal(d.Value, &envelope); err != nil {
				return fmt.Errorf("proof: permit: %w", err)
			}
			var err error
			if permit, err = exeq.ParsePermit([]byte(envelope)); err != nil {
				return fmt.Errorf("proof: %w", err)
			}
		}
	}
	for i, no := range idle(leaves, context, permit, func(l *exeq.Leaf) bool { return opens[l.ID] }) {
		if !no {
			order[context[i].ID] = len(order)
			p.Context = append(p.Context, string(m.Context[i]))
		}
	}
	return nil
}

// selection is what a holder chose to disclose.
type selection struct {
	all   bool
	names map[string]bool // name → opened something
	not   map[string]bool // withheld by name → is there
}

func newSelection(names []string) *selection {
	s := &selection{names: map[string]bool{}, not: map[string]bool{}}
	for _, n := range names {
		kept, withheld := strings.CutPrefix(n, "-")
		switch {
		case n == DiscloseAll:
			s.all = true
		case n == DiscloseNone:
		case withheld:
			s.not[kept] = false
		default:
			s.names[n] = false
		}
	}
	s.all = s.all || len(s.not) == len(names) && len(names) > 0
	return s
}

func (s *selection) takes(field string) bool {
	if _, withheld := s.not[field]; withheld {
		s.not[field] = true
		return false
	}
	if _, named := s.names[field]; named {
		s.names[field] = true
		return true
	}
	return s.all
}

// entries opens single entries of an activity leaf.
func (s *selection) entries(l *exeq.Leaf, d *exeq.Disclosure) ([]Activity, error) {
	prefix := "activity." + strconv.Itoa(l.Seq) + "."
	var want []int
	for n := range s.names {
		if rest, ok := strings.CutPrefix(n, prefix); ok {
			if i, err := strconv.Atoi(rest); err == nil && i >= 0 && strconv.Itoa(i) == rest {
				want = append(want, i)
			}
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	slices.Sort(want)
	opened, hs, err := openEntries(d.Value)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	var out []Activity
	for _, i := range want {
		if i >= len(opened) {
			continue
		}
		s.names[prefix+strconv.Itoa(i)] = true
		out = append(out, Activity{Leaf: l.ID, Index: i, Entry: opened[i], Path: inclusionPath(hs, i)})
	}
	return out, nil
}

func (s *selection) unused() error {
	var idle []string
	for _, chosen := range []map[string]bool{s.names, s.not} {
		for n, used := range chosen {
			if !used {
				idle = append(idle, n)
			}
		}
	}
	if len(idle) == 0 {
		return nil
	}
	slices.Sort(idle)
	return fmt.Errorf("proof: nothing to disclose or to withhold under %s", strings.Join(idle, ", "))
}

// inclusionPath is RFC 6962's audit path of leaf i.
func inclusionPath(hs []exeq.Digest, i int) []exeq.Digest {
	if len(hs) <= 1 {
		return []exeq.Digest{}
	}
	k := 1
	for k*2 < len(hs) {
		k *= 2
	}
	if i < k {
		return append(inclusionPath(hs[:k], i), exeq.MerkleRoot(hs[k:]))
	}
	return append(inclusionPath(hs[k:], i-k), exeq.MerkleRoot(hs[:k]))
}
