//go:build linux

package node

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
)

// keep ends whatever has no lease any more.
func (n *Node) keep() {
	t := time.NewTicker(glance)
	defer t.Stop()
	check := 0
	for {
		select {
		case <-n.ended:
			return
		case <-t.C:
		}
		n.mu.Lock()
		all := make([]*execution, 0, len(n.executions))
		for _, x := range n.executions {
			all = append(all, x)
		}
		n.mu.Unlock()
		why := ""
		if check++; len(all) > 0 && check%20 == 0 { // once a second
			if err := n.gateHolds(); err != nil {
				why = err.Error()
			}
		}
		now := boottime()
		for _, x := range all {
			n.look(x, now, why)
		}
	}
}

// look judges one execution as of now.
func (n *Node) look(x *execution, now time.Duration, why string) {
	x.mu.Lock()
	if x.state == held {
		x.charge()
	}
	s, since, deadline, left := x.state, x.since, x.deadline, x.left
	x.mu.Unlock()
	switch {
	case s == ended && now-since > keepTime:
		n.forget(x)
		return
	case s == ended || s == ending:
		return
	case why != "":
	case s == enclosed && now > deadline:
		why = "no renewal came within the lease"
	case s == admitted && now-since > unreleasedTime:
		why = "no processes came for the permit"
	case s == held && !alive(x.owner.pidfd):
		why = "its supervisor is gone"
	case s == held && left <= 0:
		why = "it does not stand still, and no renewal came within the lease"
	default:
		return
	}
	go func() {
		if err := n.end(x, why); err != nil {
			n.log.Error("does not end", "permit", x.permit, "err", err)
		}
	}()
}

// watch reads what the gate decided.
func (n *Node) watch(events *bpf.Events) {
	defer events.Close()
	for {
		select {
		case <-n.ended:
			return
		default:
		}
		e, err := events.Next(time.Now().Add(time.Second / 2))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			n.log.Error("event", "err", err)
			continue
		}
		n.saw(e)
	}
}

// saw takes one event in. One that the kernel could not kill is killed here.
func (n *Node) saw(e bpf.Event) {
	n.mu.Lock()
	x := n.cgroups[e.Cgroup]
	n.mu.Unlock()
	if x == nil {
		return
	}
	x.mu.Lock()
	canary := x.state == enclosing || e.At < x.since && x.state == enclosed
	if !canary {
		x.denials++
		if len(x.denied) < wire.MaxDenied {
			x.denied = append(x.denied, denied(e))
		} else {
			x.more++
		}
	}
	log := !canary && x.denials <= maxLogged
	x.mu.Unlock()
	if log {
		n.log.Info("denied", "permit", x.permit, "verb", e.Verb, "why", e.Why, "pid", e.PID, "dev", e.Dev, "ino", e.Ino, "addr", e.Addr, "alive", e.Alive)
	}
	if e.Alive {
		go n.end(x, "a program that is not allowed could not be killed alone: "+e.Verb)
	}
}

func denied(e bpf.Event) wire.Denied {
	d := wire.Denied{Verb: e.Verb, Why: e.Why, PID: e.PID}
	switch {
	case e.Verb == "exec":
		d.Dev, d.Ino = e.Dev, strconv.FormatUint(e.Ino, 10)
	case e.Addr.IsValid():
		d.Addr = e.Addr.String()
	}
	return d
}
