package proof

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/proof/internal/edtable"
)

// enforced: what the node says was in force is not below what the permit asks.
func (v *verifier) enforced() Line {
	l := Line{Check: CheckEnforced}
	if v.start == nil {
		return v.unstarted(l)
	}
	b := &v.start.Body
	if v.permit != nil && b.Tier < v.permit.Body.TierFloor {
		return l.is(Failed, fmt.Sprintf("tier %s is below the permit's floor %s", b.Tier, v.permit.Body.TierFloor))
	}
	var a exeq.Applied
	told, err := v.value(v.start, fieldApplied, &a)
	if err != nil {
		return l.fault(err)
	}
	detail := fmt.Sprintf("tier %s, Landlock ABI %d", b.Tier, b.LandlockABI)
	switch {
	case !told:
		detail += "; its canary and what it could not enforce are not known"
	case a.Tier != b.Tier || a.LandlockABI != b.LandlockABI || !sameJSON(a.Seen, b.Seen):
		return l.is(Failed, "what was applied differs from what the start leaf says of it")
	case a.Canary == "":
		return l.is(Failed, "no canary was refused before the release")
	default:
		detail += "; refused before release: " + a.Canary
		if len(a.Downgrades) > 0 {
			detail += fmt.Sprintf("; %d limits not enforced there, named below", len(a.Downgrades))
		}
		v.facts.Downgrades = a.Downgrades
	}
	if v.permit != nil && b.Tier >= exeq.TierKernelLite && v.permit.Body.Audience.Node == v.start.Key {
		detail += "; said by the supervisor, no node of its own vouches for the tier"
	}
	return l.is(Attested, detail).by(exeq.RoleNode, v.start.Key)
}

// lease: from start to end no time longer than a lease went by without a
// renewal, as the appraisal leaves tell it.
func (v *verifier) lease() Line {
	l := Line{Check: CheckLease}
	if v.start == nil {
		return v.unstarted(l)
	}
	period := v.start.Body.LeaseMillis
	if period <= 0 {
		return l.is(Failed, "the start names no lease")
	}
	if v.permit != nil && v.permit.Body.LeaseMillis != period {
		return l.is(Failed, fmt.Sprintf("the permit's lease is %d ms, the start's %d ms", v.permit.Body.LeaseMillis, period))
	}
	slack := period + exeq.MaxClockStepBack.Milliseconds()
	covered, tick, longest, held, failed := v.start.Time, uint64(0), int64(0), int64(0), ""
	for i := range v.leaves {
		x := &v.leaves[i]
		if x.Kind != exeq.KindAppraisal {
			continue
		}
		b := &x.Body
		n := int64(b.LastTick) - int64(b.FirstTick) + 1
		switch {
		case failed != "":
			return l.is(Failed, "appraisals go on after one that failed")
		case b.FirstTick != tick+1:
			return l.is(Failed, fmt.Sprintf("tick %d is followed by tick %d", tick, b.FirstTick))
		case n < 0 || n == 0 && len(b.Failed) == 0 || b.MaxGap < 0:
			return l.is(Failed, fmt.Sprintf("leaf %d covers no ticks", x.Seq))
		case b.MaxGap > period:
			return l.is(Failed, fmt.Sprintf("%d ms went by between two renewals of a lease of %d ms", b.MaxGap, period))
		case b.HeldMillis < 0 || x.Time.Sub(covered.Time).Milliseconds()-b.HeldMillis > n*b.MaxGap+slack:
			return l.is(Failed, fmt.Sprintf("%d renewals with gaps of %d ms do not cover %s", n, b.MaxGap, x.Time.Sub(covered.Time).Round(time.Millisecond)))
		}
		covered, tick, longest, held = x.Time, b.LastTick, max(longest, b.MaxGap), held+b.HeldMillis
		failed = strings.Join(b.Failed, ", ")
	}
	if v.last == nil {
		return l.is(CannotTell, fmt.Sprintf("covered to %s; the end is not in the proof", covered))
	}
	if v.last.Body.Code == "lost" {
		return l.is(CannotTell, fmt.Sprintf("covered to %s; then its supervisor was gone, and it was sealed later", covered))
	}
	if d := v.last.Time.Sub(covered.Time); v.last.Body.HeldMillis < 0 || d.Milliseconds() > slack+v.last.Body.HeldMillis {
		return l.is(Failed, fmt.Sprintf("the last %s before the end were not renewed", d.Round(time.Millisecond)))
	}
	detail := fmt.Sprintf("%d ticks, longest gap %d ms of a lease of %d ms", tick, longest, period)
	if held += v.last.Body.HeldMillis; held > 0 {
		detail += fmt.Sprintf("; suspended for %d ms while every process stood still", held)
	}
	if failed != "" {
		detail += "; ended by a failed appraisal: " + short(failed)
	}
	return l.is(Attested, detail).by(exeq.RoleNode, v.start.Key)
}

