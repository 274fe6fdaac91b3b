package monitor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/proof"
)

// disorder is how far a leaf's time may lie before that of a leaf earlier in
// the log: what waits for the log, and a clock that was set back.
const disorder = exeq.MaxMergeDelay + exeq.MaxClockStepBack

// grace is how long after its last leaf an execution may be silent: ticks
// that changed nothing are summed up once a minute.
const grace = time.Minute + exeq.MaxMergeDelay + exeq.MaxClockStepBack

// walker is the state of one walk.
type walker struct {
	c Config
	a *proof.Anchors
	r *Report

	tree   tree
	heads  []*proof.Checkpoint // ascending by size
	wanted map[exeq.Digest][]*promised
	found  map[Severity]int
	latest time.Time
	ids    map[[16]byte]exeq.Digest // leaf id → hash

	open, closed map[string]*execution
}

// execution is what the walk remembers of one.
type execution struct {
	id, parent, actor string
	index             int64 // of its last leaf
	next              int
	prev              exeq.Digest
	time              time.Time
	lease             time.Duration
	node              string
	started, denied   bool
	tick              uint64
	covered           time.Time
	counts            map[string]int
}

// entries reads the log bundle by bundle.
func (w *walker) entries(head *proof.Checkpoint) error {
	w.tree = tree{log: w.c.Log}
	for first := int64(0); first < head.Size; first += width {
		n := int(min(width, head.Size-first))
		name := tilePath("entries", first/width)
		b, err := readWide(w.c.Log, name, n, maxBundle)
		if err != nil {
			return &damage{first, fmt.Sprintf("%s: %s", name, err)}
		}
		es, err := bundle(b, n)
		if err != nil {
			return &damage{first, fmt.Sprintf("%s: %s", name, err)}
		}
		for i, e := range es {
			w.compareHeads()
			if err := w.tree.add(exeq.LeafHash(e)); err != nil {
				w.find(Violation, DamagedLog, -1, nil, "%s", err)
			}
			w.entry(first+int64(i), e)
		}
	}
	w.compareHeads()
	return nil
}

// compareHeads compares the tree so far with heads of this size seen elsewhere.
func (w *walker) compareHeads() {
	for len(w.heads) > 0 && w.heads[0].Size == w.tree.size {
		if got := w.tree.root(); got != w.heads[0].Root {
			w.find(Violation, Fork, -1, nil, "a checkpoint of size %d with root %s was signed, this log has %s there", w.tree.size, w.heads[0].Root, got)
		} else {
			w.r.Seen++
		}
		w.heads = w.heads[1:]
	}
}

// entry judges one entry.
func (w *walker) entry(index int64, b []byte) {
	hash := exeq.LeafHash(b)
	if ps, ok := w.wanted[hash]; ok {
		w.r.Promises += len(ps)
		delete(w.wanted, hash)
	}
	l, err := exeq.ParseLeaf(b)
	if errors.Is(err, exeq.ErrCannotTell) {
		w.r.Leaves["unknown"]++
		w.find(Unknown, UnknownKind, index, nil, "%s", err)
		return
	}
	if err != nil {
		w.r.Leaves["unknown"]++
		w.find(Violation, NotALeaf, index, nil, "%s", err)
		return
	}
	w.r.Leaves[string(l.Kind)]++
	if !w.newID(index, l, hash) {
		return
	}
	if l.Time.Before(w.latest.Add(-disorder)) {
		w.find(Warning, BackDated, index, l, "%s leaf of %s, behind one of %s", l.Kind, l.Time, exeq.At(w.latest))
	}
	if l.Time.After(w.latest) {
		w.latest = l.Time.Time
	}
	if l.Kind != exeq.KindPermit {
		if err := w.a.VerifyLeaf(l, index); err != nil {
			w.find(Violation, BadSignature, index, l, "%s", err)
			return
		}
	}
	switch l.Kind {
	case exeq.KindKey:
		if err := w.a.Apply(l, index); err != nil {
			w.find(Unknown, UnknownKind, index, l, "%s", err)
		}
	case exeq.KindPolicy, exeq.KindScope:
	default:
		w.chained(index, l, hash)
	}
}

// newID keeps leaf ids unique. The same bytes twice are what a crash between
// the log and the store can leave behind; they count once.
func (w *walker) newID(index int64, l *exeq.Leaf, hash exeq.Digest) bool {
	var id [16]byte
	raw, err := hex.DecodeString(strings.ReplaceAll(l.ID, "-", ""))
	if err != nil || len(raw) != len(id) {
		w.find(Violation, NotALeaf, index, l, "its id is not a UUID")
		return false
	}
	copy(id[:], raw)
	have, dup := w.ids[id]
	switch {
	case !dup:
		w.ids[id] = hash
	case have == hash:
		w.find(Warning, DuplicateID, index, l, "the same leaf a second time")
	default:
		w.find(Violation, DuplicateID, index, l, "two different leaves with one id")
	}
	return !dup
}

