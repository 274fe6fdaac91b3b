package record

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
)

// moving says when a store that commits much moves its write-ahead log into the
// database.
type moving struct {
	// busy bytes are written before a process counts as busy: most runs never
	// are, and have SQLite move what they wrote when they end.
	busy int64
	// every so many bytes the log is moved beside the committer.
	every int64
	// restart is the size from which on the log begins anew when all of it was
	// moved.
	restart int64
}

var usualMoving = moving{busy: 4 << 20, every: 8 << 20, restart: 64 << 20}

const (
	pageBytes  = 16 << 10 // of a database that this build makes
	groupBytes = 5 * pageBytes
)

// mover moves the write-ahead log into the database while commits go on. SQLite
// by itself does that within a commit, for which everyone in the next group
// waits; it can begin the log anew only when nothing is left to move, so the
// last bit falls to the committer, between two groups.
type mover struct {
	db   *sql.DB
	wish chan struct{} // enough was written
	rest atomic.Bool   // only the last bit is left
	done chan struct{}
	path string

	restart int64
}

// startMover has a connection of its own.
func startMover(path string, restart int64) (*mover, error) {
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	m := &mover{db: db, wish: make(chan struct{}, 1), done: make(chan struct{}), path: path, restart: restart}
	go m.run()
	return m, nil
}

func (m *mover) run() {
	defer close(m.done)
	for range m.wish {
		// The second time moves what was committed during the first: little.
		for i := range 2 {
			size, err := moveLog(m.db)
			if err != nil {
				break // as after SQLite's own attempt: the next one begins where it stood
			}
			startWriting(m.path) // so that the committer need not wait for it
			m.rest.Store(i == 1 && size >= m.restart)
		}
	}
}

func (m *mover) close() error {
	close(m.wish)
	<-m.done
	return m.db.Close()
}

// moveLog moves what it can without waiting for anyone and gives the size of
// the log, moved or not.
func moveLog(q queryer) (int64, error) {
	var busy, frames, moved int64
	err := q.QueryRowContext(context.Background(), `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &frames, &moved)
	if err == nil && busy != 0 {
		err = errors.New("another process moves it")
	}
	return frames * pageBytes, err
}

// wrote is called by the committer after each group, when nobody waits for it.
func (w *writer) wrote(bytes int64) {
	w.written += bytes
	if w.mover == nil {
		if w.written < w.moving.busy || w.unmoved {
			return
		}
		if w.busy != nil {
			w.busy()
		}
		var err error
		if _, err = w.conn.ExecContext(context.Background(), `PRAGMA wal_autocheckpoint=0`); err == nil {
			w.mover, err = startMover(w.path, w.moving.restart)
		}
		if err != nil {
			w.unmoved = true
			_, _ = w.conn.ExecContext(context.Background(), `PRAGMA wal_autocheckpoint=1500`)
			return
		}
	}
	if w.mover.rest.CompareAndSwap(true, false) {
		_, _ = moveLog(w.conn)
	}
	if w.written >= w.moving.every {
		w.written = 0
		select {
		case w.mover.wish <- struct{}{}:
		default:
		}
	}
}