// activities: every activity that the end counts is in a leaf, and what is
// disclosed is what the leaves cover.
func (v *verifier) activities() Line {
	l := Line{Check: CheckActivities}
	if v.start == nil {
		if len(v.p.Activities) > 0 {
			return l.is(Failed, "activities without a start")
		}
		return v.unstarted(l)
	}
	seen, last := map[[2]string]bool{}, [2]int{}
	for i := range v.p.Activities {
		a := &v.p.Activities[i]
		place := [2]int{v.byID[a.Leaf].place, a.Index}
		if slices.Compare(place[:], last[:]) < 0 {
			return l.is(Failed, errOrder("activities").Error())
		}
		last = place
		if err := v.checkActivity(a); err != nil {
			return l.is(Failed, err.Error())
		}
		id := [2]string{a.Leaf, fmt.Sprint(a.Index)}
		if seen[id] {
			return l.is(Failed, "an activity is disclosed twice")
		}
		seen[id] = true
	}
	allowed, errs := make([]map[string]int, len(v.leaves)), make([]error, len(v.leaves))
	each(len(v.leaves), func(i int) {
		x := &v.leaves[i]
		if raw, ok := v.opened[x.ID][fieldEntries]; ok && x.Kind == exeq.KindActivity {
			allowed[i], errs[i] = checkEntries(x, raw)
		}
	})
	sum, open, closed := map[string]int{}, 0, 0
	for i := range v.leaves {
		x := &v.leaves[i]
		if x.Kind != exeq.KindActivity {
			continue
		}
		counts := x.Body.Counts
		if _, ok := v.opened[x.ID][fieldEntries]; ok {
			if errs[i] != nil {
				return l.is(Failed, errs[i].Error())
			}
			counts = allowed[i]
			open += x.Body.Entries
		} else {
			closed += x.Body.Entries
			if x.Body.Verdict != "" && !x.Body.Verdict.Permits() {
				counts = nil
			}
		}
		for class, n := range counts {
			sum[class] += n
		}
	}
	if v.last == nil {
		return l.is(CannotTell, "the end, which counts them, is not in the proof")
	}
	for _, class := range sortedKeys(v.last.Body.Counts) {
		if n := v.last.Body.Counts[class]; n > sum[class] {
			return l.is(Failed, fmt.Sprintf("the end counts %d of %s, the leaves hold %d", n, class, sum[class]))
		}
	}
	detail := v.seen()
	if closed > 0 {
		detail += fmt.Sprintf("; %d of %d entries not disclosed", closed, open+closed)
	}
	return l.is(Attested, detail).by(exeq.RoleNode, v.start.Key)
}

// revocation finds why trust ended, if it did and as far as it is disclosed.
func (v *verifier) revocation() string {
	for i := range v.leaves {
		x := &v.leaves[i]
		if x.Kind != exeq.KindRevoke {
			continue
		}
		if _, told := v.opened[x.ID][fieldReason]; told {
			return x.Body.Code + ": " + strings.TrimPrefix(v.reason(x), "revoked: ")
		}
		return x.Body.Code + ": why is not disclosed"
	}
	return ""
}

// seen repeats, a class each, how much of it reaches the record.
func (v *verifier) seen() string {
	var parts []string
	for _, class := range []string{exeq.ActionExec, exeq.ActionMap, exeq.ActionRead, exeq.ActionWrite, exeq.ActionConnect} {
		s := v.start.Body.Seen[class]
		switch s {
		case "all", "denials", "none":
		default:
			s = "not stated"
		}
		parts = append(parts, class+" "+s)
	}
	return "seen: " + strings.Join(parts, ", ")
}

