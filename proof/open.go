package proof

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Names of committed fields, as the flow writes them.
const (
	fieldPermit    = "permit"       // string: the envelope
	fieldRequest   = "request"      // exeq.Request
	fieldInputs    = "inputs"       // exeq.Inputs
	fieldDecision  = "decision"     // exeq.Decision
	fieldRights    = "rights"       // exeq.Rights
	fieldPolicySet = "policySet"    // digest
	fieldApplied   = "applied"      // exeq.Applied
	fieldAudience  = "audience"     // exeq.Audience
	fieldPermitSum = "permitDigest" // LeafHash of the envelope
	fieldEntries   = "entries"      // []exeq.SealedEntry
	fieldExit      = "exit"         // exeq.Exit
	fieldReason    = "reason"       // string, for people
)

// disclosures opens commitments: each must stand in its leaf, once, with a
// salt of its own.
func (v *verifier) disclosures() {
	salts := map[string]bool{}
	digests, errs := make([]exeq.Digest, len(v.p.Disclosures)), make([]error, len(v.p.Disclosures))
	each(len(digests), func(i int) { digests[i], errs[i] = v.p.Disclosures[i].Digest() })
	for i := range v.p.Disclosures {
		d := &v.p.Disclosures[i]
		if err := v.open(d, digests[i], errs[i], salts); err != nil {
			v.badOpening = first(v.badOpening, fmt.Errorf("disclosure of %s: %w", plain(short(d.Field)), err))
		}
	}
	if !slices.IsSortedFunc(v.p.Disclosures, func(x, y exeq.Disclosure) int {
		return cmp.Or(v.byID[x.Leaf].place-v.byID[y.Leaf].place, strings.Compare(x.Field, y.Field))
	}) {
		v.badOpening = first(v.badOpening, errOrder("disclosures"))
	}
}

// open opens one, which computes to the digest got, unless it has none.
func (v *verifier) open(d *exeq.Disclosure, got exeq.Digest, bad error, salts map[string]bool) error {
	l, ok := v.byID[d.Leaf]
	if !ok {
		return errors.New("its leaf is not in the proof")
	}
	want, ok := l.Commitments[d.Field]
	if !ok {
		return fmt.Errorf("the %s leaf has no such commitment", l.Kind)
	}
	if strings.ContainsRune(d.Field, 0) {
		return errors.New("a field name holds a NUL")
	}
	if salts[d.Salt] {
		return errors.New("its salt was used before: what is withheld could be guessed")
	}
	salts[d.Salt] = true
	if bad != nil {
		return bad
	}
	if got != want {
		return errors.New("it does not open the commitment in the leaf")
	}
	fields := v.opened[d.Leaf]
	if fields == nil {
		fields = map[string][]byte{}
		v.opened[d.Leaf] = fields
	}
	if fields[d.Field] != nil {
		return errors.New("disclosed twice")
	}
	fields[d.Field] = d.Value
	return nil
}

// value decodes an opened field strictly into out and tells whether it was
// disclosed at all.
func (v *verifier) value(l *leaf, field string, out any) (bool, error) {
	if l == nil {
		return false, nil
	}
	raw, ok := v.opened[l.ID][field]
	if !ok {
		return false, nil
	}
	if err := canon.Decode(raw, out, canon.Limits{Bytes: exeq.MaxProofBytes, Depth: exeq.MaxDepth}); err != nil {
		return true, fmt.Errorf("%s: %w", field, err)
	}
	return true, nil
}

