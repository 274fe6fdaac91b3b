package exeq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// rig is a governor whose parts note what happened and fail on demand.
type rig struct {
	mu     sync.Mutex
	events []string
	leaves []Leaf

	verdict    Verdict
	decideErr  error
	compileErr error
	withinErr  error
	issueErr   error
	recordErr  map[Kind]error // fails without persisting
	persistErr map[Kind]error // persists, then says that it failed
	admitErr   error
	launchErr  error
	floor      Tier
	failed     []string // what the appraiser finds

	set     Digest
	narrow  bool          // compiled rights lose their write
	exit    chan struct{} // closed when the tree is gone
	revoke  chan Revocation
	ticked  chan struct{}
	killed  string
	ask     []Activity // what the workload does before it exits by itself
	tick    time.Duration
	stay    bool // the workload runs until it is killed
	lapsed  error
	renew   error
	rulings []Ruling

	leavesOfDenials int
	opened          []ActivityEntry // of activity leaves
}

func newRig() *rig {
	return &rig{verdict: Allow, exit: make(chan struct{}), revoke: make(chan Revocation, 1), ticked: make(chan struct{}, 100),
		recordErr: map[Kind]error{}, persistErr: map[Kind]error{}, set: LeafHash([]byte("set 1")), floor: TierRootless}
}

func (r *rig) note(e string) { r.mu.Lock(); r.events = append(r.events, e); r.mu.Unlock() }

func (r *rig) Active(context.Context) (Decider, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return decider{r, r.set}, nil
}

type decider struct {
	r   *rig
	set Digest
}

func (d decider) PolicySet() Digest { return d.set }
func (d decider) Decide(_ context.Context, q *Request, in *Inputs) (Decision, error) {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	out := Decision{Verdict: d.r.verdict, Policies: []string{"p"}, PolicySet: d.set, Static: true}
	if q.Action == ActionRead {
		out.Labels = []string{"pii"}
	}
	if q.Action == ActionConnect && slices.Contains(in.Session.Labels, "pii") {
		out.Verdict = Deny
	}
	return out, d.r.decideErr
}
func (d decider) Compile(context.Context, *Request, *Inputs, Decision) (*Rights, error) {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	a := Access{Read: true, Write: !d.r.narrow}
	return &Rights{Version: 1, TierFloor: d.r.floor, Cells: []Cell{{"/", a, a}}}, d.r.compileErr
}

func (r *rig) Issue(id string, q *Request, in *Inputs, d *Decision, rights *Rights, parent string) (*Permit, error) {
	r.note("issue")
	from, err := NewGrounds(q, in, rights)
	return &Permit{Envelope: []byte("{}"), Body: PermitBody{ID: id}, Grounds: from}, errors.Join(err, r.issueErr)
}
func (r *rig) Renew(permit string, seq uint64, ch string, p time.Duration) (Renewal, error) {
	return Renewal{Permit: permit, Sequence: seq, Challenge: ch, Millis: p.Milliseconds()}, nil
}
func (r *rig) Revoke(string, string, Time) (Revocation, error) { return Revocation{}, nil }
func (r *rig) Record(_ context.Context, es ...Entry) ([]Promise, error) {
	for _, e := range es {
		k := e.Leaf.Kind
		if err := r.recordErr[k]; err != nil {
			return nil, err
		}
		r.note("record " + string(k))
		r.mu.Lock()
		r.leaves = append(r.leaves, e.Leaf)
		for _, d := range e.Disclosures {
			var all []SealedEntry
			if d.Field == "entries" && json.Unmarshal(d.Value, &all) == nil {
				for _, s := range all {
					r.opened = append(r.opened, s.Entry)
				}
			}
		}
		r.mu.Unlock()
		if err := r.persistErr[k]; err != nil {
			return nil, err
		}
	}
	return make([]Promise, len(es)), nil
}
func (r *rig) Admit(context.Context, *Permit, *PermitRecord, *Request, *Rights) error {
	r.note("admit")
	return r.admitErr
}
func (r *rig) CheckRenewal(string) func(Renewal) error { return func(Renewal) error { return nil } }
func (r *rig) Tier() Tier                              { return TierRootless }
func (r *rig) launch(l *Launch) error {
	if r.launchErr != nil {
		return r.launchErr
	}
	if err := l.Ready(Applied{Tier: TierRootless}); err != nil {
		return err
	}
	r.note("release")
	go func() {
		for _, a := range r.ask {
			r.rulings = append(r.rulings, l.Gate.Ask(context.Background(), a))
		}
		if !r.stay {
			close(r.exit)
		}
	}()
	return nil
}
func (r *rig) Applied() Applied { return Applied{Tier: TierRootless} }
func (r *rig) Evidence(context.Context) (*Evidence, error) {
	select {
	case r.ticked <- struct{}{}:
	default:
	}
	return &Evidence{Challenge: "c"}, nil
}
func (r *rig) Reload(context.Context) error { r.note("reload"); return nil }
func (r *rig) Hold() error                  { return nil }
func (r *rig) Resume() error                { return nil }
func (r *rig) Stops() <-chan bool           { return nil }
func (r *rig) Kill(reason string) error {
	r.note("kill")
	r.killed = reason
	select {
	case <-r.exit: // gone already
	default:
		close(r.exit)
	}
	return nil
}
func (r *rig) Exited()                                        { <-r.exit }
func (r *rig) Lapsed() error                                  { return r.lapsed }
func (r *rig) Wait() (Exit, error)                            { return Exit{}, nil }
func (r *rig) Appraise(*Applied, *Evidence, *Rights) []string { return r.failed }
func (r *rig) KeyID() string                                  { return "k" }
func (r *rig) Sign([]byte) []byte                             { return []byte("s") }
func (r *rig) await(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		t.Fatal("no " + what)
	}
}

