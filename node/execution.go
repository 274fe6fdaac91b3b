//go:build linux

package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// state of an execution, in its order.
type state string

const (
	admitting state = "admitting" // its permit is being checked: nothing of it is believed
	admitted  state = "admitted"  // the nonce is burnt, nothing is there yet
	enclosing state = "enclosing" // on its way into the gate
	enclosed  state = "running"
	held      state = "held"   // frozen, the lease suspended
	ending    state = "ending" // being killed
	ended     state = "ended"
)

// execution is one permit that was admitted here.
type execution struct {
	permit   string
	owner    *peer // whoever had it admitted
	issuer   ed25519.PublicKey
	resource exeq.Resource
	rights   *exeq.Rights
	size     int64 // that it travelled in
	counted  int   // of programs, in Node.programs; Node.mu
	placed   int   // of places, in Node.places; Node.mu
	lease    time.Duration
	check    func(exeq.Renewal) error
	dir      string // its cgroup

	approving sync.WaitGroup // and enclosing: what an end waits for, since it may add to what ends

	mu         sync.Mutex
	state      state
	cgroup     bpf.Cgroup
	since      time.Duration // of this state, CLOCK_BOOTTIME
	deadline   time.Duration // CLOCK_BOOTTIME
	left       time.Duration // of the lease, while held
	loose      time.Duration // while held: since when it does not stand still; 0: it does
	challenge  string
	challenged time.Duration
	programs   map[bpf.File][]approved // and as what
	denials    int                     // of the gate, in all
	denied     []wire.Denied           // that were not told yet
	more       int                     // beyond these
	why        string                  // why the node ended it
	revoked    bool                    // by a revocation
	gone       chan struct{}           // closed when nothing of it is alive
}

// lapsed is why an execution is ended whose lease is over.
const lapsed = "no renewal came within the lease"

// approved is what a file was approved as.
type approved struct {
	path   string
	digest exeq.Digest
}

// boottime is CLOCK_BOOTTIME, which goes on in suspend.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every kernel that loads the gate has it
	}
	return time.Duration(ts.Nano())
}

func (t *trusted) serves(uid int) bool { return slices.Contains(t.uids, uid) }

