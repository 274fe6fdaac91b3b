package record

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/osfile"
)

const schemaVersion = 1

// Rows of leaf rise from 1 without gaps, in the order of commits: writers are
// serialised and nothing is ever deleted. So what waits for the log is every
// row above state.covered, and no outbox table is written or emptied.
const schema = `
CREATE TABLE state (
	one     INTEGER PRIMARY KEY CHECK (one = 1),
	id      TEXT NOT NULL,    -- random, made with the burn list
	latest  INTEGER NOT NULL, -- latest time recorded, ms; never falls
	covered INTEGER NOT NULL, -- rows up to here are under a published checkpoint
	size    INTEGER NOT NULL, -- of the log, as far as it was read back
	sum     BLOB NOT NULL     -- see state.sum
);
CREATE TABLE batch (
	first INTEGER PRIMARY KEY, -- row of its first leaf
	n     INTEGER NOT NULL,
	time  INTEGER NOT NULL,    -- of the commit, ms
	note  TEXT NOT NULL        -- the promise
);
CREATE TABLE leaf (
	row       INTEGER PRIMARY KEY,
	id        TEXT NOT NULL UNIQUE,
	kind      TEXT NOT NULL,
	execution TEXT,
	seq       INTEGER,
	bytes     BLOB NOT NULL,
	opened    BLOB -- what opens its commitments, NULL when there is none or it was erased
);
CREATE UNIQUE INDEX chain ON leaf (execution, seq) WHERE execution IS NOT NULL;
CREATE INDEX foundation ON leaf (row) WHERE kind IN ('key', 'policy');
CREATE TABLE placed (
	row INTEGER PRIMARY KEY, -- n rows from here stand in the log from idx on
	n   INTEGER NOT NULL,
	idx INTEGER NOT NULL
);
CREATE TABLE burn (
	permit TEXT PRIMARY KEY,
	nonce  TEXT NOT NULL,
	until  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE owner (
	execution TEXT PRIMARY KEY,
	pid       INTEGER NOT NULL,
	started   TEXT NOT NULL, -- of the process, in clock ticks since boot
	boot      TEXT NOT NULL,
	pidns     TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE blob (
	digest BLOB PRIMARY KEY,
	data   BLOB NOT NULL,
	sum    BLOB NOT NULL -- see blobSum
) WITHOUT ROWID;
`

// state is the one row of the table of that name.
type state struct {
	id                    string
	latest, covered, size int64
}

// sum ties the row's members together, so that one flipped bit is seen.
func (st *state) sum() []byte {
	h := sha256.Sum256(fmt.Appendf(nil, "exeq store state v1 %s %d %d %d", st.id, st.latest, st.covered, st.size))
	return h[:]
}

const selectState = `SELECT id, latest, covered, size, sum FROM state WHERE one = 1`

func scanState(row *sql.Row) (*state, error) {
	var st state
	var sum []byte
	if err := row.Scan(&st.id, &st.latest, &st.covered, &st.size, &sum); err != nil {
		return nil, fmt.Errorf("state row: %w", err)
	}
	if string(sum) != string(st.sum()) {
		return nil, fmt.Errorf("%w: the state row of store.db", ErrDamaged)
	}
	return &st, nil
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// open takes the lock, opens the database and makes it on first use.
func (s *Store) open(ctx context.Context) error {
	if err := os.MkdirAll(s.c.Dir, 0o700); err != nil {
		return recordErr("state directory", err)
	}
	session, alone, err := s.takeLock()
	if err != nil {
		return err
	}
	path := filepath.Join(s.c.Dir, "store.db")
	clean := true
	if _, err := os.Lstat(path); alone && err == nil {
		if clean = s.clean(); !clean {
			if err := checkWAL(path + "-wal"); err != nil {
				return err
			}
		}
	}
	if s.writer, err = openWriter(ctx, path); err != nil {
		return explain("open store.db", err)
	}
	s.writer.busy = s.c.Busy
	var version int
	if err := s.writer.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return explain("open store.db", err)
	}
	if version == 0 {
		if err := s.writer.create(ctx); err != nil {
			return explain("create store.db", err)
		}
	} else if version != schemaVersion {
		return fmt.Errorf("%w: %w: store.db has schema version %d, this build knows %d", exeq.ErrRecord, exeq.ErrCannotTell, version, schemaVersion)
	}
	st, err := s.writer.state()
	if err != nil {
		return explain("open store.db", err)
	}
	h := sha256.Sum256([]byte("exeq burn epoch v1 " + st.id + " " + session))
	s.epoch = hex.EncodeToString(h[:16])
	if s.read, err = sql.Open("sqlite", dsn(path)+"&_pragma=query_only(1)"); err != nil {
		return recordErr("open store.db", err)
	}
	s.read.SetMaxOpenConns(4)
	if err := s.checkTail(ctx, s.writer); err != nil {
		return explain("open store.db", err)
	}
	if err := s.look(ctx, st); err != nil {
		return err
	}
	return s.assess(ctx, alone, clean)
}

// takeLock holds store.lock shared while the store is open. The file holds a
// random id: whoever opens the store while no other process has it open writes
// a new one. It need not survive a crash of the machine, which changes the
// boot id.
func (s *Store) takeLock() (session string, alone bool, err error) {
	s.lock, err = os.OpenFile(filepath.Join(s.c.Dir, "store.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", false, recordErr("store.lock", err)
	}
	if osfile.Lock(s.lock, osfile.Try) == nil {
		session = newID()
		if _, err := s.lock.WriteAt([]byte(session), 0); err != nil {
			return "", false, recordErr("store.lock", err)
		}
		return session, true, recordErr("store.lock", osfile.Lock(s.lock, osfile.Shared))
	}
	if err := osfile.Lock(s.lock, osfile.Shared); err != nil {
		return "", false, recordErr("store.lock", err)
	}
	b := make([]byte, 33)
	n, err := s.lock.ReadAt(b, 0)
	if n != 32 || !errors.Is(err, io.EOF) {
		return "", false, fmt.Errorf("%w: store.lock", ErrDamaged)
	}
	return string(b[:n]), false, nil
}

func dsn(path string) string {
	u := url.URL{Scheme: "file", Path: path}
	return u.String() + "?_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)"
}

// explain turns what SQLite says into words that help, and wraps ErrRecord.
func explain(doing string, err error) error {
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case sqliteFull:
			return fmt.Errorf("%w: %s: the disk is full", exeq.ErrRecord, doing)
		case sqliteCorrupt, sqliteNotADB:
			return fmt.Errorf("%w: %s: store.db is not whole (%w)", ErrDamaged, doing, err)
		case sqliteBusy:
			return fmt.Errorf("%w: %s: another process holds store.db for too long", exeq.ErrRecord, doing)
		case sqliteIOErr:
			return fmt.Errorf("%w: %s: input/output error on store.db (%w)", exeq.ErrRecord, doing, err)
		}
	}
	return recordErr(doing, err)
}

// SQLite's primary result codes.
const (
	sqliteBusy       = 5
	sqliteIOErr      = 10
	sqliteCorrupt    = 11
	sqliteFull       = 13
	sqliteConstraint = 19
	sqliteNotADB     = 26
)

func isConstraint(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && se.Code()&0xff == sqliteConstraint
}
