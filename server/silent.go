package server

import (
	"context"
	"maps"
	"time"

	"github.com/exeq/exeq"
)

// watch seals what its node says nothing more of: a lease after its end nothing of
// it is alive. It returns when ctx ends.
func (x *executions) watch(ctx context.Context) {
	t := time.NewTicker(exeq.DefaultTick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			x.sealSilent(ctx)
		}
	}
}

// sealSilent seals as lost what runs and was not renewed for two leases, and
// forgets permits that nobody used and what is over.
func (x *executions) sealSilent(ctx context.Context) {
	x.mu.Lock()
	all := maps.Clone(x.live)
	x.mu.Unlock()
	for id, r := range all {
		r.mu.Lock()
		silent := time.Since(r.last)
		switch {
		case r.over:
			x.forget(id)
		case !r.runs && silent > exeq.DefaultPermitWindow+exeq.DefaultLease:
			x.forget(id)
		case r.runs && !r.over && silent > 2*exeq.DefaultLease:
			if _, err := x.in.Store.SealLost(ctx, id); err != nil {
				x.log.Error("an execution whose node is silent could not be sealed", "execution", id, "err", err)
				break
			}
			r.over = true
			x.forget(id)
		}
		r.mu.Unlock()
	}
}