// admit takes a permit: everything that it binds is checked here again, and its
// nonce is burnt.
func (n *Node) admit(p *peer, a *wire.Admit, size int64) error {
	read, err := exeq.ParsePermit(a.Envelope)
	if err != nil {
		return fmt.Errorf("%w: %w", permit.ErrMalformed, err)
	}
	var e exeq.Envelope
	if err := json.Unmarshal(a.Envelope, &e); err != nil || len(e.Signatures) != 1 {
		return permit.ErrMalformed
	}
	if !isID(read.Body.ID) {
		return fmt.Errorf("%w: its id is no UUID", permit.ErrMalformed)
	}
	t, err := n.trusts(p.uid, e.Signatures[0].KeyID)
	if err != nil {
		return err
	}
	x := &execution{
		permit: read.Body.ID, issuer: t.issuer, rights: a.Rights, size: size, state: admitting, since: boottime(),
		dir: filepath.Join(n.c.Cgroup, read.Body.ID), programs: map[bpf.File][]approved{}, gone: make(chan struct{}),
		lease: time.Duration(read.Body.LeaseMillis) * time.Millisecond,
	}
	if err := n.reserve(x, p); err != nil {
		return err
	}
	admitter, err := permit.NewAdmitter(permit.AdmitterConfig{
		Issuer: t.issuer, Promise: t.promise, Audience: n.id.audience, Tier: n.tier(), Burner: n.burnt, Now: n.burnt.clock,
	})
	if err == nil {
		err = admitter.Admit(context.Background(), read, a.Record, a.Request, a.Rights)
	}
	if err != nil {
		n.forget(x)
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(admitting); err != nil { // revoked, or over, already
		return err
	}
	n.warm()
	x.resource, x.check = a.Request.Resource, admitter.CheckRenewal(x.permit)
	x.state, x.since = admitted, boottime()
	n.log.Info("admitted", "permit", x.permit, "uid", p.uid, "pid", p.pid)
	return nil
}

// isID: a permit's id names its cgroup.
func isID(s string) bool {
	return len(s) == 36 && strings.Trim(s, "0123456789abcdef-") == ""
}

// trusts gives the issuer with the key, if it permits executions of the user.
func (n *Node) trusts(uid int, keyID string) (*trusted, error) {
	all, err := readTrust(n.c.Trust)
	if err != nil {
		n.log.Error("no permit is taken", "err", err)
		return nil, wire.ErrIssuer
	}
	for _, t := range all {
		if exeq.KeyID(t.issuer) == keyID && t.serves(uid) {
			return t, nil
		}
	}
	return nil, wire.ErrIssuer
}

// reserve takes the room that an execution needs.
func (n *Node) reserve(x *execution, p *peer) error {
	own, err := unix.FcntlInt(p.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0) // outlives the connection
	if err != nil {
		return err
	}
	x.owner = &peer{uid: p.uid, pid: p.pid, pidfd: os.NewFile(uintptr(own), "pidfd")}
	n.mu.Lock()
	defer n.mu.Unlock()
	users, size := 0, x.size
	for _, y := range n.executions {
		if y.owner.uid == p.uid {
			users++
			size += y.size
		}
	}
	switch {
	case n.executions[x.permit] != nil:
		err = fmt.Errorf("%w: %w", permit.ErrUsed, exeq.ErrReplayed)
	case len(n.executions) >= maxExecutions || p.uid != 0 && users >= maxUserExecutions:
		err = fmt.Errorf("%w: %d executions are held", wire.ErrBusy, len(n.executions))
	case n.rights+x.size > maxRights || p.uid != 0 && size > maxUserRights:
		err = fmt.Errorf("%w: the rights of what is held take %d bytes", wire.ErrBusy, n.rights)
	default:
		n.executions[x.permit] = x
		n.rights += x.size
		return nil
	}
	x.owner.pidfd.Close()
	return err
}

// forget gives the room back.
func (n *Node) forget(x *execution) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.executions[x.permit] != x {
		return
	}
	delete(n.executions, x.permit)
	delete(n.cgroups, x.cgroup)
	n.rights -= x.size
	if n.programs[x.owner.uid] -= x.counted; n.programs[x.owner.uid] <= 0 {
		delete(n.programs, x.owner.uid)
	}
	if n.places[x.owner.uid] -= x.placed; n.places[x.owner.uid] <= 0 {
		delete(n.places, x.owner.uid)
	}
	x.owner.pidfd.Close()
}

func (n *Node) find(id string) (*execution, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if x := n.executions[id]; x != nil {
		return x, nil
	}
	return nil, fmt.Errorf("%w: %.40q", wire.ErrUnknown, id)
}

// owned finds an execution of whoever asks.
func (n *Node) owned(p *peer, id string) (*execution, error) {
	x, err := n.find(id)
	if err == nil && !x.owner.same(p) {
		return nil, wire.ErrOwner
	}
	return x, err
}

// in checks that the execution is in one of the states; x.mu is held.
func (x *execution) in(states ...state) error {
	switch {
	case slices.Contains(states, x.state):
		return nil
	case x.why == lapsed && !x.revoked:
		return fmt.Errorf("%w: %s", exeq.ErrLapsed, x.why)
	case x.why != "" || x.revoked:
		return fmt.Errorf("%w: %s", exeq.ErrRevoked, x.why)
	}
	return fmt.Errorf("%w: it is %s", wire.ErrState, x.state)
}

// challenge gives what the next renewal must answer, and what was denied since
// the last. It counts from now.
func (n *Node) challenge(p *peer, id string) (*wire.Answer, error) {
	x, err := n.owned(p, id)
	if err != nil {
		return nil, err
	}
	if err := n.gateHolds(); err != nil {
		return nil, err
	}
	var b [16]byte
	rand.Read(b[:])
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(enclosed, held); err != nil { // a tick may be under way when it is held
		return nil, err
	}
	x.challenge, x.challenged = hex.EncodeToString(b[:]), boottime()
	return x.tell(&wire.Answer{Challenge: x.challenge}), nil
}

