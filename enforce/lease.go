//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/spawn"
)

// The lease is a deadline in memory that the agent shares. The agent sleeps
// until it on CLOCK_BOOTTIME and kills unless it was moved meanwhile: nothing
// that this process does or omits can hold the tree alive beyond it.

// now is CLOCK_BOOTTIME in nanoseconds.
func now() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}

// begin starts the lease at the release.
func (r *running) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = now()
	r.setDeadline(r.released + int64(r.launch.Lease))
	return r.agent.Wake()
}

// setDeadline moves the end of the lease; r.mu is held. The wall time that the
// permit allows is a bound that no renewal passes.
func (r *running) setDeadline(d int64) {
	r.outOfTime = nil
	if s := int64(r.launch.Rights.Quotas.WallSeconds); s > 0 {
		if end := r.released + s*int64(time.Second); d >= end {
			d, r.outOfTime = end, &exeq.QuotaError{Quota: "wallSeconds", Got: s, Max: s}
		}
	}
	r.deadline = d
	if !r.suspended {
		r.agent.SetDeadline(d)
	}
}

// Renew implements exeq.Running.
func (r *running) Renew(n exeq.Renewal) error {
	select {
	case <-r.gone:
		return exeq.ErrGone
	default:
	}
	if err := r.launch.CheckRenewal(n); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.challenge == "" || n.Challenge != r.challenge {
		return errors.New("renewal: answers no open challenge")
	}
	if n.Permit != r.launch.ID {
		return errors.New("renewal: of another permit")
	}
	if n.Millis <= 0 || time.Duration(n.Millis)*time.Millisecond > r.launch.Lease {
		return fmt.Errorf("renewal: %d ms are not within the permit's lease", n.Millis)
	}
	if !r.suspended && now() > r.deadline {
		if r.outOfTime != nil {
			return r.outOfTime
		}
		return fmt.Errorf("%w: the renewal came late", exeq.ErrLapsed)
	}
	r.challenge = ""
	if w := r.opt.Warden; w != nil {
		r.mu.Unlock()
		err := r.unlessGone(w.Renew(r.notify.ctx, n))
		r.mu.Lock()
		if err != nil {
			return err
		}
	}
	r.setDeadline(r.challenged + n.Millis*int64(time.Millisecond))
	return nil
}

// suspend takes the lease off while every process stands still.
func (r *running) suspend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspended = true
	r.agent.SetDeadline(spawn.Never)
}

// unsuspend gives the execution one lease to be renewed in.
func (r *running) unsuspend() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspended = false
	r.setDeadline(now() + int64(r.launch.Lease))
	return r.agent.Wake()
}
