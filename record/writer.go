package record

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/exeq/exeq/internal/osfile"
)

// writer is the one connection of this process that writes. Only the committer
// (and open, before it) uses it.
type writer struct {
	db   *sql.DB
	conn *sql.Conn

	stmts map[string]*sql.Stmt // by their text, prepared when first used

	path    string
	moving  moving
	busy    func() // see [Config]
	mover   *mover // nil until much was written
	unmoved bool   // there is none to be had
	written int64  // bytes, about, since the mover was last asked
}

func openWriter(ctx context.Context, path string) (*writer, error) {
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &writer{db: db, conn: conn, path: path, moving: usualMoving, stmts: map[string]*sql.Stmt{}}, nil
}

func (w *writer) close() error {
	var errs []error
	if w.mover != nil {
		errs = append(errs, w.mover.close())
		w.mover = nil
	}
	for _, s := range w.stmts { // SQLite keeps a connection with a live statement open
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close(), w.db.Close())...)
}

// create makes the schema, unless another process just did: it waits for one
// that does.
func (w *writer) create(ctx context.Context) error {
	lock, err := os.Open(filepath.Dir(w.path))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := osfile.Lock(lock, osfile.Exclusive); err != nil {
		return err
	}
	// SQLite does not wait where the journal's mode changes, and whoever looks
	// whether there is a schema yet is in its way for a moment.
	for begun := time.Now(); ; {
		err := w.createLocked(ctx)
		var se *sqlite.Error
		if !errors.As(err, &se) || se.Code()&0xff != sqliteBusy || time.Since(begun) > 10*time.Second {
			return err
		}
		if err := pause(ctx, nil, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *writer) createLocked(ctx context.Context) error {
	exec := func(q string) error { _, err := w.conn.ExecContext(ctx, q); return err }
	// A row with what opens it is some 5 KiB: large pages hold several and need
	// few frames of the write-ahead log.
	if err := exec("PRAGMA page_size=16384; PRAGMA journal_mode=WAL"); err != nil {
		return err
	}
	if err := exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var version int
	err := w.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	if err == nil && version == 0 {
		if err = exec(schema); err == nil {
			st := state{id: newID()}
			_, err = w.conn.ExecContext(ctx, `INSERT INTO state VALUES (1, ?, 0, 0, 0, ?)`, st.id, st.sum())
		}
		if err == nil {
			err = exec(fmt.Sprintf("PRAGMA user_version=%d", schemaVersion))
		}
	}
	if err != nil {
		return errors.Join(err, exec("ROLLBACK"))
	}
	return exec("COMMIT")
}

// The statements of the committer.
const (
	sqlBegin    = `BEGIN IMMEDIATE`
	sqlCommit   = `COMMIT`
	sqlRollback = `ROLLBACK`
	sqlSetState = `UPDATE state SET latest = ?, covered = ?, size = ?, sum = ? WHERE one = 1`
	sqlLastRow  = `SELECT coalesce(max(row), 0) FROM leaf`
	sqlOldest   = `SELECT time FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1`
	sqlBatch    = `INSERT INTO batch VALUES (?, ?, ?, ?)`
	sqlLeaf     = `INSERT OR ROLLBACK INTO leaf (id, kind, execution, seq, bytes, opened) VALUES ` + leafValues
	sqlBurn     = `INSERT OR IGNORE INTO burn VALUES (?, ?, ?)`
	sqlOwn      = `INSERT OR REPLACE INTO owner VALUES (?, ?, ?, ?, ?)`
	sqlDisown   = `DELETE FROM owner WHERE execution = ?`
	sqlPlace    = `INSERT OR REPLACE INTO placed VALUES (?, ?, ?)`
	sqlGetBlob  = `SELECT data, sum FROM blob WHERE digest = ?`
	sqlBlob     = `INSERT OR REPLACE INTO blob VALUES (?, ?, ?)`
)

// Leaves are written many at a time where there are many: half of the cost of
// one is the statement. SQLite numbers their rows, and a row that breaks a
// constraint ends the transaction, as tx does then anyway: a statement that
// could fail half-way and be undone alone (a row number of ours could be no
// integer) would keep a copy of every page that it changes.
const (
	leafColumns = 6
	leafValues  = `(?, ?, ?, ?, ?, ?)`
	manyLeaves  = 16
)

var sqlLeaves = sqlLeaf + strings.Repeat(`, `+leafValues, manyLeaves-1)

// stmt prepares a statement once: most runs need few of them.
func (w *writer) stmt(query string) (*sql.Stmt, error) {
	if s := w.stmts[query]; s != nil {
		return s, nil
	}
	s, err := w.conn.PrepareContext(context.Background(), query)
	if err == nil {
		w.stmts[query] = s
	}
	return s, err
}

func (w *writer) exec(query string, args ...any) (sql.Result, error) {
	s, err := w.stmt(query)
	if err != nil {
		return nil, err
	}
	return s.Exec(args...)
}

// scan reads the one row that a query gives.
func (w *writer) scan(query string, args []any, to ...any) error {
	s, err := w.stmt(query)
	if err != nil {
		return err
	}
	return s.QueryRow(args...).Scan(to...)
}

// tx runs f in one durable transaction. An error says that it was rolled back
// or, when COMMIT itself failed, that nobody knows.
func (w *writer) tx(f func(*state) error) error {
	if _, err := w.exec(sqlBegin); err != nil {
		// After an input/output error the last transaction may still be open.
		_, _ = w.exec(sqlRollback)
		if _, err := w.exec(sqlBegin); err != nil {
			return err
		}
	}
	st, err := w.state()
	if err == nil {
		err = f(st)
	}
	if err == nil {
		_, err = w.exec(sqlCommit)
	}
	if err != nil {
		// SQLite has rolled back by itself after some errors; then this fails.
		_, _ = w.exec(sqlRollback)
	}
	return err
}

func (w *writer) saveState(st *state) error {
	_, err := w.exec(sqlSetState, st.latest, st.covered, st.size, st.sum())
	return err
}

func (w *writer) state() (*state, error) {
	s, err := w.stmt(selectState)
	if err != nil {
		return nil, err
	}
	return scanState(s.QueryRow())
}

// lag gives the newest row and for how long the oldest leaf that the log does
// not cover has waited.
func (w *writer) lag(st *state, now time.Time) (last int64, lag time.Duration, err error) {
	if err := w.scan(sqlLastRow, nil, &last); err != nil {
		return 0, 0, err
	}
	if last <= st.covered {
		return last, 0, nil
	}
	var since int64
	err = w.scan(sqlOldest, []any{st.covered + 1}, &since)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: row %d of store.db has no promise", ErrDamaged, st.covered+1)
	}
	if err != nil {
		return 0, 0, err
	}
	return last, now.Sub(time.UnixMilli(since)), nil
}

// waiting is how many leaves the log does not cover, and lag.
func (w *writer) waiting(st *state, now time.Time) (int, time.Duration, error) {
	last, lag, err := w.lag(st, now)
	if err != nil {
		return 0, 0, explain("read outbox", err)
	}
	return int(max(0, last-st.covered)), lag, nil
}