// chain: the leaves are one execution's, in order, linked and signed.
func (v *verifier) chain() Line {
	l := Line{Check: CheckChain}
	if v.unknown != nil {
		return l.is(CannotTell, v.unknown.Error())
	}
	if v.badLeaf != nil {
		return l.is(Failed, v.badLeaf.Error())
	}
	if v.badKeys != nil {
		return l.fault(v.badKeys)
	}
	prev, actor := exeq.Digest{}, v.leaves[0].Actor
	for i := range v.leaves {
		x := &v.leaves[i]
		switch {
		case x.Execution != v.p.Execution:
			return l.is(Failed, fmt.Sprintf("leaf %d is of another execution", i))
		case x.Seq != i || x.Prev != prev:
			return l.is(Failed, fmt.Sprintf("leaf %d does not follow the one before it", i))
		case (i == 0) != (x.Kind == exeq.KindPermit) && !v.denied():
			return l.is(Failed, "an execution begins with its permit, and has one")
		case x.Parent != v.leaves[0].Parent || x.Actor != actor:
			return l.is(Failed, fmt.Sprintf("leaf %d names another parent or actor", i))
		case i < len(v.leaves)-1 && closes(x, i+1):
			return l.is(Failed, fmt.Sprintf("leaf %d ends the execution and others follow", i))
		case i > 0 && x.Time.Before(v.leaves[i-1].Time.Add(-exeq.MaxClockStepBack)):
			return l.is(Failed, fmt.Sprintf("at leaf %d time runs backwards", i))
		case x.Kind == exeq.KindPolicy || x.Kind == exeq.KindKey || x.Kind == exeq.KindScope:
			return l.is(Failed, fmt.Sprintf("a %s leaf has no place in an execution", x.Kind))
		case needsStart(x.Kind) && (v.start == nil || x.Seq <= v.start.Seq):
			return l.is(Failed, fmt.Sprintf("leaf %d tells of running before the start", i))
		case v.start != nil && i > 0 && signers[x.Kind] == exeq.RoleNode && x.Key != v.start.Key:
			return l.is(Failed, fmt.Sprintf("leaf %d is signed by another node than the start", i))
		}
		prev = x.hash
	}
	at, err := v.judgedAt()
	if err != nil {
		return l.is(CannotTell, err.Error())
	}
	if err := v.signatures(at); err != nil {
		return l.is(Failed, err.Error())
	}
	detail := "linked and signed, number of leaves: " + fmt.Sprint(len(v.leaves))
	if v.permit == nil && !v.denied() {
		detail += "; the first, which the withheld permit would authenticate, by the link of the next"
	}
	return l.is(Proved, detail)
}

func needsStart(k exeq.Kind) bool { return k == exeq.KindActivity || k == exeq.KindAppraisal }

// judgedAt gives for each leaf the index by which its key is judged: its own
// where a receipt tells it, else that of the next leaf that has one, since a
// leaf stands in the log no earlier than what it links to.
func (v *verifier) judgedAt() ([]int64, error) {
	out := make([]int64, len(v.leaves))
	at, have := int64(0), false
	if v.tree != nil { // behind the last receipt: as of the whole tree
		at, have = v.tree.Size, true
	}
	after := int64(never)
	for i := len(out) - 1; i >= 0; i-- {
		if own, ok := v.index[v.leaves[i].ID]; ok {
			if own >= after {
				return nil, errors.New("receipts are not in the order of the chain")
			}
			at, after, have = own, own, true
		}
		if !have {
			return nil, errors.New("no receipt places the leaves in the log")
		}
		out[i] = at
	}
	return out, nil
}

// signatures verifies each leaf but the permit's, which the permit that it
// commits to authenticates. The first fault by sequence is reported.
//
// The node's last signature covers the exact bytes of all its leaves through
// prev, but does not stand for theirs: where an execution is sealed by whoever
// comes after a crash, those bytes came from a store, which can be written
// without a key.
func (v *verifier) signatures(at []int64) error {
	if v.start != nil {
		v.a.expect(exeq.RoleNode, v.start.Key, len(v.leaves)) // whose nearly all are
	}
	errs := make([]error, len(v.leaves))
	rows(len(v.leaves), func(from, to int) {
		var sigs []edtable.Signature
		var of []int
		for i := from; i < to; i++ {
			l := &v.leaves[i]
			if l.Kind == exeq.KindPermit {
				continue
			}
			s, err := v.a.signed(l.Leaf, at[i], l.signable)
			if errs[i] = err; err == nil {
				sigs, of = append(sigs, s), append(of, i)
			}
		}
		for j, ok := range edtable.Verify(sigs) {
			if !ok {
				errs[of[j]] = badSignature(v.leaves[of[j]].Leaf)
			}
		}
	})
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
	}
	return nil
}

// sealed: the chain ends with a leaf that closes it and stands in the log.
func (v *verifier) sealed() Line {
	l := Line{Check: CheckSealed}
	if v.last == nil {
		return l.is(CannotTell, "no end in the proof: still running, lost, or withheld")
	}
	at, ok := v.index[v.last.ID]
	if !ok {
		return l.is(CannotTell, "the end has no receipt")
	}
	role := signers[v.last.Kind]
	detail := fmt.Sprintf("%s (%s) at %s, index %d", v.last.Kind, v.last.Body.Code, v.last.Time, at)
	var e exeq.Exit
	if ok, err := v.value(v.last, fieldExit, &e); err != nil {
		return l.fault(err)
	} else if ok {
		v.facts.Exit = fmt.Sprint(e.Code)
		detail += fmt.Sprintf(", exit status %d", e.Code)
	} else if _, has := v.last.Commitments[fieldExit]; has {
		detail += ", exit status not disclosed"
	}
	return l.is(Attested, detail).by(role, v.last.Key)
}
