//go:build linux

package enforce

import (
	"context"
	"errors"
	"fmt"
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

// vouches reports whether the warden wants to be shown files for the action.
func (n *notifier) vouches(action string) bool {
	return n.warden != nil && (action == exeq.ActionExec || n.warden.Tier() >= exeq.TierKernel)
}

// vouch has the warden let a program be executed that was decided on, or a file
// be mapped executable, before that goes on. A warden that refuses is EPERM, and said.
func (n *notifier) vouch(a exeq.Activity, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	key := vouched{identityOf(&st), a.Action == exeq.ActionMap}
	n.mu.Lock()
	known := n.vouched[key] || n.vouched[vouched{key.id, false}] // what is executed may be mapped
	n.mu.Unlock()
	if known {
		return nil
	}
	if err := n.warden.Approve(n.ctx, a.Resource.ID, a.Resource.SHA256, f, key.mapped); err != nil {
		n.deny(fmt.Sprintf("%s %s denied: %s", a.Action, a.Resource.ID, err))
		return unix.EPERM
	}
	n.mu.Lock()
	n.vouched[key] = true
	n.mu.Unlock()
	return nil
}

// vouchInPlace is vouch for what is executed or mapped where it lies.
func (n *notifier) vouchInPlace(a exeq.Activity, f *programs.File) error {
	if !n.vouches(a.Action) {
		return nil
	}
	open, err := f.Open()
	if err != nil {
		return err
	}
	defer open.Close()
	return n.vouch(a, open)
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
	if why != "" && r.lapsed == nil && r.killed == "" {
		r.lapsed = errors.New(why)
	}
	r.mu.Unlock()
}
