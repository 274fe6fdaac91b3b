//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// What became of an attempt to execute in a scope what it does not live by.
const (
	ScopeDenied   = "denied"
	ScopeWould    = "would be denied" // it is rehearsed
	ScopeOpened   = "opened"          // by break-glass
	ScopeUnmarked = "unmarked"        // no attempt: a process for which there was no mark
)

var scopeVerdicts = [...]string{"", ScopeDenied, ScopeWould, ScopeOpened, ScopeUnmarked}

// Attempt is one execution without a permit, in a scope that does not live by
// the file.
type Attempt struct {
	At      time.Duration // CLOCK_BOOTTIME
	Scope   Scope
	Verdict string
	Why     string // absent, changed or left
	Alive   bool   // denied, and the kernel could not kill it
	File    File
	Name    string // as whoever executed it named it
	UID     int
	PID     int
	Parent  int
	Starter string // what the parent calls itself
}

// Attempts reads what scopes saw. There is one ring: of several readers each
// gets some.
type Attempts struct{ r *ringbuf.Reader }

// Attempts begins to read.
func (s *Scopes) Attempts() (*Attempts, error) {
	r, err := ringbuf.NewReader(s.maps[scopeMapAttempts])
	if err != nil {
		return nil, err
	}
	return &Attempts{r}, nil
}

// Next waits until the deadline (zero: for ever): os.ErrDeadlineExceeded says
// that there is none now, os.ErrClosed that Close was called.
func (a *Attempts) Next(deadline time.Time) (Attempt, error) {
	a.r.SetDeadline(deadline)
	rec, err := a.r.Read()
	if errors.Is(err, ringbuf.ErrClosed) {
		return Attempt{}, os.ErrClosed
	}
	if err != nil {
		return Attempt{}, err
	}
	var x scopeAttempt
	if n, err := binary.Decode(rec.RawSample, binary.NativeEndian, &x); err != nil || n > len(rec.RawSample) {
		return Attempt{}, fmt.Errorf("an attempt of %d bytes", len(rec.RawSample))
	}
	return x.attempt()
}

// Close ends a Next that waits.
func (a *Attempts) Close() error { return a.r.Close() }

func (x *scopeAttempt) attempt() (Attempt, error) {
	why := x.Why &^ notKilled
	if x.Verdict == 0 || int(x.Verdict) >= len(scopeVerdicts) || int(why) >= len(whys) {
		return Attempt{}, fmt.Errorf("an attempt of verdict %d, reason %d", x.Verdict, x.Why)
	}
	return Attempt{
		At: time.Duration(x.At), Scope: Scope{ScopeKind(x.Of.Kind), x.Of.Number}, Verdict: scopeVerdicts[x.Verdict],
		Why: whys[why], Alive: x.Why&notKilled != 0,
		File: File{x.Dev, x.Generation, x.Ino, x.Size, x.CtimeSec, x.CtimeNsec},
		Name: text(x.Name[:]), Starter: text(x.Starter[:]),
		UID: int(x.Uid), PID: int(x.Pid), Parent: int(x.Parent),
	}, nil
}

// text is what stands before the first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
