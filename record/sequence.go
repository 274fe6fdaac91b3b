package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/osfile"
)

// How the outbox is drained.
const (
	batchSize = 2048                   // entries of one integration: its many small files cost most
	batchAge  = 10 * time.Millisecond  // how long the first of them waits; 1 ms collapses Tessera
	interval  = 100 * time.Millisecond // between checkpoints; Tessera's least
	reach     = 4096                   // rows of one pass
	await     = 30 * time.Second       // for one pass to be integrated
	linger    = time.Second            // how long a row may wait so that others join it
	enough    = 1024                   // rows that need not wait for others
	idle      = time.Second            // after which a sequencer lets others be it
)

// sequencer is this process's part in the one sequencer of an installation:
// whoever holds the lock. A process that is stopped or has nothing to do lets
// go of it.
type sequencer struct {
	mu       sync.Mutex
	log      *openLog
	lastUsed time.Time
}

// placement says that n rows from row on stand in the log from index on.
type placement struct{ row, n, index int64 }

// Drain returns when every leaf recorded before the call is in the log and
// under a published (and, where configured, cosigned) checkpoint. Where
// another process is the sequencer it waits for that.
func (s *Store) Drain(ctx context.Context) error {
	s.waits.Store(false) // what is recorded from here on waits again
	target, err := s.Last(ctx)
	if err != nil {
		return err
	}
	defer s.seq.close()
	for {
		covered, err := s.covered(ctx)
		if err != nil {
			return err
		}
		if covered >= target {
			return nil
		}
		err = s.step(ctx)
		if err != nil && !errors.Is(err, errBusy) {
			return err
		}
		if err := pause(ctx, nil, batchAge); err != nil {
			return fmt.Errorf("%w: the outbox is not drained: %w", exeq.ErrRecord, err)
		}
	}
}

// Sequence drains until ctx ends, for processes that live on; where another
// process is the sequencer it stands by. What goes wrong is logged and tried
// again: a log that stays behind keeps new permits from being recorded.
func (s *Store) Sequence(ctx context.Context) error {
	defer s.seq.close()
	t := time.NewTicker(interval / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.closed:
			return nil
		case <-t.C:
		}
		waiting, lag, err := s.Lag(ctx)
		switch {
		case err != nil:
		case waiting >= enough || waiting > 0 && lag >= linger:
			err = s.step(ctx)
		default:
			s.seq.rest()
		}
		if err != nil && !errors.Is(err, errBusy) && ctx.Err() == nil {
			s.c.Log.Warn("the log does not take the record's leaves", "waiting", waiting, "lag", lag, "err", err)
			if pause(ctx, nil, time.Second) != nil {
				return nil
			}
		}
	}
}

// WhenBehind calls do whenever leaves have waited for the log a while, until
// ctx ends: for a process that lives on and has another one drain. What do
// returns is logged, and do is called again as long as the log is behind.
func (s *Store) WhenBehind(ctx context.Context, do func(context.Context) error) {
	t := time.NewTicker(linger)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.closed:
			return
		case <-t.C:
		}
		waiting, lag, err := s.Lag(ctx)
		if err == nil && lag >= 2*linger {
			err = do(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.c.Log.Warn("the log is behind the record", "waiting", waiting, "lag", lag, "err", err)
		}
	}
}

// errBusy: another process is the sequencer.
var errBusy = errors.New("another process is the sequencer")

// step puts what waits into the log and notes what the published checkpoint
// covers by now. Damage that it meets on the way keeps permits out from then on.
func (s *Store) step(ctx context.Context) error {
	err := s.tryStep(ctx)
	if errors.Is(err, ErrDamaged) {
		return s.judged(err)
	}
	return err
}

func (s *Store) tryStep(ctx context.Context) error {
	s.seq.mu.Lock()
	defer s.seq.mu.Unlock()
	s.seq.lastUsed = time.Now()
	if s.seq.log == nil {
		l, err := s.openLog(ctx)
		if err != nil {
			return err
		}
		s.seq.log = l
	}
	for {
		n, err := s.seq.log.pass(ctx)
		if err != nil {
			// What is in the log is known only after looking again.
			return errors.Join(err, s.seq.let())
		}
		// After each pass: under load there is no last one.
		if err := s.cover(ctx); err != nil || n < enough-layout.TileWidth {
			return err
		}
	}
}