// running gives the rig's Running, whose Renew is not the Issuer's.
type running struct{ *rig }

func (r running) Renew(Renewal) error { return r.renew }

type enforcer struct{ *rig }

func (e enforcer) Launch(_ context.Context, l *Launch) (Running, error) {
	if err := e.launch(l); err != nil {
		return nil, err
	}
	return running{e.rig}, nil
}

func (r *rig) run(t *testing.T) (*Outcome, error) {
	t.Helper()
	g := &Governor{Policies: r, Issuer: r, Recorder: r, Admitter: r, Enforcer: enforcer{r}, Appraiser: r, IssuerKey: r, NodeKey: r,
		Actor:       func(Entity) string { return "a" },
		Revocations: func(context.Context, string) <-chan Revocation { return r.revoke },
		Log:         slog.New(slog.DiscardHandler), Tick: cmp.Or(r.tick, 5*time.Millisecond), Lease: time.Second,
		Within: func(x *Rights) (*Rights, error) { return x, r.withinErr }, DenialLeaves: r.leavesOfDenials}
	req := &Request{Subject: Entity{"Agent", "a"}, Action: ActionRun, Resource: Resource{"Program", "/bin/x", LeafHash(nil)},
		Context: Context{Workspace: "/w", Home: "/h", Tmp: "/t"}}
	return g.Run(t.Context(), &Launch{Request: req}, Inputs{Tier: TierRootless}, "")
}

func (r *rig) released() bool { return slices.Contains(r.events, "release") }

var errFault = errors.New("fault")

// TestNothingRuns makes each doubt on the way to the release happen: nothing
// may run, and the error says which kind of doubt it was.
func TestNothingRuns(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*rig)
		want  error
		state State
	}{
		{"deny", func(r *rig) { r.verdict = Deny }, ErrDenied, Denied},
		{"step_up", func(r *rig) { r.verdict = StepUp }, ErrDenied, Denied},
		{"defer", func(r *rig) { r.verdict = Defer }, ErrDenied, Denied},
		{"an allow beside an error", func(r *rig) { r.decideErr = errFault }, ErrDenied, Denied},
		{"rights do not compile", func(r *rig) { r.compileErr = errFault }, ErrDenied, Denied},
		{"rights do not narrow", func(r *rig) { r.withinErr = errFault }, ErrDenied, Denied},
		{"tier below floor", func(r *rig) { r.floor = TierKernel }, ErrDenied, Denied},
		{"no denial on record", func(r *rig) { r.verdict = Deny; r.recordErr[KindDenial] = errFault }, ErrDenied, Failed},
		{"issue", func(r *rig) { r.issueErr = errFault }, errFault, Failed},
		{"permit not recorded", func(r *rig) { r.recordErr[KindPermit] = errFault }, errFault, Failed},
		{"permit recorded, said to have failed", func(r *rig) { r.persistErr[KindPermit] = errFault }, errFault, Failed},
		{"refused by the enforcing side", func(r *rig) { r.admitErr = ErrReplayed }, ErrReplayed, Failed},
		{"launch", func(r *rig) { r.launchErr = ErrEnforce }, ErrEnforce, Failed},
		{"start not recorded", func(r *rig) { r.recordErr[KindStart] = errFault }, errFault, Failed},
		{"start recorded, said to have failed", func(r *rig) { r.persistErr[KindStart] = errFault }, errFault, Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig()
			c.fault(r)
			out, err := r.run(t)
			if !errors.Is(err, c.want) || out.State != c.state {
				t.Errorf("got state %s, error %v; want %s, %v", out.State, err, c.state, c.want)
			}
			if r.released() {
				t.Errorf("the workload was released: %q", r.events)
			}
		})
	}
}