// chained judges a leaf of an execution.
func (w *walker) chained(index int64, l *exeq.Leaf, hash exeq.Digest) {
	x := w.open[l.Execution]
	ended := w.closed[l.Execution]
	switch {
	case l.Execution == "":
		w.find(Violation, Orphan, index, l, "a %s leaf of no execution", l.Kind)
		return
	case l.Kind == exeq.KindPermit && (x != nil || ended != nil):
		w.find(Violation, DoublePermit, index, l, "the execution has a permit already")
		return
	case x == nil && ended != nil && l.Kind == exeq.KindStart:
		w.find(Violation, DoubleStart, index, l, "started again after its end")
		return
	case x == nil && ended != nil:
		w.find(Violation, AfterEnd, index, l, "a %s leaf behind the end at index %d", l.Kind, ended.index)
		return
	case x == nil && l.Kind != exeq.KindPermit && (l.Kind != exeq.KindDenial || l.Seq != 0):
		w.find(Violation, Orphan, index, l, "a %s leaf without a permit before it", l.Kind)
		return
	case x == nil:
		x = &execution{id: l.Execution, parent: l.Parent, actor: l.Actor, counts: map[string]int{}}
		w.open[x.id] = x
		w.child(index, l)
	}
	if l.Kind == exeq.KindStart && x.started {
		w.find(Violation, DoubleStart, index, l, "the permit was used a second time")
		return
	}
	if l.Seq != x.next || l.Prev != x.prev {
		w.find(Violation, ChainBreak, index, l, "leaf %d, want %d behind index %d", l.Seq, x.next, x.index)
	}
	if l.Parent != x.parent || l.Actor != x.actor {
		w.find(Violation, ChainBreak, index, l, "parent or actor changed")
	}
	if x.next > 0 && l.Time.Before(x.time.Add(-exeq.MaxClockStepBack)) {
		w.find(Violation, BackDated, index, l, "of %s, behind its own leaf of %s", l.Time, exeq.At(x.time))
	}
	w.tells(index, l, x)
	x.index, x.next, x.prev, x.time = index, l.Seq+1, hash, l.Time.Time
	if l.Kind == exeq.KindEnd || l.Kind == exeq.KindDenial {
		x.denied = l.Kind == exeq.KindDenial
		delete(w.open, x.id)
		w.closed[x.id] = &execution{id: x.id, index: index, denied: x.denied}
	}
}

// child judges that a nested execution's parent was running.
func (w *walker) child(index int64, l *exeq.Leaf) {
	if l.Parent == "" {
		return
	}
	if p := w.open[l.Parent]; p == nil || !p.started {
		w.find(Violation, Orphan, index, l, "its parent %s was not running", l.Parent)
	}
}

// tells follows what an execution's leaves say of running.
func (w *walker) tells(index int64, l *exeq.Leaf, x *execution) {
	b := &l.Body
	period := x.lease.Milliseconds()
	slack := period + exeq.MaxClockStepBack.Milliseconds()
	switch l.Kind {
	case exeq.KindStart:
		x.started, x.node, x.covered = true, l.Key, l.Time.Time
		x.lease = time.Duration(b.LeaseMillis) * time.Millisecond
		return
	case exeq.KindActivity, exeq.KindAppraisal, exeq.KindEnd:
		if x.started && l.Key != x.node {
			w.find(Violation, BadSignature, index, l, "signed by another node than its start")
		}
		if !x.started && l.Kind != exeq.KindEnd {
			w.find(Violation, Orphan, index, l, "tells of running before a start")
			return
		}
	}
	switch l.Kind {
	case exeq.KindActivity:
		for class, n := range b.Counts {
			x.counts[class] += n
		}
	case exeq.KindAppraisal:
		n := int64(b.LastTick) - int64(b.FirstTick) + 1
		elapsed := l.Time.Sub(x.covered).Milliseconds() - b.HeldMillis
		if b.FirstTick != x.tick+1 || n < 0 || b.MaxGap > period || elapsed > n*b.MaxGap+slack {
			w.find(Violation, LeaseGap, index, l, "ticks %d to %d with gaps of %d ms do not cover the lease of %d ms since %s",
				b.FirstTick, b.LastTick, b.MaxGap, period, exeq.At(x.covered))
		}
		x.tick, x.covered = b.LastTick, l.Time.Time
	case exeq.KindEnd:
		if x.started && b.Code != "lost" && l.Time.Sub(x.covered).Milliseconds()-b.HeldMillis > slack {
			w.find(Violation, LeaseGap, index, l, "not renewed from %s to the end at %s", exeq.At(x.covered), l.Time)
		}
		for class, n := range b.Counts {
			if n > x.counts[class] {
				w.find(Violation, MissingContext, index, l, "the end counts %d of %s, the leaves hold %d", n, class, x.counts[class])
			}
		}
	}
}

// unsealed judges an execution without an end.
func (w *walker) unsealed(x *execution) {
	if w.c.Now.Sub(x.time) <= x.lease+grace {
		w.r.Executions["running"]++
		return
	}
	w.r.Executions["unsealed"]++
	w.find(Warning, Unsealed, x.index, &exeq.Leaf{Execution: x.id}, "silent since %s and no end", exeq.At(x.time))
}
