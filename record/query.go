package record

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/exeq/exeq"
)

// Stored is a leaf as the store holds it.
type Stored struct {
	exeq.Entry
	Row     int64 // position in the store, rising, without gaps, from 1
	Index   int64 // in the log; -1 while it waits
	Promise exeq.Promise
}

const selectLeaf = `SELECT l.row, l.bytes, l.opened, p.idx + l.row - p.row
	FROM leaf l
	LEFT JOIN placed p ON p.row = (SELECT max(q.row) FROM placed q WHERE q.row <= l.row) AND l.row < p.row + p.n `

func (s *Store) leaves(ctx context.Context, where string, args ...any) ([]Stored, error) {
	rows, err := s.read.QueryContext(ctx, selectLeaf+where, args...)
	if err != nil {
		return nil, explain("read leaves", err)
	}
	defer rows.Close()
	var out []Stored
	for rows.Next() {
		var st Stored
		var data []byte
		var index sql.NullInt64
		if err := rows.Scan(&st.Row, &st.Bytes, &data, &index); err != nil {
			return nil, explain("read leaves", err)
		}
		leaf, err := exeq.ParseLeaf(st.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: row %d of store.db: %w", ErrDamaged, st.Row, err)
		}
		st.Leaf, st.Index = *leaf, -1
		if index.Valid {
			st.Index = index.Int64
		}
		if st.Disclosures, err = decodeDisclosures(leaf.ID, data); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		out = append(out, st)
	}
	return out, explain("read leaves", rows.Err())
}

// Leaves gives an execution's leaves in order of their sequence, with their
// promises.
func (s *Store) Leaves(ctx context.Context, execution string) ([]Stored, error) {
	out, err := s.leaves(ctx, `WHERE l.execution = ? ORDER BY l.seq`, execution)
	if err != nil {
		return nil, err
	}
	return out, s.addPromises(ctx, out)
}

// Leaf gives one leaf by its id, with its promise; none: the error wraps
// [fs.ErrNotExist].
func (s *Store) Leaf(ctx context.Context, id string) (*Stored, error) {
	out, err := s.leaves(ctx, `WHERE l.id = ?`, id)
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no leaf %s: %w", id, fs.ErrNotExist)
	}
	return &out[0], s.addPromises(ctx, out)
}

// Follow gives up to limit leaves behind a row, in order of rows, without
// their promises; 0 starts at the beginning. It does not wait; see Wait.
func (s *Store) Follow(ctx context.Context, after int64, limit int) ([]Stored, error) {
	return s.leaves(ctx, `WHERE l.row > ? ORDER BY l.row LIMIT ?`, after, limit)
}

// Foundations gives the leaves that every execution's rest on: those of keys
// and of policy activations, in order of rows, without promises.
func (s *Store) Foundations(ctx context.Context) ([]Stored, error) {
	return s.leaves(ctx, `WHERE l.kind IN ('key', 'policy') ORDER BY l.row`)
}