// cover moves the covered mark up to what the published checkpoint proves.
func (s *Store) cover(ctx context.Context) error {
	cp, err := s.log.checkpoint()
	if errors.Is(err, errNoLog) {
		return nil // a crash fell between the first integration and its publication
	}
	if err != nil {
		return err
	}
	l := s.seq.log
	if l.quorum != nil && cp.tree.N > 0 && !l.quorum.Satisfied(cp.raw) {
		return nil // published before there was a witness policy
	}
	row := l.covered
	for _, p := range l.placed {
		if p.row != row+1 || p.index >= cp.tree.N {
			break
		}
		row += min(p.n, cp.tree.N-p.index)
		if p.index+p.n > cp.tree.N {
			break
		}
	}
	if row == l.covered {
		return nil
	}
	err = s.write(ctx, func(w *writer, st *state) error {
		st.covered = max(st.covered, row)
		return w.saveState(st)
	})
	if err != nil {
		return err
	}
	s.lagging.Store(0) // until the next commit looks again
	l.covered = row
	for len(l.placed) > 0 && l.placed[0].row+l.placed[0].n-1 <= row {
		l.placed = l.placed[1:]
	}
	if len(l.placed) > 0 && l.placed[0].row <= row {
		p := &l.placed[0]
		gone := row + 1 - p.row
		p.row, p.n, p.index = p.row+gone, p.n-gone, p.index+gone
	}
	return nil
}

func (s *Store) covered(ctx context.Context) (int64, error) {
	var covered int64
	err := s.read.QueryRowContext(ctx, `SELECT covered FROM state`).Scan(&covered)
	return covered, explain("read outbox", err)
}

// rest lets go of the log when it was not used for a while.
func (q *sequencer) rest() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.log != nil && time.Since(q.lastUsed) > idle {
		_ = q.let()
	}
}

func (q *sequencer) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.let()
}

// let gives the lock back; mu is held.
func (q *sequencer) let() error {
	if q.log == nil {
		return nil
	}
	err := q.log.close()
	q.log = nil
	return err
}

// openLog is the log while this process is its sequencer.
type openLog struct {
	s        *Store
	lock     *os.File
	appender *tessera.Appender
	cancel   context.CancelFunc
	covered  int64                 // rows up to here are under a checkpoint
	placed   []placement           // rows above covered that are in the log, by row
	next     int64                 // rows below it are placed
	size     int64                 // of the log
	quorum   *tessera.WitnessGroup // nil: none is configured
	was      int64                 // published size when it was opened
	inflight chan struct{}         // closed when what was last added is integrated or failed
}

