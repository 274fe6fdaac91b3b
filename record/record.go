// Package record makes what happened durable and puts it into a transparency
// log: a SQLite store that commits leaves in groups and promises each a place,
// one sequencer that drains it into a Tessera log, and the receipts that come
// back.
//
// The order is fixed. A leaf and what opens it are durable first, then its
// promise leaves; the log follows within [exeq.MaxMergeDelay] or no new permit
// is recorded. What is read again is checked again: leaves against their
// promise, tiles against the checkpoint, the clock against the record.
package record

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// Config says where a store is and with which keys it speaks.
type Config struct {
	Dir  string        // state directory; made when it is missing
	Keys *keyring.Ring // promise and log sign here, node signs what recovery seals
	Log  *slog.Logger  // nil discards
	Now  func() time.Time
	// Inherited is the lock of a process that left the store to this one; it
	// is closed. Nil: nobody did.
	Inherited *os.File
	// Busy, where given, is called once, when this process has committed so much
	// that it counts as busy; most never are.
	Busy func()
}

// Store is the record of one installation. Several processes may have the same
// directory open. Safe for concurrent use.
type Store struct {
	c       Config
	promise note.Signer
	epoch   string
	sound   bool     // it was opened without an error
	lock    *os.File // store.lock, held shared
	read    *sql.DB  // queries
	writer  *writer  // owned by the committer

	queue  *queue
	closed chan struct{} // no more calls
	done   chan struct{} // the committer has returned
	once   sync.Once
	wake   *bell // rung by each commit of this process

	log   *logReader
	seq   sequencer
	found found

	damage  atomic.Pointer[damage] // nil: none
	lagging atomic.Int64           // nanoseconds that the log was behind at the last commit
	waits   atomic.Bool            // something was recorded here and not drained here since

	faults faults
}

// faults lets tests make a durable write fail, before it is made or after it
// persisted; op is "commit", "burn"….
type faults struct {
	before, after func(op string) error
}

// Open opens the store and makes it on first use. It neither drains nor
// repairs; see Recover. A store that is damaged where a permit would rely on
// it is an error that wraps [exeq.ErrRecord].
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Keys == nil || c.Dir == "" {
		return nil, fmt.Errorf("%w: a store needs a directory and keys", exeq.ErrRecord)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, recordErr("state directory", err)
	}
	c.Dir = dir
	s := &Store{
		c: c, promise: c.Keys.NoteSigner(exeq.RolePromise),
		queue: newQueue(), closed: make(chan struct{}), done: make(chan struct{}), wake: newBell(),
	}
	s.log = newLogReader(filepath.Join(dir, "log"), c.Keys)
	err = s.open(ctx)
	if c.Inherited != nil { // our own lock vouches for the files now
		c.Inherited.Close()
	}
	if err != nil {
		s.release()
		return nil, err
	}
	s.sound = true
	go s.committer()
	return s, nil
}

// Close ends the store; what was recorded and not yet drained stays for the
// next drainer.
func (s *Store) Close() error {
	s.once.Do(s.end)
	<-s.done
	err := s.seq.close()
	return errors.Join(err, s.release())
}

// Leave ends this process's use of the store in favour of a successor, which
// inherits the lock that it returns (see [Config].Inherited) and closes the
// files; the caller ends soon. Until then the store counts as in use. It saves
// the caller what Close costs.
func (s *Store) Leave() (lock *os.File, err error) {
	s.once.Do(s.end)
	<-s.done
	return s.lock, s.seq.close()
}

// end lets no more calls in.
func (s *Store) end() {
	close(s.closed)
	s.queue.close()
}

// Recorded reports whether leaves that this process recorded wait for the log,
// as far as it knows: another may have drained them.
func (s *Store) Recorded() bool { return s.waits.Load() }

// release gives back what open took; it may find a part of it missing.
func (s *Store) release() error {
	var errs []error
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.lock != nil {
		if s.sound {
			s.leaveStamp()
		}
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Epoch is the random id of this burn list, for the permit's audience. A store
// that is opened while no process has it open gets a new one, so a burn list
// that was deleted, restored or rolled back never meets its old permits.
func (s *Store) Epoch() string { return s.epoch }

// ErrDamaged: what the store or the log holds is not what was put there. Until
// Fsck passes nothing is granted.
var ErrDamaged = fmt.Errorf("%w: the record is damaged", exeq.ErrRecord)

// broken tells a file that could not be read, which passes, from one that does
// not hold what it should.
func broken(what string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && !errors.Is(err, fs.ErrNotExist) {
		return recordErr(what, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, what, err)
}

// recordErr wraps what went wrong in [exeq.ErrRecord].
func recordErr(doing string, err error) error {
	if err == nil || errors.Is(err, exeq.ErrRecord) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", exeq.ErrRecord, doing, err)
}

// bell wakes everyone who waits; each ring replaces the channel.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBell() *bell { return &bell{ch: make(chan struct{})} }

func (b *bell) ring() {
	b.mu.Lock()
	close(b.ch)
	b.ch = make(chan struct{})
	b.mu.Unlock()
}

// next is closed by the next ring.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}