// Last gives the row of the newest leaf, 0 for none.
func (s *Store) Last(ctx context.Context) (int64, error) {
	var last int64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(row), 0) FROM leaf`).Scan(&last)
	return last, explain("read leaves", err)
}

// Empty reports whether no leaf was on record when the store was opened.
func (s *Store) Empty() bool { return s.found.empty }

// poll is how often one process looks for what others have committed.
const poll = 50 * time.Millisecond

// Wait returns when there is a row behind after.
func (s *Store) Wait(ctx context.Context, after int64) error {
	for {
		rung := s.wake.next()
		last, err := s.Last(ctx)
		if err != nil || last > after {
			return err
		}
		if err := pause(ctx, rung, poll); err != nil {
			return err
		}
	}
}

// pause waits for the bell, the time or the end of ctx, which is an error.
func pause(ctx context.Context, rung <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-rung:
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// batchOf reads the promise that covers a row, with its leaves' hashes.
type batchOf struct {
	first, n, ms int64
	note         string
	tree         merkle
}

// queryer is a connection or a pool of them.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readBatch(ctx context.Context, q queryer, row int64) (*batchOf, error) {
	var b batchOf
	err := q.QueryRowContext(ctx, `SELECT first, n, time, note FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1`, row).
		Scan(&b.first, &b.n, &b.ms, &b.note)
	if err != nil {
		return nil, explain("read promise", err)
	}
	rows, err := q.QueryContext(ctx, `SELECT bytes FROM leaf WHERE row >= ? AND row < ? ORDER BY row`, b.first, b.first+b.n)
	if err != nil {
		return nil, explain("read promise", err)
	}
	defer rows.Close()
	hashes := make([]exeq.Digest, 0, b.n)
	for rows.Next() {
		var raw sql.RawBytes
		if err := rows.Scan(&raw); err != nil {
			return nil, explain("read promise", err)
		}
		hashes = append(hashes, exeq.LeafHash(raw))
	}
	if err := rows.Err(); err != nil {
		return nil, explain("read promise", err)
	}
	if row >= b.first+b.n || int64(len(hashes)) != b.n {
		return nil, fmt.Errorf("%w: row %d of store.db has no promise or its batch is cut short", ErrDamaged, row)
	}
	b.tree = newMerkle(hashes)
	return &b, nil
}

func (s *Store) addPromises(ctx context.Context, leaves []Stored) error {
	var b *batchOf
	for i := range leaves {
		l := &leaves[i]
		if b == nil || l.Row < b.first || l.Row >= b.first+b.n {
			var err error
			if b, err = readBatch(ctx, s.read, l.Row); err != nil {
				return err
			}
		}
		at := int(l.Row - b.first)
		l.Promise = exeq.Promise{Note: b.note, Index: at, Path: b.tree.path(at)}
	}
	return nil
}

// checkTail verifies the newest promise over its leaves: what was last written
// before a crash is what damage hits first.
func (s *Store) checkTail(ctx context.Context, w *writer) error {
	var last int64
	if err := w.scan(sqlLastRow, nil, &last); err != nil || last == 0 {
		return err
	}
	b, err := readBatch(ctx, w.conn, last)
	if err != nil {
		return err
	}
	if b.first+b.n-1 != last {
		return fmt.Errorf("%w: the newest rows of store.db have no promise", ErrDamaged)
	}
	if err := checkPromise(s.c.Keys.NoteVerifiers(exeq.RolePromise), s.promise.Name(), b.note, b.tree[0], b.ms); err != nil {
		return fmt.Errorf("%w: rows %d–%d of store.db: %w", ErrDamaged, b.first, last, err)
	}
	return nil
}

// Lag is how many leaves wait for the log (or its published checkpoint) and
// for how long the oldest has.
//
// It asks the writing connection, as Blob does: a process that only runs one
// command needs no other, and opening one costs it a millisecond.
func (s *Store) Lag(ctx context.Context) (int, time.Duration, error) {
	var n int
	var lag time.Duration
	if err := s.between(ctx, func(w *writer) error {
		st, err := w.state()
		if err == nil {
			n, lag, err = w.waiting(st, s.c.Now())
		}
		return err
	}); err != nil {
		return 0, 0, explain("read outbox", err) // n and lag may still be written to
	}
	return n, lag, nil
}

// PutBlob keeps bytes by their SHA-256: policy sources, rights.
func (s *Store) PutBlob(ctx context.Context, b []byte) (exeq.Digest, error) {
	d := exeq.Digest(sha256.Sum256(b))
	return d, s.PutBlobAs(ctx, d, b)
}

// PutBlobAs keeps bytes under a digest that Exeq defines over them with a tag.
// Other bytes under the same digest replace
// what was there.
func (s *Store) PutBlobAs(ctx context.Context, d exeq.Digest, b []byte) error {
	if have, err := s.Blob(ctx, d); err == nil && string(have) == string(b) {
		return nil
	}
	return s.write(ctx, func(w *writer, _ *state) error {
		_, err := w.exec(sqlBlob, d[:], b, blobSum(d, b))
		return err
	})
}

// Blob gives back what was put; its digest is the caller's to check for
// PutBlobAs. Nothing there: the error wraps [fs.ErrNotExist].
func (s *Store) Blob(ctx context.Context, d exeq.Digest) ([]byte, error) {
	var b, sum []byte
	found := true
	if err := s.between(ctx, func(w *writer) error {
		err := w.scan(sqlGetBlob, []any{d[:]}, &b, &sum)
		if errors.Is(err, sql.ErrNoRows) {
			found, err = false, nil
		}
		return err
	}); err != nil {
		return nil, explain("read blob", err)
	}
	if !found {
		return nil, fmt.Errorf("no blob %s: %w", d, fs.ErrNotExist)
	}
	if string(sum) != string(blobSum(d, b)) {
		return nil, fmt.Errorf("%w: blob %s of store.db", ErrDamaged, d)
	}
	return b, nil
}

// blobSum ties a blob to its digest: PutBlobAs's digests are not the SHA-256 of
// the bytes.
func blobSum(d exeq.Digest, b []byte) []byte {
	h := sha256.Sum256(append(append([]byte("exeq blob v1 "), d[:]...), b...))
	return h[:]
}