func TestOrderOfAGoodRun(t *testing.T) {
	r := newRig()
	r.tick = time.Hour // a tick that fell into it would be on record too
	out, err := r.run(t)
	if err != nil || out.State != Sealed || out.Code != "exited" {
		t.Fatalf("%+v, %v", out, err)
	}
	want := []string{"issue", "record permit", "admit", "record start", "release", "record end"}
	if !slices.Equal(r.events, want) {
		t.Errorf("got %q, want %q", r.events, want)
	}
	checkChain(t, r.leaves)
}

func checkChain(t *testing.T, leaves []Leaf) {
	t.Helper()
	for i, l := range leaves {
		if l.Seq != i || (i == 0) != l.Prev.IsZero() {
			t.Errorf("leaf %d (%s): seq %d, prev %s", i, l.Kind, l.Seq, l.Prev)
		}
	}
}

// TestTrustEnds makes trust end while the workload runs: it is killed first,
// then the reason and the end are on record.
func TestTrustEnds(t *testing.T) {
	for _, c := range []struct {
		name, code string
		fault      func(*testing.T, *rig)
	}{
		{"revocation", "revoked", func(t *testing.T, r *rig) { r.revoke <- Revocation{Reason: "enough"} }},
		{"policy denies", "policy", func(t *testing.T, r *rig) {
			r.await(t, r.ticked, "tick")
			r.mu.Lock()
			r.set, r.verdict = LeafHash([]byte("set 2")), Deny
			r.mu.Unlock()
		}},
		{"policy gives less", "policy", func(t *testing.T, r *rig) {
			r.await(t, r.ticked, "tick")
			r.mu.Lock()
			r.set, r.narrow = LeafHash([]byte("set 2")), true
			r.mu.Unlock()
		}},
		{"appraisal", "appraisal", func(t *testing.T, r *rig) { r.failed = []string{"mounts changed"} }},
		{"denial not recorded", "record", func(t *testing.T, r *rig) { r.recordErr[KindActivity] = errFault }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig()
			r.stay = true
			if c.code == "record" {
				r.ask = []Activity{{Action: ActionRead, Resource: Resource{Type: "Path", ID: "/x"}}}
			}
			if c.code == "policy" {
				go c.fault(t, r)
			} else {
				c.fault(t, r)
			}
			out, err := r.run(t)
			if err == nil || out.Code != c.code || r.killed != c.code {
				t.Fatalf("got code %q, killed for %q, error %v; want %q", out.Code, r.killed, err, c.code)
			}
			kill := slices.Index(r.events, "kill")
			if rec := slices.Index(r.events, "record revoke"); c.code != "record" && rec < kill {
				t.Errorf("recorded before it was killed: %q", r.events)
			}
			if c.code != "record" {
				if r.events[len(r.events)-1] != "record end" {
					t.Errorf("not sealed: %q", r.events)
				}
				checkChain(t, r.leaves)
			}
			// The ticks that passed before are told, and before the end.
			told := slices.ContainsFunc(r.leaves, func(l Leaf) bool { return l.Kind == KindAppraisal && l.Body.LastTick >= 1 })
			if c.code == "policy" && !told {
				t.Errorf("the ticks before it are on no leaf: %q", r.events)
			}
		})
	}
}

