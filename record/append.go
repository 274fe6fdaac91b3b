package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/exeq/exeq"
)

// WitnessPolicy is the file in the state directory that names the witnesses
// and their quorum, in C2SP's policy format. While it is there no checkpoint
// is published without its quorum.
const WitnessPolicy = "witness.policy"

// witnessTimeout bounds one round of asking the witnesses.
const witnessTimeout = 5 * time.Second

var quiet sync.Once

// quietTessera sends what Tessera says through klog, which is to stderr and of
// every new directory, to the store's logger.
func quietTessera(to *slog.Logger) {
	quiet.Do(func() { klog.SetSlogLogger(slog.New(warnings{to.Handler()})) })
}

// warnings drops what Tessera has to say in good times.
type warnings struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (h warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// start opens Tessera's appender on a log that was checked.
func (l *openLog) start(context.Context) error {
	quietTessera(l.s.c.Log)
	run, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	driver, err := newDriver(run, l.s.log.dir)
	if err != nil {
		return recordErr("open log", err)
	}
	opts := tessera.NewAppendOptions().
		WithBatching(batchSize, batchAge).
		WithCheckpointInterval(interval).
		WithCheckpointRepublishInterval(0).
		WithGarbageCollectionInterval(0). // see collect
		WithCheckpointSigner(&guard{Signer: l.s.c.Keys.NoteSigner(exeq.RoleLog), log: l.s.log})
	policy, err := os.ReadFile(filepath.Join(l.s.c.Dir, WitnessPolicy))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return recordErr("witness policy", err)
	default:
		group, err := tessera.NewWitnessGroupFromPolicy(policy)
		if err != nil {
			return recordErr("witness policy", err)
		}
		l.quorum = &group
		opts = opts.WithWitnesses(group, &tessera.WitnessOptions{Timeout: witnessTimeout})
	}
	l.appender, _, _, err = tessera.NewAppender(run, driver, opts)
	return recordErr("open log", err)
}

// guard is the log key. It signs a checkpoint only when the tiles on disk
// prove that it continues the published one: the sequencer is its own first
// witness.
type guard struct {
	note.Signer
	log *logReader
}

// Sign implements [note.Signer].
func (g *guard) Sign(msg []byte) ([]byte, error) {
	tree, err := parseTree(string(msg), g.Name())
	if err != nil {
		return nil, err
	}
	cp, err := g.log.checkpoint()
	switch {
	case errors.Is(err, errNoLog):
	case err != nil:
		return nil, err
	default:
		if err := g.log.prefix(cp.tree, *tree); err != nil {
			return nil, err
		}
	}
	return g.Signer.Sign(msg)
}

// pass adds the next rows to the log, waits until they are integrated, and
// notes where. It gives the number of rows.
func (l *openLog) pass(ctx context.Context) (int, error) {
	rows, err := l.waiting(ctx)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	if n := int64(len(rows)); n >= enough {
		// Where many wait the log grows by whole tiles: a part of one is a
		// file, and a directory, that the next pass writes anew.
		rows = rows[:n-(l.size+n)%layout.TileWidth]
	}
	ctx, cancel := context.WithTimeout(ctx, await)
	defer cancel()
	done := make(chan integrated, 1)
	l.inflight = make(chan struct{})
	go l.add(ctx, rows, done, l.inflight)
	select {
	case o := <-done:
		if o.err != nil {
			// Some are in and some are not: reconcile finds out which.
			return 0, fmt.Errorf("%w: the log does not take entries: %w", exeq.ErrRecord, o.err)
		}
		l.size = o.size
		return len(rows), l.note(ctx, o.ps, o.size)
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: the log does not take entries: %w", exeq.ErrRecord, context.Cause(ctx))
	}
}

// integrated is where a pass's rows came to stand.
type integrated struct {
	ps   []placement
	size int64
	err  error
}

// add waits for Tessera without a deadline: as long as an entry may still
// enter the log, nobody else may add it.
func (l *openLog) add(ctx context.Context, rows []waitingRow, done chan<- integrated, over chan<- struct{}) {
	defer close(over)
	ctx = context.WithoutCancel(ctx)
	futures := make([]tessera.IndexFuture, len(rows))
	for i, r := range rows {
		futures[i] = l.appender.Add(ctx, tessera.NewEntry(r.bytes))
	}
	var o integrated
	for i, f := range futures {
		index, err := f()
		if err != nil {
			o.err = err
			continue
		}
		o.ps = extend(o.ps, rows[i].row, int64(index.Index))
		o.size = max(o.size, int64(index.Index)+1)
	}
	done <- o
}

type waitingRow struct {
	row   int64
	bytes []byte
}

// waiting reads the next rows that are not in the log, whole batches of them,
// each checked against its promise: what is damaged never enters the log.
func (l *openLog) waiting(ctx context.Context) ([]waitingRow, error) {
	type span struct {
		first, n, ms int64
		note         string
	}
	rows, err := l.s.read.QueryContext(ctx, `SELECT first, n, time, note FROM batch WHERE first >= coalesce(
		(SELECT max(first) FROM batch WHERE first <= ?1), 0) ORDER BY first LIMIT ?2`, l.next, reach)
	if err != nil {
		return nil, explain("read outbox", err)
	}
	defer rows.Close()
	var spans []span
	for total := int64(0); total < reach && rows.Next(); {
		var b span
		if err := rows.Scan(&b.first, &b.n, &b.ms, &b.note); err != nil {
			return nil, explain("read outbox", err)
		}
		if b.first+b.n > l.next {
			spans = append(spans, b)
			total += b.n
		}
	}
	if err := rows.Err(); err != nil {
		return nil, explain("read outbox", err)
	}
	rows.Close()
	if len(spans) == 0 {
		return nil, nil
	}
	end := spans[len(spans)-1].first + spans[len(spans)-1].n
	all, err := l.s.read.QueryContext(ctx, `SELECT row, bytes FROM leaf WHERE row >= ? AND row < ? ORDER BY row`, spans[0].first, end)
	if err != nil {
		return nil, explain("read outbox", err)
	}
	defer all.Close()
	keys := l.s.c.Keys.NoteVerifiers(exeq.RolePromise)
	var out []waitingRow
	for _, b := range spans {
		hashes := make([]exeq.Digest, 0, b.n)
		for range b.n {
			var r waitingRow
			if !all.Next() {
				break
			}
			if err := all.Scan(&r.row, &r.bytes); err != nil {
				return nil, explain("read outbox", err)
			}
			hashes = append(hashes, exeq.LeafHash(r.bytes))
			if r.row >= l.next && !l.isPlaced(r.row) {
				out = append(out, r)
			}
		}
		if int64(len(hashes)) != b.n {
			return nil, fmt.Errorf("%w: rows %d–%d of store.db are missing", ErrDamaged, b.first, b.first+b.n-1)
		}
		if err := checkPromise(keys, l.s.promise.Name(), b.note, hashes, b.ms); err != nil {
			return nil, fmt.Errorf("%w: rows %d–%d of store.db are damaged: %w", ErrDamaged, b.first, b.first+b.n-1, err)
		}
	}
	return out, explain("read outbox", all.Err())
}
