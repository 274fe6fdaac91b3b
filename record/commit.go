package record

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/exeq/exeq"
)

// call is one caller's wish; all of it becomes durable or none.
type call struct {
	ctx    context.Context
	leaves []leaf
	unless func(*grouped) (bool, error) // nil, or whether the leaves are not wanted any more
	burn   *burn
	do     func(*writer, *state) error // any other write
	alone  func(*writer) error         // what must run outside of a transaction

	done        chan struct{} // its caller is woken
	woken, left bool          // its caller was, or waits no longer; the queue's
	passes      bool          // its caller wakes the next ones
	over        bool          // the committer has let go of it; the caller's

	// Set before its caller is woken; the promises are the leaves' places in
	// tree from at on.
	err  error
	note string
	tree merkle
	at   int
}

// leaf is one entry, ready to be written.
type leaf struct {
	*exeq.Entry
	hash   exeq.Digest
	opened any // bytes, or nil for NULL
}

// size is about what the leaf takes up.
func (l *leaf) size() int64 {
	opened, _ := l.opened.([]byte)
	return int64(len(l.Bytes) + len(opened) + 256)
}

type burn struct {
	permit, nonce string
	until         exeq.Time
}

// stored is the nonce as its row keeps it, behind a sum that ties the row's
// columns together; see checker.burns.
func (b *burn) stored() string {
	return burnSum(b.permit, b.nonce, b.until.UnixMilli()) + ":" + b.nonce
}

func burnSum(permit, nonce string, ms int64) string {
	h := sha256.Sum256(fmt.Appendf(nil, "exeq burn v1 %d %q %q", ms, permit, nonce))
	return "v1:" + hex.EncodeToString(h[:8])
}

// Record implements [exeq.Recorder]. A permit leaf is refused while the log
// lags more than MaxMergeDelay behind, and waits a little from half of that on;
// permits and starts are refused while the clock is not trusted.
func (s *Store) Record(ctx context.Context, entries ...exeq.Entry) ([]exeq.Promise, error) {
	return s.record(ctx, nil, entries)
}

func (s *Store) record(ctx context.Context, unless func(*grouped) (bool, error), entries []exeq.Entry) ([]exeq.Promise, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	for i := range entries {
		if n := len(entries[i].Bytes); n == 0 || n > exeq.MaxLeafBytes || entries[i].Leaf.ID == "" {
			return nil, fmt.Errorf("%w: leaf %d of the call is not complete", exeq.ErrRecord, i)
		}
	}
	// What can be done before it is the committer's turn is done here: there is
	// one committer, and many who wait for it.
	leaves := make([]leaf, len(entries))
	scratch := openings.Get().(*[]byte)
	b := (*scratch)[:0]
	for i := range entries {
		leaves[i] = leaf{&entries[i], exeq.LeafHash(entries[i].Bytes), nil}
		if len(entries[i].Disclosures) > 0 {
			from := len(b)
			b = appendDisclosures(b, entries[i].Disclosures)
			leaves[i].opened = b[from:len(b):len(b)]
		}
	}
	if d := pace(time.Duration(s.lagging.Load())); d > 0 && slices.ContainsFunc(entries, func(e exeq.Entry) bool { return e.Leaf.Kind == exeq.KindPermit }) {
		if err := pause(ctx, s.closed, d); err != nil {
			return nil, fmt.Errorf("%w: %w", exeq.ErrRecord, err)
		}
	}
	c := &call{ctx: ctx, leaves: leaves, unless: unless}
	err := s.queue.submit(c)
	if *scratch = b; c.over && cap(b) <= maxOpening { // else the committer may still read it
		openings.Put(scratch)
	}
	if err != nil {
		return nil, err
	}
	s.waits.Store(true)
	promises := make([]exeq.Promise, len(entries))
	for i := range promises {
		promises[i] = exeq.Promise{Note: c.note, Index: c.at + i, Path: c.tree.path(c.at + i)}
	}
	return promises, nil
}

// openings holds buffers for what opens leaves until it is written.
var openings = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

const maxOpening = 64 << 10

// maxPace is how long a permit waits at the most so that the log catches up.
const maxPace = 100 * time.Millisecond

