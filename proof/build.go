package proof

import (
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
// leaf with that sequence. A name that opens nothing is an error.
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
	for i, raw := range m.Leaves {
		l, err := exeq.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("proof: %w", err)
		}
		if i == 0 {
			p.Execution = l.Execution
		}
		order[l.ID], seqs[l.ID] = len(order), l
		p.Leaves = append(p.Leaves, string(raw))
	}
	for _, raw := range m.Context {
		l, err := exeq.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("proof: %w", err)
		}
		order[l.ID] = len(order)
		p.Context = append(p.Context, string(raw))
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
	}
	return p, s.unused()
}

// selection is what a holder chose to disclose.
type selection struct {
	all   bool
	names map[string]bool // name → opened something
}

func newSelection(names []string) *selection {
	s := &selection{names: map[string]bool{}}
	for _, n := range names {
		switch n {
		case DiscloseAll:
			s.all = true
		case DiscloseNone:
		default:
			s.names[n] = false
		}
	}
	return s
}

func (s *selection) takes(field string) bool {
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
	for n, used := range s.names {
		if !used {
			idle = append(idle, n)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	slices.Sort(idle)
	return fmt.Errorf("proof: nothing to disclose under %s", strings.Join(idle, ", "))
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
