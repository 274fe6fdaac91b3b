//go:build linux

package programs

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/exeq/exeq"
)

// The bytes of a program are read here and nowhere else, and whoever waits for
// that is held up no longer than he must: a file over the limit is not begun,
// however little of it is on the disk, and a look at one below it ends when
// nobody waits any more.

// ErrTooLarge: a file that is no program's, by its size.
var ErrTooLarge = errors.New("too large for a program")

// Going is asked before each further piece of a file that is read, so not at
// all about a small one; its error ends the look and comes back wrapped. Nil:
// nothing ends it.
type Going func() error

// step is how much is read between two questions: a tenth of a second or so.
const step = 32 << 20

func (g Going) ask(read int64) error {
	if g == nil || read == 0 {
		return nil
	}
	return g()
}

// tooLarge is the error for a size over the limit, nil for any other.
func tooLarge(name string, size int64) error {
	if size <= exeq.MaxProgramBytes {
		return nil
	}
	return fmt.Errorf("programs: %s: %w: %d bytes, and the limit is %d", exeq.EncodeBytes(name), ErrTooLarge, size, int64(exeq.MaxProgramBytes))
}

// CopyBytes copies src, a file of that name, up to the limit. One that grows
// over it meanwhile is ErrTooLarge. buf may be nil.
func CopyBytes(dst io.Writer, src io.Reader, name string, buf []byte, going Going) error {
	for total := int64(0); ; {
		if err := going.ask(total); err != nil {
			return fmt.Errorf("programs: read %s: %w", exeq.EncodeBytes(name), err)
		}
		n, err := io.CopyBuffer(dst, io.LimitReader(src, step), buf)
		if err != nil {
			return fmt.Errorf("programs: read %s: %w", exeq.EncodeBytes(name), err)
		}
		if total += n; n < step || total > exeq.MaxProgramBytes {
			return tooLarge(name, total)
		}
	}
}

// turn is held while a file is read, so that of many first executions of a
// large program one reads it.
type turn chan struct{}

// take waits for the turn for as long as whoever waits is there.
func (t turn) take(going Going) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	if going == nil {
		t <- struct{}{}
		return nil
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case t <- struct{}{}:
			return nil
		case <-again.C:
			if err := going(); err != nil {
				return fmt.Errorf("programs: wait for a look: %w", err)
			}
		}
	}
}

func (t turn) leave() { <-t }

// turns are those of the files that are being read.
type turns struct {
	mu sync.Mutex
	of map[inode]turn
}

func (t *turns) at(id Identity) turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := inode{id.Dev, id.Ino}
	if t.of == nil {
		t.of = map[inode]turn{}
	}
	if t.of[k] == nil {
		t.of[k] = make(turn, 1)
	}
	return t.of[k]
}
