package exeq

import (
	"errors"
	"fmt"
)

// Sentinels of the flow; wrapped errors carry the words.
var (
	// ErrDenied: the policy did not permit it. Exit 126.
	ErrDenied = errors.New("denied")
	// ErrEnforce: the rights could not be put in force; nothing ran. Exit 125.
	ErrEnforce = errors.New("cannot enforce")
	// ErrRecord: the store or the log could not make the record durable;
	// nothing ran. Exit 125.
	ErrRecord = errors.New("cannot record")
	// ErrReplayed: the permit's nonce was burnt before.
	ErrReplayed = errors.New("permit already used")
	// ErrPermit: a permit is not valid here and now.
	ErrPermit = errors.New("permit refused")
	// ErrRevoked: trust ended while it ran. Exit 137.
	ErrRevoked = errors.New("revoked")
	// ErrLapsed: no renewal came in time. Exit 137.
	ErrLapsed = errors.New("lease lapsed")
	// ErrUnsealed: it ran, and its end could not be recorded: the next start
	// seals it as lost. Exit 1, or 137 where trust ended.
	ErrUnsealed = errors.New("ran, and is not sealed")
	// ErrGone: the execution has exited.
	ErrGone = errors.New("execution is gone")
	// ErrClock: the wall clock contradicts the record.
	ErrClock = errors.New("clock not trusted")
	// ErrCannotTell: an artifact is of a version or kind that this build does
	// not know, or unreadable; neither valid nor invalid.
	ErrCannotTell = errors.New("cannot tell")
)

// QuotaError names a quota that is used up, as appraisal names it.
type QuotaError struct {
	Quota    string // as in Quotas' JSON
	Got, Max int64
}

func (q *QuotaError) Error() string { return fmt.Sprintf("quota %s: %d of %d", q.Quota, q.Got, q.Max) }