// openLog takes the lock, checks the log against its own checkpoint and
// against what the store knows of it, and reads back what a crash kept from
// being noted.
func (s *Store) openLog(ctx context.Context) (l *openLog, err error) {
	dir := s.log.dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, recordErr("log directory", err)
	}
	l = &openLog{s: s, cancel: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	l.lock, err = os.OpenFile(filepath.Join(dir, ".sequencer.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return l, recordErr("log directory", err)
	}
	if err := osfile.Lock(l.lock, osfile.Try); err != nil {
		if errors.Is(err, osfile.ErrHeld) {
			return l, errBusy
		}
		return l, recordErr("lock the log", err)
	}
	st, err := scanState(s.read.QueryRowContext(ctx, selectState))
	if err != nil {
		return l, explain("read outbox", err)
	}
	tree, err := s.log.integrated()
	if err != nil {
		return l, err
	}
	if tree.N < st.size {
		return l, fmt.Errorf("%w: the log holds %d entries, the store saw %d: it was rolled back or is damaged", ErrDamaged, tree.N, st.size)
	}
	if err := s.log.checkEdge(tree, st.covered > 0); err != nil {
		return l, err
	}
	if cp, err := s.log.checkpoint(); err == nil {
		l.was = cp.tree.N
	}
	if err := l.load(ctx, st); err != nil {
		return l, err
	}
	if err := l.reconcile(ctx, tree, st.size); err != nil {
		return l, err
	}
	l.size = tree.N
	return l, l.start(ctx)
}

// close lets go of the log, at once or as soon as nothing is on its way into
// it any more.
func (l *openLog) close() error {
	if l.lock == nil {
		return nil
	}
	end := func() error {
		l.cancel()
		if cp, err := l.s.log.checkpoint(); err == nil && cp.tree.N > l.was {
			collect(l.s.log.dir, l.was, cp.tree.N)
		}
		return l.lock.Close()
	}
	if l.inflight == nil {
		return end()
	}
	select {
	case <-l.inflight:
		return end()
	default:
	}
	go func() {
		<-l.inflight
		_ = end()
	}()
	return nil
}

// tesseraVersion is that of Tessera's POSIX layout.
const tesseraVersion = "1"

// integrated reads the tree that Tessera has integrated, published or not.
func (r *logReader) integrated() (tlog.Tree, error) {
	raw, err := os.ReadFile(filepath.Join(r.dir, ".state", "treeState"))
	if errors.Is(err, fs.ErrNotExist) {
		return tlog.Tree{}, nil
	}
	if err != nil {
		return tlog.Tree{}, recordErr("read log", err)
	}
	// Of another version Tessera would open nothing, but only when it next
	// sequences.
	v, err := os.ReadFile(filepath.Join(r.dir, ".state", "version"))
	if err != nil {
		return tlog.Tree{}, broken("the log's version", err)
	}
	if string(v) != tesseraVersion {
		return tlog.Tree{}, fmt.Errorf("%w: the log's version is %.8q, want %q", ErrDamaged, v, tesseraVersion)
	}
	var ts struct {
		Size int64  `json:"size"`
		Root []byte `json:"root"`
	}
	// Only as Tessera writes it: encoding/json takes other spellings of a key too.
	err = json.Unmarshal(raw, &ts)
	if again, _ := json.Marshal(ts); err != nil || len(ts.Root) != tlog.HashSize || ts.Size < 0 || !bytes.Equal(raw, again) {
		return tlog.Tree{}, fmt.Errorf("%w: the log's tree state is damaged", ErrDamaged)
	}
	return tlog.Tree{N: ts.Size, Hash: tlog.Hash(ts.Root)}, nil
}

// checkEdge verifies that the tiles give the integrated root, at the edge on
// which the next integration builds, and that it continues the checkpoint.
func (r *logReader) checkEdge(tree tlog.Tree, published bool) error {
	if tree.N > 0 {
		if _, err := r.hashes(tree).ReadHashes([]int64{tlog.StoredHashIndex(0, tree.N-1)}); err != nil {
			return broken("the log's tiles do not give its root", err)
		}
	}
	cp, err := r.checkpoint()
	if errors.Is(err, errNoLog) && !published {
		return nil
	}
	if err != nil {
		return recordErr("log", err)
	}
	return r.prefix(cp.tree, tree)
}

// load reads which rows above the covered mark are placed.
func (l *openLog) load(ctx context.Context, st *state) error {
	l.covered, l.next = st.covered, st.covered+1
	rows, err := l.s.read.QueryContext(ctx, `SELECT row, n, idx FROM placed WHERE row + n - 1 > ? AND
		row >= coalesce((SELECT max(row) FROM placed WHERE row <= ?), 0) ORDER BY row`, st.covered, st.covered)
	if err != nil {
		return explain("read outbox", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p placement
		if err := rows.Scan(&p.row, &p.n, &p.index); err != nil {
			return explain("read outbox", err)
		}
		if gone := st.covered + 1 - p.row; gone > 0 {
			p.row, p.n, p.index = p.row+gone, p.n-gone, p.index+gone
		}
		l.placed = append(l.placed, p)
	}
	l.advance()
	return explain("read outbox", rows.Err())
}

// advance moves next behind the placements that follow without a gap.
func (l *openLog) advance() {
	for _, p := range l.placed {
		if p.row <= l.next {
			l.next = max(l.next, p.row+p.n)
		}
	}
}

func (l *openLog) isPlaced(row int64) bool {
	i, ok := slices.BinarySearchFunc(l.placed, row, func(p placement, r int64) int { return int(p.row - r) })
	if ok {
		return true
	}
	return i > 0 && row < l.placed[i-1].row+l.placed[i-1].n
}

// note makes placements durable.
func (l *openLog) note(ctx context.Context, ps []placement, size int64) error {
	err := l.s.write(ctx, func(w *writer, st *state) error {
		for _, p := range ps {
			if _, err := w.exec(sqlPlace, p.row, p.n, p.index); err != nil {
				return err
			}
		}
		st.size = max(st.size, size)
		return w.saveState(st)
	})
	if err != nil {
		return err
	}
	l.placed = append(l.placed, ps...)
	slices.SortFunc(l.placed, func(a, b placement) int { return int(a.row - b.row) })
	l.advance()
	return nil
}