// pace is how long a permit waits at a lag: many callers would otherwise leave
// the sequencer no time until all of them are refused.
func pace(lag time.Duration) time.Duration {
	const from = exeq.MaxMergeDelay / 2
	if lag <= from {
		return 0
	}
	return min(maxPace, time.Duration(float64(maxPace)*float64(lag-from)/float64(exeq.MaxMergeDelay-from)))
}

// Burn spends a permit's nonce durably, once over all processes; a second time
// the error wraps [exeq.ErrReplayed]. A permit id is spent with it: two
// permits of one id are never both admitted.
func (s *Store) Burn(ctx context.Context, permit, nonce string, until exeq.Time) error {
	if permit == "" || nonce == "" {
		return fmt.Errorf("%w: a burn needs a permit and a nonce", exeq.ErrRecord)
	}
	return s.queue.submit(&call{ctx: ctx, burn: &burn{permit, nonce, until}})
}

// write runs f in the next group's transaction.
func (s *Store) write(ctx context.Context, f func(*writer, *state) error) error {
	return s.queue.submit(&call{ctx: ctx, do: f})
}

// between runs f on the writing connection, outside of any transaction.
func (s *Store) between(ctx context.Context, f func(*writer) error) error {
	return s.queue.submit(&call{ctx: ctx, alone: f})
}

// commit makes a group durable. A call that breaks a constraint (a leaf id or
// a place in a chain taken twice) fails alone: the group is tried call by call.
func (s *Store) commit(group []*call) {
	live := group[:0:0]
	for _, c := range group {
		if err := context.Cause(c.ctx); err != nil {
			c.err = fmt.Errorf("%w: %w", exeq.ErrRecord, err)
			continue
		}
		if c.alone != nil {
			c.err = explain("store.db", c.alone(s.writer))
			continue
		}
		live = append(live, c)
	}
	if len(live) == 0 {
		return
	}
	err := s.transact(live)
	if err == nil {
		return
	}
	if isConstraint(err) && len(live) > 1 {
		for _, c := range live {
			s.commit([]*call{c})
		}
		return
	}
	for _, c := range live {
		switch {
		case isConstraint(err):
			c.err = fmt.Errorf("%w: this leaf, or one at its place in the chain, is on record already", exeq.ErrRecord)
		case errors.Is(err, exeq.ErrReplayed), errors.Is(err, exeq.ErrClock):
			c.err = err
		default:
			c.err = explain("commit", err)
		}
	}
}

// transact writes a group in one transaction, signs its promise and hands the
// promises out once the commit has returned. Calls that are refused by
// themselves (clock, lag, replay) carry their error and write nothing.
func (s *Store) transact(group []*call) error {
	var g grouped
	err := s.writer.tx(func(st *state) error {
		g = grouped{w: s.writer, st: st, now: s.c.Now(), damage: s.Damage(), refused: make(map[*call]error)}
		if err := g.look(); err != nil {
			return err
		}
		s.lagging.Store(int64(g.lag))
		for _, c := range group {
			if err := g.add(c); err != nil {
				return err
			}
		}
		if err := g.close(s); err != nil {
			return err
		}
		if s.faults.before != nil {
			return s.faults.before("commit")
		}
		return nil
	})
	if err == nil && s.faults.after != nil {
		err = s.faults.after("commit")
	}
	if err != nil {
		return err
	}
	at := 0
	for _, c := range group {
		if c.err = g.refused[c]; c.err == nil {
			c.note, c.tree, c.at = g.note, g.tree, at
			at += len(c.leaves)
		}
	}
	return nil
}

// grouped is one group while it is being written.
type grouped struct {
	w       *writer
	st      *state
	now     time.Time
	damage  error
	lag     time.Duration
	first   int64 // row of the first leaf
	hashes  []exeq.Digest
	rows    []any // arguments of leaves that are not written yet
	refused map[*call]error
	note    string
	tree    merkle
}

func (g *grouped) look() error {
	last, lag, err := g.w.lag(g.st, g.now)
	g.first, g.lag = last+1, lag
	return err
}