// tell puts what was denied into an answer, once; x.mu is held.
func (x *execution) tell(a *wire.Answer) *wire.Answer {
	a.Denied, a.More = x.denied, x.more
	x.denied, x.more = nil, 0
	return a
}

// renew extends a lease, whoever brings the renewal.
func (n *Node) renew(r *exeq.Renewal) error {
	x, err := n.find(r.Permit)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(enclosed, held); err != nil {
		return err
	}
	// First the challenge: what does not answer it changes nothing.
	if x.challenge == "" || r.Challenge != x.challenge {
		return wire.ErrChallenge
	}
	if err := x.check(*r); err != nil {
		return err
	}
	if x.state == held {
		x.charge()
	}
	now, until := boottime(), x.challenged+time.Duration(r.Millis)*time.Millisecond
	if x.state == enclosed && now > x.deadline || x.state == held && x.left <= 0 || now > until {
		return fmt.Errorf("%w: the renewal came late", exeq.ErrLapsed)
	}
	x.challenge = ""
	if x.deadline = until; x.state == held {
		x.left = max(x.left, until-now) // as of now: what was kept back while it is held is worth nothing either
	}
	return nil
}

// revoke ends what the issuer's signature ends, whoever brings it.
func (n *Node) revoke(v *exeq.Revocation) error {
	x, err := n.find(v.Permit)
	if err != nil {
		return err
	}
	if err := permit.CheckRevocation(x.issuer, x.permit, *v); err != nil {
		return err
	}
	reason := exeq.EncodeBytes(v.Reason[:min(len(v.Reason), wire.MaxReason)]) // an answer has to hold it
	return n.endAs(x, reason, true)
}

