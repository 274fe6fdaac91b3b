package proof

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
)

// Options are what a verification needs beside proof and trust.
type Options struct {
	// Replay loads a policy source (canonical JSON) and decides the request
	// again; package policy has one. It must not trust the source beyond
	// parsing it. An error means that the replay could not be carried out.
	Replay func(source []byte, r *exeq.Request, in *exeq.Inputs) (exeq.Decision, error)
}

// Verify checks a proof against what the verifier trusts. The error is only
// ever about the trust file; whatever is wrong with the proof is in the report.
func Verify(p *Proof, t *Trust, o Options) (*Report, error) {
	a, err := t.Anchors()
	if err != nil {
		return nil, err
	}
	v := &verifier{p: p, a: a, o: o, index: map[string]int64{}, notes: map[string]*Checkpoint{}, opened: map[string]map[string][]byte{}}
	v.load()
	// Receipts and keys have nothing to do with what is disclosed.
	var wg sync.WaitGroup
	wg.Go(func() { v.inLog(); v.keyring() })
	v.disclosures()
	v.authorization()
	wg.Wait()
	v.idleContext()
	// The checks only read what was found; these two take longest.
	var replay, chain Line
	wg.Go(func() { replay = v.replay() })
	wg.Go(func() { chain = v.chain() })
	lines := []Line{
		v.signature(), v.digest(), {}, v.audience(), v.recorded(), v.singleUse(), v.enforced(),
		v.lease(), v.activities(), {}, v.sealed(), v.logged(), v.consistent(), v.witnessed(),
	}
	wg.Wait()
	lines[2], lines[9] = replay, chain
	for i := range lines {
		lines[i] = v.disclosed(lines[i])
	}
	return v.report(lines), nil
}

// leaf is a parsed leaf with its exact bytes and their hash.
type leaf struct {
	*exeq.Leaf
	exact []byte
	hash  exeq.Digest
	place int // among the leaves and, behind them, the context
}

// errOrder: one proof has one spelling.
func errOrder(what string) error { return fmt.Errorf("%s are not in the order of the leaves", what) }

// verify checks the leaf's signature as [Anchors.VerifyLeaf] does.
func (l *leaf) verify(a *Anchors, index int64) error {
	return a.verifyLeaf(l.Leaf, index, l.signable)
}

func (l *leaf) signable() ([]byte, error) { return l.SignableOf(l.exact) }

// verifier holds what one verification found so far. A nil permit, start or
// last means: not there or not believed.
type verifier struct {
	p *Proof
	a *Anchors
	o Options

	leaves, context []leaf
	byID            map[string]leaf
	badLeaf         error // first fault of the leaves' own form
	unknown         error // a kind or version this build does not know
	start, last     *leaf

	index     map[string]int64       // leaf id → verified index
	notes     map[string]*Checkpoint // verified, by text
	tree      *Checkpoint
	badLog    error // first receipt that is wrong
	noReceipt []string
	badKeys   error

	opened     map[string]map[string][]byte // leaf id → field → canonical value
	badOpening error
	permit     *exeq.Permit
	badPermit  error
	request    *exeq.Request
	inputs     *exeq.Inputs
	rights     *exeq.Rights
	decision   *exeq.Decision
	facts      Facts
}

// load parses the leaves and finds the ones that matter.
func (v *verifier) load() {
	v.byID = map[string]leaf{}
	parse := func(raw []string) (out []leaf) {
		parsed, errs := parseLeaves(raw)
		for i, x := range parsed {
			l, err := x.Leaf, errs[i]
			if errors.Is(err, exeq.ErrCannotTell) {
				v.unknown = first(v.unknown, err)
				continue
			}
			if err != nil {
				v.badLeaf = first(v.badLeaf, err)
				continue
			}
			if _, twice := v.byID[l.ID]; twice {
				v.badLeaf = first(v.badLeaf, fmt.Errorf("leaf %.36s stands in it twice", l.ID))
			}
			x.place = len(v.byID)
			v.byID[l.ID] = x
			out = append(out, x)
		}
		return out
	}
	v.leaves, v.context = parse(v.p.Leaves), parse(v.p.Context)
	if len(v.leaves) == 0 {
		v.badLeaf = first(v.badLeaf, errors.New("no leaf of the execution"))
		return
	}
	for i := range v.leaves {
		l := &v.leaves[i]
		switch {
		case l.Kind == exeq.KindStart && v.start != nil:
			v.badLeaf = first(v.badLeaf, errors.New("two starts on one permit"))
		case l.Kind == exeq.KindStart:
			v.start = l
		}
	}
	if l := &v.leaves[len(v.leaves)-1]; closes(l, len(v.leaves)) {
		v.last = l
	}
}

// parseLeaves parses and hashes on all processors.
func parseLeaves(raw []string) ([]leaf, []error) {
	out, errs := make([]leaf, len(raw)), make([]error, len(raw))
	each(len(raw), func(i int) {
		b := []byte(raw[i])
		out[i].Leaf, errs[i] = exeq.ParseLeaf(b)
		out[i].exact = b
		out[i].hash = exeq.LeafHash(b)
	})
	return out, errs
}

