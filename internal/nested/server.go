package nested

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/permit"
)

// Parent is the execution inside which others are asked for.
type Parent struct {
	ID      string
	Request *exeq.Request
	Rights  *exeq.Rights
	Applied exeq.Applied
	// Digest hashes the program at a raw path, as the supervisor finds it.
	Digest func(path string) (exeq.Digest, error)
	// Governor makes the flow for a child; Serve narrows it.
	Governor func(exeq.Enforcer) (*exeq.Governor, error)
	// End ends the parent: what cannot be killed within it is killed with it.
	End func(reason string)
	// Status maps a run's outcome to an exit status.
	Status func(*exeq.Outcome, error) int

	// Sight is what the supervisor sees inside by itself.
	Sight Sight

	mu   sync.Mutex
	live map[string]*inside // nested runs; mu is of their kin too
}

// Serve takes one nested run through the flow over a client's connection.
func (p *Parent) Serve(ctx context.Context, c net.Conn) {
	w := newWire(c)
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(w.wait))
	var a ask
	if err := w.receive(&a, exeq.MaxRequestBytes); err != nil {
		w.send(message{Result: &Outcome{State: exeq.Failed, Status: 125, Error: "nested run: " + err.Error()}})
		return
	}
	e := &inside{parent: p, w: w, within: a.Within, gone: make(chan struct{}), pongs: make(chan string, 1), killed: make(chan struct{})}
	out, err := p.run(ctx, e, &a)
	r := &Outcome{State: exeq.Failed, Status: p.Status(out, err)}
	if out != nil {
		r.ID, r.State, r.Code, r.Exit = out.ID, out.State, out.Code, out.Exit
	}
	if err != nil {
		r.Error = err.Error()
	}
	w.send(message{Result: r})
	if e.kin == nil {
		return
	}
	// A client that goes on holds rights under a permit that is over.
	select {
	case <-e.killed:
		e.awaitOver(true, true, 2*e.launch.Lease, "a nested run was ended and its client goes on")
	default:
		e.awaitOver(false, true, 10*e.launch.Lease, "a nested run is over and its client goes on")
	}
}

func (p *Parent) run(ctx context.Context, e *inside, a *ask) (*exeq.Outcome, error) {
	if a.Version != 1 {
		return nil, fmt.Errorf("nested run: %w: version %d", exeq.ErrCannotTell, a.Version)
	}
	if err := exeq.CheckPath(a.Program); err != nil {
		return nil, fmt.Errorf("nested run: program: %w", err)
	}
	raw, err := exeq.DecodeBytes(a.Program)
	if err != nil {
		return nil, err
	}
	digest, err := p.Digest(raw)
	if err != nil {
		return nil, fmt.Errorf("nested run: %w", err)
	}
	r := *p.Request // the parent's agent, never another
	r.Resource = exeq.Resource{Type: "Program", ID: a.Program, SHA256: digest}
	r.Argv, r.Dir = a.Argv, a.Dir
	r.Context.Command = exeq.CommandLine(a.Argv)
	r.Context.Claimed = maps.Clone(r.Context.Claimed)
	if a.Intent != "" {
		r.Context.Claimed = map[string]string{"intent": a.Intent}
	}
	if err := exeq.CheckPath(a.Dir); err != nil {
		return nil, fmt.Errorf("nested run: working directory: %w", err)
	}
	client, all, err := p.meet(e.w)
	if err != nil {
		return nil, fmt.Errorf("%w: nested run: %w", exeq.ErrEnforce, err)
	}
	bound, err := p.bound(a.Within, client, all)
	if err != nil {
		return nil, err
	}
	e.client, e.bound = client, bound
	g, err := p.Governor(e)
	if err != nil {
		return nil, err
	}
	outer := g.Within
	g.Within = func(child *exeq.Rights) (*exeq.Rights, error) {
		if outer != nil {
			var err error
			if child, err = outer(child); err != nil {
				return nil, err
			}
		}
		return permit.Attenuate(bound, child), nil
	}
	return g.Run(ctx, &exeq.Launch{Request: &r}, exeq.Inputs{Tier: p.Applied.Tier}, a.Within)
}

// inside is the enforcer, and the one execution, of a nested run.
type inside struct {
	parent *Parent
	bound  *exeq.Rights // of the executions around it
	within string       // the innermost of them
	client []Process
	kin    *kin // since its release
	w      *wire
	launch *exeq.Launch
	gone   chan struct{} // closed when the client says that nothing of it is alive, and that is seen
	pongs  chan string
	killed chan struct{}
	once   sync.Once

	mu         sync.Mutex
	exit       exeq.Exit
	lost       string
	sequence   uint64
	challenge  string
	challenged time.Time
	deadline   time.Time
	began      time.Time
}

func (e *inside) Tier() exeq.Tier { return e.parent.Applied.Tier }

// heldByClient is what the start says of rights narrower than the parent's.
const heldByClient = "nested run: what its rights to files and its quotas leave out of its parent's is held by its client alone"

// Applied: what holds is the parent's; what the child does is on record there.
func (e *inside) Applied() exeq.Applied {
	a := e.parent.Applied
	a.Seen = map[string]string{"exec": "none", "map": "none", "read": "none", "write": "none", "connect": "none"}
	a.Downgrades = []string{"nested run: its activities are on record with its parent, " + e.parent.ID}
	if e.narrower() {
		a.Canary = "nothing of its own; within its parent: " + a.Canary
		a.Downgrades = append(a.Downgrades, heldByClient)
	}
	return a
}

// narrower: its rights lie below those that hold by the kernel and the gate,
// the outermost's.
func (e *inside) narrower() bool {
	_, same := e.parent.Rights.Within(e.launch.Rights)
	return !same || e.parent.Rights.Quotas != e.launch.Rights.Quotas
}

