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
	"errors"
	"log/slog"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// Config says where a store is and with which keys it speaks.
type Config struct {
	Dir  string        // state directory; made when it is missing
	Keys *keyring.Ring // promise and log sign here, node signs what recovery seals
	Log  *slog.Logger  // nil discards
	Now  func() time.Time
}

// Store is the record of one installation. Several processes may have the same
// directory open. Safe for concurrent use.
type Store struct{}

var errNotYet = errors.New("not built yet")

// Open opens the store and makes it on first use. It neither drains nor
// repairs; see Recover.
func Open(ctx context.Context, c Config) (*Store, error) { return nil, errNotYet }

// Close ends the store; what was recorded and not yet drained stays for the
// next drainer.
func (s *Store) Close() error { return nil }

// Record implements [exeq.Recorder]. A permit leaf is refused while the log
// lags more than MaxMergeDelay behind.
func (s *Store) Record(ctx context.Context, entries ...exeq.Entry) ([]exeq.Promise, error) {
	return nil, errNotYet
}

// Burn spends a permit's nonce durably, once over all processes; a second time
// the error wraps [exeq.ErrReplayed].
func (s *Store) Burn(ctx context.Context, permit, nonce string, until exeq.Time) error {
	return errNotYet
}

// Epoch is the random id of this burn list, for the permit's audience.
func (s *Store) Epoch() string { return "" }

// Own registers this process as the one that runs an execution; Release ends
// that. An owner that dies without Release leaves a lost execution behind.
func (s *Store) Own(ctx context.Context, execution string) error     { return errNotYet }
func (s *Store) Release(ctx context.Context, execution string) error { return errNotYet }

// Recovery is what an earlier run left behind and what was done about it.
type Recovery struct {
	Outbox  int      // leaves that were promised and not yet in the log
	Drained int      // of these, put into the log now
	Lost    []string // executions sealed as lost: their owner is dead
}

// Findings says it in words, one line each; empty when nothing was found.
func (r *Recovery) Findings() []string { return nil }

// Recover puts right what a killed run left: seals its executions as lost and
// drains the outbox where no one else does.
func (s *Store) Recover(ctx context.Context) (*Recovery, error) { return nil, errNotYet }

// Drain returns when every leaf recorded before the call is in the log and
// under a published (and, where configured, cosigned) checkpoint.
func (s *Store) Drain(ctx context.Context) error { return errNotYet }

// Sequence drains until ctx ends, for processes that live on; where another
// process is the sequencer it stands by.
func (s *Store) Sequence(ctx context.Context) error { return errNotYet }

// Lag is how many leaves wait for the log and for how long the oldest has.
func (s *Store) Lag(ctx context.Context) (int, time.Duration, error) { return 0, 0, errNotYet }

// Stored is a leaf as the store holds it.
type Stored struct {
	exeq.Entry
	Row     int64 // position in the store, rising, without gaps, from 1
	Index   int64 // in the log; -1 while it waits
	Promise exeq.Promise
}

// Summary is one execution for lists.
type Summary struct {
	ID, Parent, Actor string
	State             exeq.State // Recorded, Live or Sealed
	Permitted         exeq.Time
	Started, Ended    exeq.Time // zero: not yet
	Code              string    // of the end
	Leaves            int
	PID               int // of the owner while it lives
}

// Leaves gives an execution's leaves in order of their sequence.
func (s *Store) Leaves(ctx context.Context, execution string) ([]Stored, error) {
	return nil, errNotYet
}

// Leaf gives one leaf by its id.
func (s *Store) Leaf(ctx context.Context, id string) (*Stored, error) { return nil, errNotYet }

// Follow gives up to limit leaves behind a row, in order of rows; 0 starts at
// the beginning. It does not wait; see Wait.
func (s *Store) Follow(ctx context.Context, after int64, limit int) ([]Stored, error) {
	return nil, errNotYet
}

// Wait returns when there is a row behind after.
func (s *Store) Wait(ctx context.Context, after int64) error { return errNotYet }

// Last gives the row of the newest leaf, 0 for none.
func (s *Store) Last(ctx context.Context) (int64, error) { return 0, errNotYet }

// Executions lists executions, newest first; limit 0 gives all.
func (s *Store) Executions(ctx context.Context, limit int) ([]Summary, error) {
	return nil, errNotYet
}

// Running lists the executions that have an owner.
func (s *Store) Running(ctx context.Context) ([]Summary, error) { return nil, errNotYet }

// Decision is one recorded decision with what it was made from, for replay.
type Decision struct {
	Row       int64
	Execution string
	Kind      exeq.Kind // permit or denial
	Time      exeq.Time
	Request   *exeq.Request
	Inputs    *exeq.Inputs
	Decision  exeq.Decision
}

// Decisions calls f with every recorded decision behind a row whose
// disclosures were not erased, in order, until f returns false.
func (s *Store) Decisions(ctx context.Context, after int64, f func(*Decision) bool) error {
	return errNotYet
}

// PutBlob keeps bytes by their SHA-256: policy sources, rights.
func (s *Store) PutBlob(ctx context.Context, b []byte) (exeq.Digest, error) {
	return exeq.Digest{}, errNotYet
}

// PutBlobAs keeps bytes under a digest that Exeq defines over them with a tag.
func (s *Store) PutBlobAs(ctx context.Context, d exeq.Digest, b []byte) error { return errNotYet }

// Blob gives back what was put; its digest is the caller's to check for
// PutBlobAs. Nothing there: the error wraps [fs.ErrNotExist].
func (s *Store) Blob(ctx context.Context, d exeq.Digest) ([]byte, error) { return nil, errNotYet }

// Checkpoint is the latest published checkpoint, a signed note.
func (s *Store) Checkpoint(ctx context.Context) ([]byte, error) { return nil, errNotYet }

// Latest is the latest published checkpoint as a permit carries it:
// "size:root", empty while the log is empty.
func (s *Store) Latest() string { return "" }

// Receipts proves that leaves (by id) are in the log, all under one
// checkpoint. A leaf that still waits is an error: Drain first.
func (s *Store) Receipts(ctx context.Context, leaves ...string) ([]exeq.Receipt, error) {
	return nil, errNotYet
}

// Consistency proves (RFC 6962) that the log of size older is a prefix of the
// log of size newer.
func (s *Store) Consistency(ctx context.Context, older, newer int64) ([]exeq.Digest, error) {
	return nil, errNotYet
}

// EraseDisclosures erases what opens an execution's commitments, beyond
// recovery from the store's files; the leaves stay.
func (s *Store) EraseDisclosures(ctx context.Context, execution string) error { return errNotYet }

// Fsck checks everything that the store and the log hold. An error says that
// the check could not be made or what it found damaged.
func (s *Store) Fsck(ctx context.Context) error { return errNotYet }
