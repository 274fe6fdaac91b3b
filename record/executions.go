package record

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/exeq/exeq"
)

// Summary is one execution for lists.
type Summary struct {
	ID, Parent, Actor string
	State             exeq.State // Denied, Recorded, Live or Sealed
	Permitted         exeq.Time  // of the permit or the denial
	Started, Ended    exeq.Time  // zero: not yet
	Code              string     // of the end or the denial
	Leaves            int
	PID               int // of the owner while it lives; 0: none
}

// Executions lists executions, newest first; limit 0 gives all.
func (s *Store) Executions(ctx context.Context, limit int) ([]Summary, error) {
	if limit <= 0 {
		limit = math.MaxInt
	}
	return s.summaries(ctx, `SELECT execution FROM leaf WHERE seq = 0 AND kind IN ('permit', 'denial') ORDER BY row DESC LIMIT ?`, limit)
}

// Running lists the executions that have started, not ended, and whose owner
// is alive, oldest first.
func (s *Store) Running(ctx context.Context) ([]Summary, error) {
	all, err := s.summaries(ctx, `SELECT execution FROM owner ORDER BY execution`)
	if err != nil {
		return nil, err
	}
	out := all[:0]
	for _, x := range all {
		if x.State == exeq.Live && x.PID != 0 {
			out = append(out, x)
		}
	}
	return out, nil
}

func (s *Store) summaries(ctx context.Context, which string, args ...any) ([]Summary, error) {
	rows, err := s.read.QueryContext(ctx, which, args...)
	if err != nil {
		return nil, explain("list executions", err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, explain("list executions", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, explain("list executions", err)
	}
	owners, err := owners(ctx, s.read)
	if err != nil {
		return nil, err
	}
	out := make([]Summary, 0, len(ids))
	for _, id := range ids {
		x, err := s.summary(ctx, id)
		if err != nil {
			return nil, err
		}
		if o, ok := owners[id]; ok && o.alive() != dead {
			x.PID = o.pid
		}
		out = append(out, *x)
	}
	return out, nil
}

// summary reads only the leaves that mark an execution's way.
func (s *Store) summary(ctx context.Context, id string) (*Summary, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT bytes, (SELECT count(*) FROM leaf WHERE execution = ?1) FROM leaf
		WHERE execution = ?1 AND (seq <= 2 OR seq = (SELECT max(seq) FROM leaf WHERE execution = ?1)) ORDER BY seq`, id)
	if err != nil {
		return nil, explain("list executions", err)
	}
	defer rows.Close()
	x := &Summary{ID: id}
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b, &x.Leaves); err != nil {
			return nil, explain("list executions", err)
		}
		l, err := exeq.ParseLeaf(b)
		if err != nil {
			return nil, fmt.Errorf("%w: a leaf of %s: %w", ErrDamaged, id, err)
		}
		x.Parent, x.Actor = l.Parent, l.Actor
		switch l.Kind {
		case exeq.KindPermit:
			x.State, x.Permitted = exeq.Recorded, l.Time
		case exeq.KindDenial:
			x.State, x.Code = exeq.Denied, l.Body.Code
			if x.Permitted.IsZero() {
				x.Permitted = l.Time
			}
		case exeq.KindStart:
			x.State, x.Started = exeq.Live, l.Time
		case exeq.KindEnd:
			x.State, x.Ended, x.Code = exeq.Sealed, l.Time, l.Body.Code
		}
	}
	return x, explain("list executions", rows.Err())
}

// EraseDisclosures erases what opens an execution's commitments, beyond
// recovery from the store's files; the leaves stay. What is freed
// is overwritten in the pages, and the write-ahead log, which may hold older
// copies, is emptied; where another process reads just then, the error says
// so and a later call finishes it.
func (s *Store) EraseDisclosures(ctx context.Context, execution string) error {
	err := s.write(ctx, func(w *writer, _ *state) error {
		if _, err := w.conn.ExecContext(ctx, `PRAGMA secure_delete=ON`); err != nil {
			return err
		}
		_, err := w.conn.ExecContext(ctx, `UPDATE leaf SET opened = NULL WHERE execution = ?`, execution)
		return err
	})
	if err != nil {
		return err
	}
	return s.between(ctx, func(w *writer) error {
		var busy, pages, moved int
		err := w.conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &moved)
		if err == nil && busy != 0 {
			err = errors.New("another process keeps old pages in the write-ahead log for now")
		}
		return err
	})
}