// hold freezes the execution and suspends its lease.
func (n *Node) hold(p *peer, id string) error {
	x, err := n.owned(p, id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(enclosed); err != nil {
		return err
	}
	now := boottime()
	if now > x.deadline {
		return exeq.ErrLapsed
	}
	if err := x.freeze("1"); err != nil {
		return err
	}
	x.state, x.since, x.left, x.loose = held, now, x.deadline-now, now
	x.charge()
	return nil
}

// charge takes from a held lease what went by while its processes did not all
// stand still: freezing takes its time, and holding and resuming in a row would
// be a lease without an end. x.mu is held.
func (x *execution) charge() {
	b, err := os.ReadFile(filepath.Join(x.dir, "cgroup.events"))
	now := boottime()
	if x.loose != 0 {
		x.left -= now - x.loose
	}
	if x.loose = now; err == nil && containsLine(string(b), "frozen 1") {
		x.loose = 0
	}
}

// resume goes on with what was left of the lease: holding renews nothing.
func (n *Node) resume(p *peer, id string) error {
	x, err := n.owned(p, id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(held); err != nil {
		return err
	}
	if x.charge(); x.left <= 0 {
		return exeq.ErrLapsed
	}
	x.state, x.since = enclosed, boottime()
	x.deadline = x.since + x.left
	return x.freeze("0")
}

func (x *execution) freeze(how string) error {
	if err := os.WriteFile(filepath.Join(x.dir, "cgroup.freeze"), []byte(how), 0); err != nil {
		return fmt.Errorf("%w: freeze: %w", exeq.ErrEnforce, err)
	}
	return nil
}

// over: the supervisor has seen the end. It says why the node ended it, if it
// did.
func (n *Node) over(p *peer, id string) (*wire.Answer, error) {
	x, err := n.owned(p, id)
	if err != nil {
		return nil, err
	}
	if err := n.end(x, ""); err != nil { // or wait until it is
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tell(&wire.Answer{Ended: x.why, Revoked: x.revoked}), nil
}

// end kills everything of an execution: the map first, then cgroup.kill, then
// populated 0. Whoever comes second waits for the first.
func (n *Node) end(x *execution, why string) error { return n.endAs(x, why, false) }

func (n *Node) endAs(x *execution, why string, revoked bool) error {
	x.mu.Lock()
	if x.state == ending || x.state == ended {
		x.mu.Unlock()
		select {
		case <-x.gone:
			return nil
		case <-time.After(endTime):
			return fmt.Errorf("%w: %s is still being ended", exeq.ErrEnforce, x.permit)
		}
	}
	if !n.use() {
		x.mu.Unlock()
		return fmt.Errorf("%w: %s: the node is ending, and the next one ends it", exeq.ErrEnforce, x.permit)
	}
	was := x.state
	if was == enclosed && why == "" && !revoked && boottime() > x.deadline {
		why = lapsed // its supervisor was the first to see it
	}
	x.state, x.since, x.why, x.revoked, x.challenge = ending, boottime(), why, revoked, ""
	cgroup := x.cgroup
	x.mu.Unlock()
	if why != "" || revoked {
		n.log.Warn("ended", "permit", x.permit, "why", why, "revoked", revoked)
	}
	go func() {
		defer n.done.Done()
		n.bury(x, was, cgroup)
	}()
	select {
	case <-x.gone:
		return nil
	case <-time.After(endTime):
		return fmt.Errorf("%w: %s does not end", exeq.ErrEnforce, x.permit)
	}
}

// bury sees the end through and frees what it took.
func (n *Node) bury(x *execution, was state, cgroup bpf.Cgroup) {
	var err error
	if was == enclosing {
		// What is on its way in has to be there before it can be killed.
		x.approving.Wait()
		x.mu.Lock()
		cgroup = x.cgroup
		x.mu.Unlock()
	}
	if cgroup != 0 {
		for {
			if err = n.gate.End(x.dir, endTime); err == nil || errors.Is(err, os.ErrNotExist) {
				err = nil
				break
			}
			n.log.Error("does not end", "permit", x.permit, "err", err)
			select {
			case <-n.ended:
				return
			case <-time.After(time.Second):
			}
		}
	} else if was == enclosing {
		err = killAll(x.dir, endTime)
	}
	x.approving.Wait()
	x.mu.Lock()
	x.state, x.since = ended, boottime()
	x.mu.Unlock()
	close(x.gone)
	if cgroup != 0 {
		// Lift walks the maps: nobody has to wait for it.
		if rerr := removeCgroup(x.dir); rerr == nil {
			err = errors.Join(err, n.lift(cgroup))
		} else {
			err = errors.Join(err, rerr)
		}
	} else if was == enclosing {
		err = errors.Join(err, removeCgroup(x.dir))
	}
	if err != nil {
		n.log.Error("cleaning up", "permit", x.permit, "err", err)
	}
}

// lift gives back what an ended execution has in the gate, as soon as nothing
// that left its cgroup lives outside (see saw): till then all is refused to that.
func (n *Node) lift(c bpf.Cgroup) error {
	for first := true; ; first = false {
		left, err := n.gate.Marked(c)
		if err == nil && left == 0 {
			return n.gate.Lift(c)
		}
		if first {
			n.log.Error("lives outside of its cgroup", "cgroup", c, "processes", left, "err", err)
		}
		select {
		case <-n.ended:
			return err
		case <-time.After(time.Second):
		}
	}
}

// status lists what is held: for root all, for others their own.
func (n *Node) status(p *peer) (*wire.Status, error) {
	s := &wire.Status{Executions: []wire.Held{}, Found: n.found}
	var err error
	if s.Dropped, _, err = n.gate.Dropped(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	all := make([]*execution, 0, len(n.executions))
	for _, x := range n.executions {
		if p.uid == 0 || x.owner.uid == p.uid {
			all = append(all, x)
		}
	}
	n.mu.Unlock()
	slices.SortFunc(all, func(a, b *execution) int { return strings.Compare(a.permit, b.permit) })
	for _, x := range all[:min(len(all), 1000)] { // what an answer holds
		x.mu.Lock()
		h := wire.Held{Permit: x.permit, UID: x.owner.uid, State: string(x.state), Programs: len(x.programs), Denials: x.denials}
		switch x.state {
		case enclosed:
			h.LeaseMillis = (x.deadline - boottime()).Milliseconds()
		case held:
			h.LeaseMillis = x.left.Milliseconds()
		}
		x.mu.Unlock()
		s.Executions = append(s.Executions, h)
	}
	return s, nil
}
