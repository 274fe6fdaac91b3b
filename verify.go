package exeq

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// PolicySource gives the active policy set. While nothing changed it returns
// the same Decider; a candidate that does not validate never becomes active
// and is an error only when no set is active at all.
type PolicySource interface {
	Active(ctx context.Context) (Decider, error)
}

// Appraiser judges evidence against what was applied at the start and
// the rights in force. It is a pure function; an empty result passes, every
// name in it is a check that failed ("program /x changed", "quota execs", …).
type Appraiser interface {
	Appraise(start *Applied, now *Evidence, rights *Rights) []string
}

// summary is how often ticks that changed nothing are written down.
const summary = time.Minute

// verify holds the execution to its permit until it ends: every tick it
// measures, appraises and renews. It returns the code of the end.
func (x *Execution) verify(ctx context.Context, run Running) (string, error) {
	done := make(chan struct{})
	exited := make(chan struct{})
	defer close(done)
	go func() { run.Exited(); close(exited) }()
	x.writers.Go(func() { x.record(ctx, done) })
	revocations := x.governor.Revocations(ctx, x.ID)
	tick := time.NewTicker(x.governor.Tick)
	defer tick.Stop()
	t := &x.ticks
	t.last, t.written = time.Now(), time.Now()
	for {
		select {
		case <-exited:
			switch err := run.Lapsed(); {
			case errors.Is(err, ErrRevoked):
				return "revoked", err
			case err != nil:
				return t.lapsed(err)
			}
			return "exited", nil
		case e := <-x.ended:
			return e.code, e.err
		case r := <-revocations:
			return "revoked", fmt.Errorf("%w: %s", ErrRevoked, r.Reason)
		case <-ctx.Done():
			return "interrupted", context.Cause(ctx)
		case stopped := <-run.Stops():
			t.stop(stopped)
			if code, err := x.hold(ctx, run, stopped, revocations); err != nil {
				return code, err
			}
			t.last = time.Now()
		case <-tick.C:
			if x.State() == Held {
				continue
			}
			if code, err := x.tick(ctx, run, t); err != nil {
				return code, err
			}
		}
	}
}

// ticks is what the next appraisal leaf will say.
type ticks struct {
	first, sequence uint64
	last, written   time.Time
	gap             time.Duration
	stopped         time.Time     // since when every process stands still; zero: they run
	held            time.Duration // how long they stood still before that
	failed          []string
}

// stop follows the beginning and the end of a standstill. It counts from the
// renewal before it: we may stand still ourselves before we can read the clock.
func (t *ticks) stop(stopped bool) {
	switch {
	case stopped && t.stopped.IsZero():
		t.stopped = t.last
	case !stopped && !t.stopped.IsZero():
		t.held += time.Since(t.stopped)
		t.stopped = time.Time{}
	}
}

// lapsed says that no renewal came through: too late, or because the wall time
// of the permit was up, which is a quota like the others.
func (t *ticks) lapsed(err error) (string, error) {
	if q, ok := errors.AsType[*QuotaError](err); ok {
		t.failed = []string{q.Error()}
		return "appraisal", fmt.Errorf("%w: %v", ErrRevoked, t.failed)
	}
	if !errors.Is(err, ErrLapsed) {
		err = fmt.Errorf("%w: %w", ErrLapsed, err)
	}
	return "lapsed", err
}

