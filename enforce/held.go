//go:build linux

package enforce

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// What a warden is told. Without one all of it does nothing.

// enclose has the warden take the execution, whose command waits for its first
// execve to be answered.
func (s *launching) enclose(r *running) (err error) {
	if s.opt.Warden == nil {
		return nil
	}
	var proxy netip.AddrPort
	if s.launch.Egress != nil {
		if proxy, err = netip.ParseAddrPort(s.egress.Addr().String()); err != nil {
			return err
		}
	}
	shut := make([]string, len(s.hidden))
	for i, h := range s.hidden {
		shut[i] = exeq.EncodeBytes(h)
	}
	r.enclosure, err = s.opt.Warden.Enclose(s.ctx, r.initFD, r.commandFD, proxy, shut)
	return err
}

// vouched is what the warden let be executed, or mapped.
type vouched struct {
	id     programs.Identity
	mapped bool
}

// vouchers say why: what the warden was shown it as, and what was decided last.
type vouchers struct {
	shown exeq.Resource
	last  exeq.Activity
}

// vouches reports whether the warden wants to be shown files for the action.
func (n *notifier) vouches(action string) bool {
	return n.warden != nil && (action == exeq.ActionExec || n.warden.Tier() >= exeq.TierKernel)
}

// vouch has the warden let a program be executed that was decided on, or a file
// be mapped executable, before that goes on. A warden that refuses is EPERM, and said.
func (n *notifier) vouch(q *notification, a exeq.Activity, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	key := vouched{identityOf(&st), a.Action == exeq.ActionMap}
	n.mu.Lock()
	for _, k := range []vouched{key, {key.id, false}} { // what is executed may be mapped
		if v, known := n.vouched[k]; known {
			if k == key {
				v.last = a
				n.vouched[k] = v
			}
			n.mu.Unlock()
			return nil
		}
	}
	n.mu.Unlock()
	if err := n.warden.Approve(n.ctx, a.Resource.ID, a.Resource.SHA256, f, key.mapped); err != nil {
		n.deny(fmt.Sprintf("%s %s denied: %s", a.Action, a.Resource.ID, err))
		return unix.EPERM
	}
	n.mu.Lock()
	v := vouchers{a.Resource, a}
	n.vouched[key] = v
	stale := n.epoch != q.epoch
	n.mu.Unlock()
	if stale && n.deniedNow(n.ctx, a) { // it was decided by a set that is gone
		if err := n.withdraw(n.ctx, key, v); err != nil {
			n.log.Error("withdraw", "program", a.Resource.ID, "error", err)
		}
		return unix.EPERM
	}
	return nil
}

// vouchInPlace is vouch for what is executed or mapped where it lies.
func (n *notifier) vouchInPlace(q *notification, a exeq.Activity, f *programs.File) error {
	if !n.vouches(a.Action) {
		return nil
	}
	open, err := f.Open()
	if err != nil {
		return err
	}
	defer open.Close()
	return n.vouch(q, a, open)
}

// reload voids what was ruled, and has the warden take back what the set in
// force denies. A program whose ruling is under way is seen to by vouch.
func (n *notifier) reload(ctx context.Context) error {
	n.mu.Lock()
	n.rulings = map[rulingKey]bool{}
	n.epoch++
	old := maps.Clone(n.vouched)
	if n.warden != nil {
		clear(n.mapped) // a mapping is put to the warden again
	}
	n.mu.Unlock()
	var errs []error
	for key, v := range old {
		if n.deniedNow(ctx, v.last) {
			errs = append(errs, n.withdraw(ctx, key, v))
		}
	}
	return errors.Join(errs...)
}

// deniedNow asks what was decided once again. Where rights leave everything
// executable nobody was asked: a set that gives less there ends the execution.
func (n *notifier) deniedNow(ctx context.Context, a exeq.Activity) bool {
	return n.rights.Lookup(a.Resource.ID).Exec != exeq.ExecAll && n.gate.Explain(ctx, a) != ""
}

// withdraw has the warden take a file back in both its roles. It is forgotten
// first: what is decided on from now on is shown anew.
func (n *notifier) withdraw(ctx context.Context, key vouched, v vouchers) error {
	n.mu.Lock()
	delete(n.vouched, vouched{key.id, false})
	delete(n.vouched, vouched{key.id, true})
	n.mu.Unlock()
	return n.warden.Withdraw(ctx, v.shown.ID, v.shown.SHA256)
}

// newChallenge is what the next renewal answers.
func (r *running) newChallenge(ctx context.Context) (string, error) {
	if r.opt.Warden == nil {
		return newChallenge(), nil
	}
	c, err := r.opt.Warden.Challenge(ctx)
	r.noteDenied()
	return c, err
}

// noteDenied puts on record what the warden refused.
func (r *running) noteDenied() {
	for _, a := range r.opt.Warden.Denied() {
		r.launch.Gate.Seen(a, false)
	}
}

// over tells the warden that nothing is alive, and hears whether it was the
// reason.
func (r *running) over() {
	if r.opt.Warden == nil {
		return
	}
	why, err := r.opt.Warden.Over(context.Background())
	if err != nil {
		r.opt.Logger.Warn("the warden was not told of the end", "error", err)
		return
	}
	r.noteDenied()
	r.mu.Lock()
	// A revocation is the reason, whatever followed from it.
	if errors.Is(why, exeq.ErrRevoked) || why != nil && r.lapsed == nil && r.killed == "" {
		r.lapsed = why
	}
	r.mu.Unlock()
}
