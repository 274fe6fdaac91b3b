package proof

import (
	"slices"
	"strings"

	"github.com/exeq/exeq"
)

// rests says what each line rests on: the commitments, by kind of leaf, that
// could refute it. A line is neither proved nor attested while its holder keeps
// one of them back, or keeping it back would make a refuted line a good one.
// Lines that are not named here rest on what every proof has in clear.
var rests = map[string]map[exeq.Kind][]string{
	CheckSignature: {exeq.KindPermit: {fieldPermit}},
	CheckDigest: {
		exeq.KindPermit: {fieldPermit, fieldRequest, fieldInputs, fieldDecision, fieldRights, fieldPolicySet},
		exeq.KindDenial: {fieldDecision, fieldPolicySet},
		exeq.KindStart:  {fieldPermitSum},
	},
	CheckReplay: {
		exeq.KindPermit: {fieldPermit, fieldRequest, fieldInputs, fieldDecision, fieldPolicySet},
		exeq.KindDenial: {fieldRequest, fieldInputs, fieldDecision, fieldPolicySet},
	},
	CheckAudience:   {exeq.KindPermit: {fieldPermit}, exeq.KindStart: {fieldAudience}},
	CheckRecorded:   {exeq.KindPermit: {fieldPermit}}, // its window
	CheckEnforced:   {exeq.KindPermit: {fieldPermit}, exeq.KindStart: {fieldApplied}},
	CheckLease:      {exeq.KindPermit: {fieldPermit}}, // its lease
	CheckActivities: {exeq.KindActivity: {fieldEntries}},
	CheckConsistent: {exeq.KindPermit: {fieldPermit}},
}

// disclosed turns a good line into *not disclosed* where something that it
// rests on is withheld, and into *cannot tell* where a leaf does not commit to
// it at all.
func (v *verifier) disclosed(l Line) Line {
	if l.Status != Proved && l.Status != Attested {
		return l
	}
	var kept, none []string
	note := func(to *[]string, field string) {
		if !slices.Contains(*to, field) {
			*to = append(*to, field)
		}
	}
	for i := range v.leaves {
		x := &v.leaves[i]
		if x.Kind == exeq.KindDenial && i > 0 {
			continue // of a permit that was refused: it decides nothing
		}
		for _, field := range rests[l.Check][x.Kind] {
			if _, open := v.opened[x.ID][field]; open {
				continue
			}
			if _, committed := x.Commitments[field]; committed {
				note(&kept, field)
			} else {
				note(&none, field)
			}
		}
	}
	if len(kept)+len(none) == 0 {
		return l
	}
	l.Key = ""
	if len(none) > 0 {
		return l.is(CannotTell, "not in the leaves: "+strings.Join(none, ", "))
	}
	return l.is(NotDisclosed, "withheld: "+strings.Join(kept, ", ")+"; the rest: "+l.Detail)
}

// idle tells for each context leaf whether it says nothing about this proof: a
// key that signed nothing in it, a policy activation whose set is not shown.
// An idle leaf could be added to a genuine proof or taken out of it and nobody
// would see, so a proof has none.
//
// While the permit is withheld it is not known who issued it and for which
// node; then no key of theirs is idle.
func idle(leaves, context []*exeq.Leaf, p *exeq.Permit, shown func(*exeq.Leaf) bool) []bool {
	type user struct{ role, key string }
	used := map[user]bool{}
	for i, l := range leaves {
		if i == 0 || l.Key != leaves[i-1].Key || l.Kind != leaves[i-1].Kind {
			used[user{signers[l.Kind], l.Key}] = true
		}
	}
	if p != nil {
		used[user{exeq.RoleNode, p.Body.Audience.Node}] = true
		used[user{exeq.RoleIssuer, permitKey(p)}] = true
	}
	hidden := p == nil && len(leaves) > 0 && leaves[0].Kind == exeq.KindPermit
	out := make([]bool, len(context))
	// Backwards: who signed for a key that is used is used, and stands before.
	for i, l := range slices.Backward(context) {
		switch l.Kind {
		case exeq.KindKey:
			pub, err := publicKey(l.Body.PublicKey)
			known := l.Body.Role == exeq.RoleLog || l.Body.Role == exeq.RolePromise || hidden
			out[i] = err == nil && !known && !used[user{l.Body.Role, exeq.KeyID(pub)}]
		case exeq.KindPolicy:
			out[i] = !shown(l)
		}
		if !out[i] {
			used[user{exeq.RoleIssuer, l.Key}] = true
		}
	}
	return out
}
