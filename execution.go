package exeq

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// State is where an execution stands in the flow.
type State string

// The states of an execution.
const (
	Requested State = "requested"
	Denied    State = "denied"    // final: no permit
	Permitted State = "permitted" // a permit exists and is inert
	Recorded  State = "recorded"  // durable and promised: the permit may leave
	Admitted  State = "admitted"  // verified, nonce burnt
	Live      State = "running"   // enforced and released
	Held      State = "held"      // every process stopped, lease suspended
	Ending    State = "ending"    // trust ended or the command did; being killed
	Sealed    State = "sealed"    // final: the end is recorded
	Failed    State = "failed"    // final: Exeq could not go on, nothing ran
)

// transitions lists the sole ways from one state to another.
var transitions = map[State][]State{
	Requested: {Denied, Permitted, Failed},
	Permitted: {Recorded, Failed},
	Recorded:  {Admitted, Failed},
	Admitted:  {Live, Failed, Ending},
	Live:      {Held, Ending},
	Held:      {Live, Ending},
	Ending:    {Sealed},
}

// Execution is what runs under one permit. It keeps the chain of its leaves
// and what the session has done; it is the Gate that enforcement asks.
type Execution struct {
	ID      string
	Parent  string
	Request *Request

	governor    *Governor
	launch      *Launch
	inputs      Inputs
	permit      *Permit
	rights      *Rights       // in force
	granted     *Rights       // the permit's: rights lie within
	on          *PermitRecord // by an authority; nil: it is ours to record
	deniedThere bool          // by an authority, on its record
	applied     Applied
	ended       chan ended // the first reason why trust ended

	mu       sync.Mutex // state, decider, session, pending, unleaved, counts
	state    State
	decider  Decider
	session  Session
	pending  []ActivityEntry
	dropped  int                // activities seen beyond what a tick's leaves can hold
	unleaved map[denialKind]int // denials without a leaf of their own since the last tick
	counts   map[string]int

	ticks   ticks          // of the verifying loop
	writers sync.WaitGroup // what is written beside it

	chain sync.Mutex // seq, prev; held while a leaf is being recorded
	seq   int
	prev  Digest
}

// denialKind is what denials without a leaf of their own are counted by.
type denialKind struct{ action, resource string }

// ended says why trust ended: code for the revoke leaf, words for people.
type ended struct {
	code string
	err  error
}

func newExecution(g *Governor, l *Launch, in Inputs, parent string) *Execution {
	l.ID = NewID()
	return &Execution{
		ID: l.ID, Parent: parent, Request: l.Request, governor: g, launch: l, inputs: in,
		state: Requested, session: in.Session, counts: map[string]int{}, unleaved: map[denialKind]int{}, ended: make(chan ended, 1),
	}
}

// stage completes the launch with what was decided. An enforcer that can builds
// its walls from now on; nothing runs in them before Launch.
func (x *Execution) stage(ctx context.Context) {
	l := x.launch
	l.Rights, l.Gate, l.Lease = x.rights, x, x.governor.Lease
	l.Env = append(x.rights.Scrub(l.Env), ExecutionVariable+"="+x.ID)
	l.Ready = func(a Applied) error { return x.started(ctx, a) }
	if s, ok := x.governor.Enforcer.(Stager); ok {
		s.Stage(ctx, l)
	}
}

// move takes the execution to another state or panics: a transition that is
// not in the table is a defect of the flow, and going on would be worse.
func (x *Execution) move(to State) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Contains(transitions[x.state], to) {
		panic(fmt.Sprintf("execution %s: no transition from %s to %s", x.ID, x.state, to))
	}
	x.state = to
}

// State tells where the execution stands.
func (x *Execution) State() State {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state
}

// end ends trust; the first reason stands. It never blocks.
func (x *Execution) end(code string, err error) {
	select {
	case x.ended <- ended{code, err}:
	default:
	}
}

// snapshot copies the session for a decision or evidence.
func (x *Execution) snapshot() Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.session
	s.Labels = slices.Clone(s.Labels)
	return s
}

// observe brings what enforcement measured and the session together.
func (x *Execution) observe(ev *Evidence) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.session.Processes = max(x.session.Processes, ev.Processes)
	if x.launch.BytesOut != nil {
		x.session.BytesOut = x.launch.BytesOut()
	}
	ev.Session = x.session
	ev.Session.Labels = slices.Clone(x.session.Labels)
}

// active is the decision point that rules now.
func (x *Execution) active() Decider {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.decider
}