// Launch implements exeq.Enforcer.
func (e *inside) Launch(_ context.Context, l *exeq.Launch) (exeq.Running, error) {
	e.launch = l
	s := &start{ID: l.ID}
	if _, same := e.bound.Within(l.Rights); !same {
		s.Rights, s.Bound = l.Rights, e.bound
	}
	if err := l.Ready(e.Applied()); err != nil {
		return nil, err
	}
	if err := e.begin(); err != nil {
		return nil, fmt.Errorf("%w: nested run: %w", exeq.ErrEnforce, err)
	}
	released := false
	defer func() {
		if !released {
			e.end()
		}
	}()
	if err := e.w.send(message{Start: s}); err != nil {
		return nil, fmt.Errorf("%w: nested run: %w", exeq.ErrEnforce, err)
	}
	e.w.SetReadDeadline(time.Now().Add(e.w.wait))
	var m message
	if err := e.w.receive(&m, exeq.MaxLeafBytes); err != nil {
		return nil, fmt.Errorf("%w: nested run: %w", exeq.ErrEnforce, err)
	}
	if !m.Running {
		return nil, fmt.Errorf("%w: nested run: the client did not start the command", exeq.ErrEnforce)
	}
	e.w.SetReadDeadline(time.Time{})
	released = true
	e.began = time.Now()
	e.deadline = e.began.Add(l.Lease)
	go e.listen()
	go e.watch()
	return e, nil
}

// listen follows the client until it tells the end or is gone. Neither is
// believed before it is seen; what does not come true ends the parent.
func (e *inside) listen() {
	defer close(e.gone)
	defer e.end()
	for {
		var m message
		if err := e.w.receive(&m, exeq.MaxLeafBytes); err != nil {
			e.setExit(exeq.Exit{Code: 137, Signal: 9}, "the client is gone: "+err.Error())
			e.awaitOver(true, true, e.launch.Lease, "a nested run's client is gone and what it started goes on")
			return
		}
		switch {
		case m.Exit != nil:
			e.setExit(*m.Exit, "")
			e.awaitOver(false, false, e.launch.Lease, "a nested run is said to be over and goes on")
			return
		case m.Pong != "":
			select {
			case e.pongs <- m.Pong:
			default:
			}
		}
	}
}

func (e *inside) setExit(x exeq.Exit, lost string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exit, e.lost = x, lost
}

// watch holds the lease.
func (e *inside) watch() {
	for {
		e.mu.Lock()
		left := time.Until(e.deadline)
		e.mu.Unlock()
		if left <= 0 {
			e.Kill("lease lapsed")
			return
		}
		select {
		case <-e.gone:
			return
		case <-time.After(left):
		}
	}
}

// Evidence implements exeq.Running: the client answers a challenge, the rest is
// the parent's and measured by its own ticks.
func (e *inside) Evidence(ctx context.Context) (*exeq.Evidence, error) {
	var b [16]byte
	rand.Read(b[:])
	ch := hex.EncodeToString(b[:])
	e.mu.Lock()
	e.sequence++
	ev := &exeq.Evidence{Sequence: e.sequence, Time: exeq.At(time.Now()), Challenge: ch, Programs: []exeq.Program{},
		Environment: e.parent.Applied.Environment, Supervisor: true, WallMillis: time.Since(e.began).Milliseconds()}
	e.mu.Unlock()
	e.look()
	sent := time.Now()
	if err := e.w.send(message{Ping: ch}); err == nil {
		select {
		case got := <-e.pongs:
			ev.Watchdog = got == ch
		case <-e.gone:
			return nil, exeq.ErrGone
		case <-time.After(e.launch.Lease / 2):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	e.mu.Lock()
	e.challenge, e.challenged = ch, sent
	e.mu.Unlock()
	return ev, nil
}

// Renew implements exeq.Running.
func (e *inside) Renew(r exeq.Renewal) error {
	if err := e.launch.CheckRenewal(r); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.challenge == "" || r.Challenge != e.challenge {
		return errors.New("renewal: answers no open challenge")
	}
	e.challenge = ""
	e.deadline = e.challenged.Add(time.Duration(r.Millis) * time.Millisecond)
	return nil
}

// Kill implements exeq.Running. The client kills; one that does not say so in
// time, or at all, or of which something may still be seen, takes its parent
// with it.
func (e *inside) Kill(reason string) error {
	e.once.Do(func() {
		close(e.killed)
		e.look()
		if err := e.w.send(message{Kill: reason}); err != nil {
			e.w.Close() // listen looks at what is left
		}
		select {
		case <-e.gone:
			e.awaitOver(true, false, e.launch.Lease, "a nested run was to end and goes on")
		case <-time.After(2 * e.launch.Lease):
			e.parent.End("a nested run was to end and did not")
			e.w.Close()
		}
	})
	<-e.gone
	return nil
}

// Reload, Hold, Resume and Stops implement exeq.Running: rulings and stops are
// the parent's.
func (e *inside) Reload(context.Context) error { return nil }
func (e *inside) Hold() error                  { return errors.New("a nested run is held with its parent") }
func (e *inside) Resume() error                { return nil }
func (e *inside) Stops() <-chan bool           { return nil }
func (e *inside) Exited()                      { <-e.gone }

// Lapsed implements exeq.Running.
func (e *inside) Lapsed() error {
	<-e.gone
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost == "" {
		return nil
	}
	return errors.New(e.lost)
}

// Wait implements exeq.Running.
func (e *inside) Wait() (exeq.Exit, error) {
	<-e.gone
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.exit, nil
}