// TestLeaseAndTimeAreToldApart: an execution whose wall time was up used up a
// quota; one that was not renewed lapsed. Each says so once, whether the holder
// of the lease killed it or a renewal came behind the deadline.
func TestLeaseAndTimeAreToldApart(t *testing.T) {
	upTo := error(&QuotaError{Quota: "wallSeconds", Got: 8, Max: 8})
	late := fmt.Errorf("%w: the renewal came late", ErrLapsed)
	for _, c := range []struct {
		name          string
		lapsed, renew error
		code, words   string
		failed        []string
	}{
		{"killed when the time was up", upTo, nil, "appraisal", "revoked: [quota wallSeconds: 8 of 8]", []string{"quota wallSeconds: 8 of 8"}},
		{"renewed when the time was up", nil, upTo, "appraisal", "revoked: [quota wallSeconds: 8 of 8]", []string{"quota wallSeconds: 8 of 8"}},
		{"killed for want of a renewal", errors.New("no renewal came"), nil, "lapsed", "lease lapsed: no renewal came", nil},
		{"renewed late", nil, late, "lapsed", "lease lapsed: the renewal came late", nil},
		{"refused", nil, errors.New("of another permit"), "lapsed", "lease lapsed: of another permit", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig()
			r.stay, r.lapsed, r.renew = c.renew != nil, c.lapsed, c.renew
			out, err := r.run(t)
			if err == nil || out.Code != c.code || !strings.HasPrefix(err.Error(), c.words) || strings.Count(err.Error(), "lapsed") > 1 {
				t.Errorf("code %q, %v; want %q, %s", out.Code, err, c.code, c.words)
			}
			var failed []string
			for _, l := range r.leaves {
				failed = append(failed, l.Body.Failed...)
			}
			if !slices.Equal(failed, c.failed) {
				t.Errorf("on record as failed: %q, want %q", failed, c.failed)
			}
			checkChain(t, r.leaves)
		})
	}
}

// TestEndNotRecorded: what ran and could not be sealed is never told as what did
// not run.
func TestEndNotRecorded(t *testing.T) {
	for _, of := range []func(*rig) map[Kind]error{
		func(r *rig) map[Kind]error { return r.recordErr }, func(r *rig) map[Kind]error { return r.persistErr },
	} {
		r := newRig()
		of(r)[KindEnd] = errFault
		out, err := r.run(t)
		if !errors.Is(err, ErrUnsealed) || !errors.Is(err, errFault) || out.State != Ending || !r.released() {
			t.Errorf("got state %s, error %v, events %q", out.State, err, r.events)
		}
	}
}

// TestLabelForbidsLater: a labelled read is on record before it is allowed,
// and what policy forbids after it is then denied and recorded.
func TestLabelForbidsLater(t *testing.T) {
	r := newRig()
	connect := Activity{Action: ActionConnect, Resource: Resource{Type: "Endpoint", ID: "example.com:443"}}
	r.ask = []Activity{connect, {Action: ActionRead, Resource: Resource{Type: "Path", ID: "/secret"}}, connect}
	out, err := r.run(t)
	if err != nil || out.State != Sealed {
		t.Fatalf("%+v, %v", out, err)
	}
	got := []bool{r.rulings[0].Allow, r.rulings[1].Allow, r.rulings[2].Allow}
	if !slices.Equal(got, []bool{true, true, false}) {
		t.Errorf("rulings %v", got)
	}
	if r.rulings[1].Cacheable || !strings.Contains(r.rulings[2].Message, "example.com:443") {
		t.Errorf("rulings %+v", r.rulings)
	}
	var kinds []Kind
	for _, l := range r.leaves {
		kinds = append(kinds, l.Kind)
	}
	// permit, start, the label, the denial, the first connect, end
	if want := []Kind{KindPermit, KindStart, KindActivity, KindActivity, KindActivity, KindEnd}; !slices.Equal(kinds, want) {
		t.Errorf("leaves %v, want %v", kinds, want)
	}
	checkChain(t, r.leaves)
}

// TestDenialsBeyond: of the denials of one execution so many get a leaf; of the
// others the number is on record, and every one is denied and counts.
func TestDenialsBeyond(t *testing.T) {
	r := newRig()
	r.leavesOfDenials = 3
	r.ask = []Activity{{Action: ActionRead, Resource: Resource{Type: "Path", ID: "/secret"}}}
	for range 10 {
		r.ask = append(r.ask, Activity{Action: ActionConnect, Resource: Resource{Type: "Endpoint", ID: "example.com:443"}})
	}
	out, err := r.run(t)
	if err != nil || out.State != Sealed {
		t.Fatalf("%+v, %v", out, err)
	}
	leaves, more := 0, 0
	for _, e := range r.opened {
		switch n := 0; {
		case e.Verdict.Permits():
		case e.Activity.Resource.ID == "example.com:443":
			leaves++
		default:
			if _, err := fmt.Sscanf(e.Activity.Resource.ID, "%d more denials", &n); err != nil || e.Activity.Action != ActionConnect {
				t.Errorf("%+v", e)
			}
			more += n
		}
	}
	if leaves != 3 || more != 7 {
		t.Errorf("%d denials have a leaf, %d more are told", leaves, more)
	}
	for _, ruling := range r.rulings[1:] {
		if ruling.Allow || !strings.Contains(ruling.Message, "example.com:443") {
			t.Errorf("%+v", ruling)
		}
	}
	checkChain(t, r.leaves)
}
