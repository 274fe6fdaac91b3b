// Package osfile has what the state directory asks of the operating system
// beyond package os: locks between processes, and opening without following
// links.
package osfile

import "errors"

// Kind of a lock.
type Kind int

// The kinds of locks: Try does not wait and is exclusive.
const (
	Shared Kind = iota
	Exclusive
	Try
)

// ErrHeld is what Try gives when another process has the lock.
var ErrHeld = errors.New("another process holds the lock")