// refusal says why a call must not go in, if anything speaks against it.
func (g *grouped) refusal(c *call) error {
	grants := c.burn != nil
	for i := range c.leaves {
		switch c.leaves[i].Leaf.Kind {
		case exeq.KindPermit:
			if g.lag > exeq.MaxMergeDelay {
				return fmt.Errorf("%w: the log is %v behind the record, more than %v: no new permits until it is drained", exeq.ErrRecord, g.lag.Round(time.Second), exeq.MaxMergeDelay)
			}
			grants = true
		case exeq.KindStart:
			grants = true
		}
	}
	if d := g.damage; grants && d != nil {
		return d
	}
	if back := time.Duration(g.st.latest-g.now.UnixMilli()) * time.Millisecond; grants && back > exeq.MaxClockStepBack {
		return fmt.Errorf("%w: %w: the wall clock stands %v behind the latest recorded time %s", exeq.ErrRecord, exeq.ErrClock, back.Round(time.Second), exeq.At(time.UnixMilli(g.st.latest)))
	}
	return nil
}

func (g *grouped) add(c *call) error {
	if err := g.refusal(c); err != nil {
		g.refused[c] = err
		return nil
	}
	if c.do != nil {
		if err := g.flush(1); err != nil {
			return err
		}
		return c.do(g.w, g.st)
	}
	if c.burn != nil {
		res, err := g.w.exec(sqlBurn, c.burn.permit, c.burn.stored(), c.burn.until.UnixMilli())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n != 1 {
			g.refused[c] = fmt.Errorf("%w: %s", exeq.ErrReplayed, c.burn.permit)
			return nil
		}
	}
	if c.unless != nil {
		done, err := c.unless(g)
		if err != nil {
			return err
		}
		if done {
			g.refused[c] = errOnce
			return nil
		}
	}
	for i := range c.leaves {
		if err := g.leaf(&c.leaves[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *grouped) leaf(e *leaf) error {
	var execution, seq any
	if e.Leaf.Execution != "" {
		execution, seq = e.Leaf.Execution, e.Leaf.Seq
	}
	g.rows = append(g.rows, e.Leaf.ID, string(e.Leaf.Kind), execution, seq, e.Bytes, e.opened)
	g.hashes = append(g.hashes, e.hash)
	if err := g.flush(manyLeaves); err != nil {
		return err
	}
	switch e.Leaf.Kind {
	case exeq.KindStart:
		return g.w.ownedByThis(e.Leaf.Execution)
	case exeq.KindEnd:
		_, err := g.w.exec(sqlDisown, e.Leaf.Execution)
		return err
	}
	return nil
}

// flush writes the leaves that were added, when there are so many of them.
func (g *grouped) flush(least int) error {
	rows := g.rows
	for n := len(rows) / leafColumns; n >= least && n > 0; n = len(rows) / leafColumns {
		query, now := sqlLeaf, rows[:leafColumns]
		if n >= manyLeaves {
			query, now = sqlLeaves, rows[:manyLeaves*leafColumns]
		}
		res, err := g.w.exec(query, now...)
		if err != nil {
			return err
		}
		rows = rows[len(now):]
		last, err := res.LastInsertId()
		if err != nil {
			return err
		}
		if want := g.first + int64(len(g.hashes)-len(rows)/leafColumns) - 1; last != want {
			return fmt.Errorf("%w: store.db gives row %d where %d is next", ErrDamaged, last, want)
		}
	}
	g.rows = g.rows[:copy(g.rows, rows)]
	return nil
}

// close signs the promise over what was added and moves the clock on.
func (g *grouped) close(s *Store) error {
	if err := g.flush(1); err != nil {
		return err
	}
	g.st.latest = max(g.st.latest, g.now.UnixMilli())
	if err := g.w.saveState(g.st); err != nil {
		return err
	}
	if len(g.hashes) == 0 {
		return nil
	}
	g.tree = newMerkle(g.hashes)
	note, err := signPromise(s.promise, len(g.hashes), g.tree.root(), g.st.latest)
	if err != nil {
		return err
	}
	g.note = note
	_, err = g.w.exec(sqlBatch, g.first, len(g.hashes), g.st.latest, note)
	return err
}