// authorization reads what the permit's leaf discloses.
func (v *verifier) authorization() {
	if len(v.leaves) == 0 {
		return
	}
	l := &v.leaves[0]
	var envelope string
	if ok, err := v.value(l, fieldPermit, &envelope); err != nil {
		v.badPermit = err
	} else if ok {
		v.permit, v.badPermit = exeq.ParsePermit([]byte(envelope))
	}
	var r exeq.Request
	if ok, err := v.value(l, fieldRequest, &r); err != nil {
		v.badOpening = first(v.badOpening, err)
	} else if ok {
		v.request = &r
	}
	var in exeq.Inputs
	if ok, err := v.value(l, fieldInputs, &in); err != nil {
		v.badOpening = first(v.badOpening, err)
	} else if ok {
		v.inputs = &in
	}
	var rights exeq.Rights
	if ok, err := v.value(l, fieldRights, &rights); err != nil {
		v.badOpening = first(v.badOpening, err)
	} else if ok {
		v.rights = &rights
	}
	var d exeq.Decision
	if ok, err := v.value(l, fieldDecision, &d); err != nil {
		v.badOpening = first(v.badOpening, err)
	} else if ok {
		v.decision = &d
	}
}

// openEntries decodes the entries of an activity leaf and hashes them.
func openEntries(raw []byte) ([]exeq.SealedEntry, []exeq.Digest, error) {
	var es []exeq.SealedEntry
	if err := canon.Decode(raw, &es, canon.Limits{Bytes: exeq.MaxProofBytes, Depth: exeq.MaxDepth}); err != nil {
		return nil, nil, fmt.Errorf("entries: %w", err)
	}
	hs := make([]exeq.Digest, len(es))
	for i := range es {
		h, err := es[i].Hash()
		if err != nil {
			return nil, nil, fmt.Errorf("entries: %w", err)
		}
		hs[i] = h
	}
	return es, hs, nil
}

// checkEntries recomputes an activity leaf's root from disclosed entries and
// gives the number of allowed ones by class.
func checkEntries(l *leaf, raw []byte) (map[string]int, error) {
	es, hs, err := openEntries(raw)
	if err != nil {
		return nil, err
	}
	if len(es) != l.Body.Entries || exeq.MerkleRoot(hs) != l.Body.Root {
		return nil, fmt.Errorf("leaf %d: the entries disclosed are not those that its root covers", l.Seq)
	}
	all, allowed := map[string]int{}, map[string]int{}
	for _, e := range es {
		all[e.Entry.Activity.Action]++
		if e.Entry.Verdict.Permits() {
			allowed[e.Entry.Activity.Action]++
		}
	}
	for class, n := range all {
		if l.Body.Counts[class] != n {
			return nil, fmt.Errorf("leaf %d counts %d of %s, its entries are %d", l.Seq, l.Body.Counts[class], class, n)
		}
	}
	if len(all) != len(l.Body.Counts) {
		return nil, fmt.Errorf("leaf %d counts activities that are not among its entries", l.Seq)
	}
	return allowed, nil
}

// checkActivity verifies one disclosed entry of an activity leaf.
func (v *verifier) checkActivity(a *Activity) error {
	l, ok := v.byID[a.Leaf]
	if !ok || l.Kind != exeq.KindActivity {
		return errors.New("an activity is disclosed of no activity leaf in the proof")
	}
	if v.opened[a.Leaf][fieldEntries] != nil {
		return errors.New("an activity is disclosed twice")
	}
	if a.Index < 0 || a.Index >= l.Body.Entries {
		return errors.New("an activity's index lies outside its leaf")
	}
	h, err := a.Entry.Hash()
	if err != nil {
		return err
	}
	root := tlog.Hash(l.Body.Root)
	if err := tlog.CheckRecord(hashes(a.Path), int64(l.Body.Entries), root, int64(a.Index), tlog.Hash(h)); err != nil {
		return fmt.Errorf("activity %d is not in leaf %d", a.Index, l.Seq)
	}
	return nil
}

// sameJSON compares two values by their canonical form.
func sameJSON(x, y any) bool {
	a, err := canon.Marshal(x)
	b, err2 := canon.Marshal(y)
	return err == nil && err2 == nil && string(a) == string(b)
}

func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func sortedKeys(m map[string]int) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