// each calls f for 0 to n-1 on all processors.
func each(n int, f func(i int)) {
	rows(n, func(from, to int) {
		for i := from; i < to; i++ {
			f(i)
		}
	})
}

// rows calls f for parts of 0 to n-1 on all processors, a few in a row on one.
func rows(n int, f func(from, to int)) {
	const row = 8
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (n+row-1)/row) {
		wg.Go(func() {
			for {
				end := int(next.Add(row))
				if end-row >= n {
					return
				}
				f(end-row, min(end, n))
			}
		})
	}
	wg.Wait()
}

// closes reports whether a leaf ends an execution's chain: an end, the denial
// of a request, or of a permit that its enforcing side refused.
func closes(l *leaf, n int) bool {
	return l.Kind == exeq.KindEnd || l.Kind == exeq.KindDenial && n <= 2
}

// denied reports whether this is the record of a denial: no permit exists.
func (v *verifier) denied() bool { return len(v.leaves) == 1 && v.leaves[0].Kind == exeq.KindDenial }

// inLog verifies every receipt and notes the indexes.
func (v *verifier) inLog() {
	for _, r := range v.p.Receipts {
		if err := v.oneReceipt(r); err != nil {
			v.badLog = first(v.badLog, fmt.Errorf("receipt of %.36s: %w", r.Leaf, err))
		}
	}
	if !slices.IsSortedFunc(v.p.Receipts, func(x, y exeq.Receipt) int { return v.byID[x.Leaf].place - v.byID[y.Leaf].place }) {
		v.badLog = first(v.badLog, errOrder("receipts"))
	}
	want := append([]leaf{}, v.context...)
	if len(v.leaves) > 0 {
		want = append(want, v.leaves[0])
	}
	for _, l := range []*leaf{v.start, v.last} {
		if l != nil {
			want = append(want, *l)
		}
	}
	for _, l := range want {
		if _, ok := v.index[l.ID]; !ok {
			v.noReceipt = append(v.noReceipt, string(l.Kind))
		}
	}
}

func (v *verifier) oneReceipt(r exeq.Receipt) error {
	l, ok := v.byID[r.Leaf]
	if !ok {
		return errors.New("no such leaf in the proof")
	}
	if _, twice := v.index[r.Leaf]; twice {
		return errors.New("a second one")
	}
	rc, err := parseReceipt(r.Proof)
	if err != nil {
		return err
	}
	cp := v.notes[rc.note]
	if cp == nil {
		if cp, err = v.a.Checkpoint(rc.note); err != nil {
			return err
		}
		v.notes[rc.note] = cp
	}
	if rc.index >= cp.Size {
		return fmt.Errorf("index %d lies outside a tree of %d", rc.index, cp.Size)
	}
	if err := tlog.CheckRecord(rc.path, cp.Size, tlog.Hash(cp.Root), rc.index, tlog.Hash(l.hash)); err != nil {
		return errors.New("the leaf is not at that index of that tree")
	}
	switch {
	case v.tree == nil:
		v.tree = cp
	case cp.Size == v.tree.Size && cp.Root != v.tree.Root:
		return fmt.Errorf("two checkpoints of size %d with different roots: the log is forked", cp.Size)
	case cp.Size != v.tree.Size:
		return fmt.Errorf("checkpoints of sizes %d and %d; all receipts must stand on one", v.tree.Size, cp.Size)
	case v.a.quorum.root != nil && v.a.quorum.root.met(v.tree.sigs) && !v.a.quorum.root.met(cp.sigs):
		v.tree = cp // the weakest cosigned one counts
	}
	v.index[r.Leaf] = rc.index
	return nil
}

// keyring takes in the key leaves in the order of the log.
func (v *verifier) keyring() {
	last := int64(-1)
	for i := range v.context {
		l := &v.context[i]
		at, ok := v.index[l.ID]
		if !ok {
			continue // counted as missing a receipt
		}
		if at <= last {
			v.badKeys = first(v.badKeys, errors.New("context leaves are not in the order of the log"))
		}
		last = at
		if l.Kind != exeq.KindKey && l.Kind != exeq.KindPolicy {
			v.badKeys = first(v.badKeys, fmt.Errorf("a %s leaf has no place in the context", l.Kind))
			continue
		}
		if err := l.verify(v.a, at); err != nil {
			v.badKeys = first(v.badKeys, err)
			continue
		}
		if l.Kind == exeq.KindKey {
			v.badKeys = first(v.badKeys, v.a.Apply(l.Leaf, at))
		}
	}
}

// idleContext refuses context leaves that say nothing about this proof.
func (v *verifier) idleContext() {
	heads := func(in []leaf) (out []*exeq.Leaf) {
		for i := range in {
			out = append(out, in[i].Leaf)
		}
		return out
	}
	context := heads(v.context)
	for i, no := range idle(heads(v.leaves), context, v.permit, func(l *exeq.Leaf) bool { return v.opened[l.ID][fieldPolicySet] != nil }) {
		l := context[i]
		if no || l.Kind == exeq.KindKey && !v.a.ofLog(l) {
			v.badKeys = first(v.badKeys, fmt.Errorf("a %s leaf in the context says nothing about this proof", l.Kind))
		}
	}
}

// first keeps the first error.
func first(have, err error) error {
	if have != nil {
		return have
	}
	return err
}