// tick is one round of evidence, appraisal and renewal.
func (x *Execution) tick(ctx context.Context, run Running, t *ticks) (string, error) {
	if err := x.reevaluate(ctx, run); err != nil {
		return "policy", err
	}
	ev, err := run.Evidence(ctx)
	if err != nil {
		if errors.Is(err, ErrGone) {
			return "", nil // it has just exited; Exited tells
		}
		return "appraisal", fmt.Errorf("%w: no evidence: %w", ErrRevoked, err)
	}
	x.observe(ev)
	if failed := x.governor.Appraiser.Appraise(&x.applied, ev, x.rights); len(failed) > 0 {
		t.failed = failed
		return "appraisal", fmt.Errorf("%w: %v", ErrRevoked, failed)
	}
	t.sequence++
	r, err := x.governor.Issuer.Renew(x.ID, t.sequence, ev.Challenge, x.governor.Lease)
	if err != nil {
		return "appraisal", fmt.Errorf("%w: renewal: %w", ErrRevoked, err)
	}
	if err := run.Renew(r); err != nil {
		if errors.Is(err, ErrGone) {
			return "", nil
		}
		return t.lapsed(err)
	}
	now := time.Now()
	t.gap, t.last = max(t.gap, now.Sub(t.last)), now
	if now.Sub(t.written) < summary {
		return "", nil
	}
	done := *t
	x.writers.Go(func() { // the lease never waits for the store
		if err := x.appraised(ctx, &done); err != nil {
			x.end("record", err)
		}
	})
	t.first, t.written, t.gap, t.held = t.sequence, now, 0, 0
	return "", nil
}

// kill ends the tree for a reason and then records it, unless the issuer's word
// had come by another way meanwhile: then that is the reason.
func (x *Execution) kill(run Running, code string, why error) (string, error) {
	err := run.Kill(code)
	if lapsed := run.Lapsed(); code != "revoked" && errors.Is(lapsed, ErrRevoked) {
		code, why = "revoked", lapsed
	}
	err = errors.Join(why, err)
	return code, errors.Join(err, x.revoked(code, err))
}

// reevaluate decides the run again when the active policy set changed: it goes
// on only if the new set permits it with rights that cover those in force.
func (x *Execution) reevaluate(ctx context.Context, run Running) error {
	d, err := x.governor.Policies.Active(ctx)
	if err != nil {
		return fmt.Errorf("%w: no policy set is active: %w", ErrRevoked, err)
	}
	if d.PolicySet() == x.active().PolicySet() {
		return nil
	}
	return x.decideAgain(ctx, run, d)
}

func (x *Execution) decideAgain(ctx context.Context, run Running, d Decider) error {
	in := x.inputs
	in.Session, in.Time = x.snapshot(), At(time.Now())
	dec, err := d.Decide(ctx, x.Request, &in)
	if err != nil || !dec.Verdict.Permits() {
		return fmt.Errorf("%w: the policy in force now denies it: %s", ErrRevoked, dec.Reason)
	}
	rights, err := d.Compile(ctx, x.Request, &in, dec)
	if err != nil {
		return fmt.Errorf("%w: the policy in force now does not compile for it: %w", ErrRevoked, err)
	}
	if at, ok := x.rights.Within(rights); !ok {
		return fmt.Errorf("%w: the policy in force now gives less at %s than the execution holds", ErrRevoked, at)
	}
	x.mu.Lock()
	x.decider = d
	x.mu.Unlock()
	if err := run.Reload(ctx); err != nil {
		return fmt.Errorf("%w: the policy in force now does not reach it: %w", ErrRevoked, err)
	}
	x.recheck()
	return nil
}

// hold follows a stop from within (^Z) or its end: the lease is suspended while
// every process stands still, and the run is decided again before it goes on.
func (x *Execution) hold(ctx context.Context, run Running, stopped bool, revocations <-chan Revocation) (string, error) {
	if stopped {
		if x.State() == Live {
			x.move(Held)
		}
		return "", nil
	}
	if x.State() != Held {
		return "", nil
	}
	// We stood still too: what was revoked meanwhile must not run on first.
	select {
	case r := <-revocations:
		return "revoked", fmt.Errorf("%w: %s", ErrRevoked, r.Reason)
	case <-time.After(RevocationDelay):
	}
	d, err := x.governor.Policies.Active(ctx)
	if err != nil {
		return "policy", fmt.Errorf("%w: no policy set is active: %w", ErrRevoked, err)
	}
	if err := x.decideAgain(ctx, run, d); err != nil {
		return "policy", err
	}
	x.move(Live)
	if err := run.Resume(); err != nil && !errors.Is(err, ErrGone) {
		return "appraisal", fmt.Errorf("%w: %w", ErrRevoked, err)
	}
	return "", nil
}
