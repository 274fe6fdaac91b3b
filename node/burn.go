//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/permit"
)

// burnt is the burn list of one run of the daemon, and its clock. It is in
// memory: its epoch is made with it and is part of every permit's audience, so
// a permit of an earlier run is refused for its audience, and there is no file
// that could be deleted, or put back as it was, to use one again.
type burnt struct {
	now func() time.Time // tests

	mu     sync.Mutex
	nonces map[string]exeq.Time // until when the permit could be used
	latest time.Time
	swept  time.Time
}

func newBurnt() *burnt { return &burnt{now: time.Now, nonces: map[string]exeq.Time{}} }

// clock is the wall clock, which never goes back here: what has expired stays
// so, and its nonce can be forgotten.
func (b *burnt) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tick()
}

func (b *burnt) tick() time.Time {
	if now := b.now(); now.After(b.latest) {
		b.latest = now
	}
	return b.latest
}

// Burn implements permit.Burner.
func (b *burnt) Burn(_ context.Context, id, nonce string, until exeq.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.tick()
	if b.latest.Sub(b.now()) > exeq.MaxClockStepBack {
		return fmt.Errorf("%w: it stands before %s, which it had reached", exeq.ErrClock, exeq.At(b.latest))
	}
	if _, again := b.nonces[nonce]; again {
		return exeq.ErrReplayed
	}
	if _, again := b.nonces[id]; again { // one permit, whatever nonce it is given
		return exeq.ErrReplayed
	}
	if now.Sub(b.swept) > permit.MaxWindow || len(b.nonces) >= maxBurnt {
		b.swept = now
		for n, t := range b.nonces {
			if now.After(t.Time) {
				delete(b.nonces, n)
			}
		}
	}
	if len(b.nonces)+2 > maxBurnt {
		return errors.New("the burn list is full of permits that have not expired")
	}
	b.nonces[nonce], b.nonces[id] = until, until
	return nil
}
