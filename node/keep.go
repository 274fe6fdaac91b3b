//go:build linux

package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
		why, second := "", false
		if check++; check%20 == 0 {
			second = true
		}
		if len(all) > 0 && second {
			if err := errors.Join(n.gateHolds(), n.lostOrders()); err != nil {
				why = err.Error()
			}
		}
		now := boottime()
		for _, x := range all {
			n.look(x, now, why, second)
		}
	}
}

// look judges one execution as of now. Whether what stood still does so yet is
// looked at once a second: nobody but root lets it go on.
func (n *Node) look(x *execution, now time.Duration, why string, second bool) {
	x.mu.Lock()
	if x.state == held && (x.loose != 0 || second) {
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
		why = lapsed
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

// watch reads what the gate decided, most of it (0: all) in a glance: who is
// refused in a loop does not keep the node busy. The kernel counts the rest.
func (n *Node) watch(events *bpf.Events, most int) {
	defer events.Close()
	p := pace{most: most}
	for {
		select {
		case <-n.ended:
			return
		case <-time.After(p.wait(boottime())):
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

// pace is how many were read in this glance.
type pace struct {
	most, read int
	since      time.Duration
}

// wait counts one more and says how long it has to wait.
func (p *pace) wait(now time.Duration) time.Duration {
	if p.since == 0 || now-p.since >= glance {
		p.since, p.read = now, 0
	}
	if p.most == 0 || p.read < p.most {
		p.read++
		return 0
	}
	left := p.since + glance - now
	p.since, p.read = p.since+glance, 1
	return left
}

// lostOrders says whether there was no room for an order since the node began:
// nobody knows what is to be killed.
func (n *Node) lostOrders() error {
	_, lost, err := n.gate.Dropped()
	if err == nil && lost > n.ordersLost {
		n.ordersLost = lost
		err = fmt.Errorf("%w: %d times it could not say what it could not kill", wire.ErrGate, lost)
	}
	return err
}

// saw takes one event in. One that the kernel could not kill is killed here.
func (n *Node) saw(e bpf.Event) {
	n.mu.Lock()
	x := n.cgroups[e.Cgroup]
	n.mu.Unlock()
	if x == nil {
		if e.Alive { // of an earlier node
			n.log.Error("not killed by the gate", "pid", e.PID, "err", killSince(e.PID, e.At))
		}
		return
	}
	x.mu.Lock()
	canary := x.state == enclosing || e.At < x.since && x.state == enclosed
	if !canary {
		x.denials++
		if len(x.denied) < wire.MaxDenied {
			x.denied = append(x.denied, denied(e, n.gate.Kernel()))
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
		if err := killSince(e.PID, e.At); err != nil { // it may be outside, where an end does not reach
			n.log.Error("cannot be killed", "permit", x.permit, "pid", e.PID, "err", err)
		}
		go n.end(x, "a program that is not allowed could not be killed alone: "+e.Verb)
	}
}

// killSince kills the process that the kernel told of, by its number there, and
// not one that got the number later.
func killSince(pid int, at time.Duration) error {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != firstNamespace {
		return fmt.Errorf("the kernel's numbers of processes are not those of here (%s, %v)", ns, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	// Its name, in brackets, may hold anything; its start is the 22nd field.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return fmt.Errorf("%q", b)
	}
	start, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		return err
	}
	if time.Duration(start)*(time.Second/ticks) > at {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != unix.ESRCH {
		return err
	}
	return nil
}

const (
	firstNamespace = "pid:[4026531836]" // the kernel's PROC_PID_INIT_INO
	ticks          = 100                // USER_HZ, of every architecture that the gate is for
)

func denied(e bpf.Event, kernel bool) wire.Denied {
	d := wire.Denied{Verb: e.Verb, Why: e.Why, PID: e.PID, Refused: kernel}
	switch {
	case e.Ino != 0:
		d.Dev, d.Ino = e.Dev, strconv.FormatUint(e.Ino, 10)
	case e.Addr.IsValid():
		d.Addr = e.Addr.String()
	}
	return d
}
