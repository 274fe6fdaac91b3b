package record

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// writer is the one connection of this process that writes. Only the committer
// (and open, before it) uses it.
type writer struct {
	db   *sql.DB
	conn *sql.Conn

	state, oldest                             *sql.Stmt
	setState, batch, leaf, disclosure, burn   *sql.Stmt
	own, disown, place, blob, begin, commit   *sql.Stmt
	rollback, lastRow, setEpochStmt, burntFor *sql.Stmt
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
	return &writer{db: db, conn: conn}, nil
}

func (w *writer) close() error {
	return errors.Join(w.conn.Close(), w.db.Close())
}

// create makes the schema, unless another process just did.
func (w *writer) create(ctx context.Context, fresh bool) error {
	exec := func(q string) error { _, err := w.conn.ExecContext(ctx, q); return err }
	if err := exec("PRAGMA journal_mode=WAL"); err != nil {
		return err
	}
	if err := exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var version int
	err := w.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	if err == nil && version == 0 {
		if err = exec(schema); err == nil {
			st := state{epoch: newEpoch()}
			_, err = w.conn.ExecContext(ctx, `INSERT INTO state VALUES (1, ?, 0, 0, 0, ?)`, st.epoch, st.sum())
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

func (w *writer) prepare(ctx context.Context) error {
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&w.begin, `BEGIN IMMEDIATE`}, {&w.commit, `COMMIT`}, {&w.rollback, `ROLLBACK`},
		{&w.state, selectState},
		{&w.setState, `UPDATE state SET latest = ?, covered = ?, size = ?, sum = ? WHERE one = 1`},
		{&w.lastRow, `SELECT coalesce(max(row), 0) FROM leaf`},
		{&w.oldest, `SELECT time FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1`},
		{&w.batch, `INSERT INTO batch VALUES (?, ?, ?, ?)`},
		{&w.leaf, `INSERT INTO leaf VALUES (?, ?, ?, ?, ?, ?)`},
		{&w.disclosure, `INSERT INTO disclosure VALUES (?, ?)`},
		{&w.burn, `INSERT OR IGNORE INTO burn VALUES (?, ?, ?)`},
		{&w.own, `INSERT OR REPLACE INTO owner VALUES (?, ?, ?, ?, ?)`},
		{&w.disown, `DELETE FROM owner WHERE execution = ?`},
		{&w.place, `INSERT OR REPLACE INTO placed VALUES (?, ?, ?)`},
		{&w.blob, `INSERT OR IGNORE INTO blob VALUES (?, ?)`},
	} {
		var err error
		if *p.to, err = w.conn.PrepareContext(ctx, p.query); err != nil {
			return err
		}
	}
	return nil
}

// tx runs f in one durable transaction. An error says that it was rolled back
// or, when COMMIT itself failed, that nobody knows.
func (w *writer) tx(f func(*state) error) error {
	if _, err := w.begin.Exec(); err != nil {
		return err
	}
	st, err := scanState(w.state.QueryRow())
	if err == nil {
		err = f(st)
	}
	if err == nil {
		_, err = w.commit.Exec()
	}
	if err != nil {
		// SQLite has rolled back by itself after some errors; then this fails.
		_, _ = w.rollback.Exec()
	}
	return err
}

func (w *writer) saveState(st *state) error {
	_, err := w.setState.Exec(st.latest, st.covered, st.size, st.sum())
	return err
}

func (w *writer) setEpoch(ctx context.Context, epoch string) error {
	return w.tx(func(st *state) error {
		st.epoch = epoch
		_, err := w.conn.ExecContext(ctx, `UPDATE state SET epoch = ?, sum = ? WHERE one = 1`, epoch, st.sum())
		return err
	})
}

// lag is for how long the oldest leaf that the log does not cover has waited.
func (w *writer) lag(st *state, now time.Time) (time.Duration, error) {
	var last, since int64
	if err := w.lastRow.QueryRow().Scan(&last); err != nil {
		return 0, err
	}
	if last <= st.covered {
		return 0, nil
	}
	if err := w.oldest.QueryRow(st.covered + 1).Scan(&since); err != nil {
		return 0, err
	}
	return now.Sub(time.UnixMilli(since)), nil
}
