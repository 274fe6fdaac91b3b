package prooftest

import (
	"encoding/base64"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/proof"
)

// Draft is a leaf before it is sealed.
type Draft struct {
	Leaf    exeq.Leaf
	Private map[string]any
	Signer  exeq.Signer // nil for a permit
	// Loose leaves Seq, Prev and Execution as the draft has them.
	Loose bool
	// Before happens before the leaf enters the log; nil: nothing does.
	Before func()
}

// Plan is an execution before it is recorded. Bend it, then Seal.
type Plan struct {
	ID       string
	Request  *exeq.Request
	Inputs   *exeq.Inputs
	Decision exeq.Decision
	Rights   *exeq.Rights
	Permit   *exeq.Permit
	Drafts   []Draft
}

// Run is an execution on record.
type Run struct {
	Plan    *Plan
	Entries []exeq.Entry
	Promise exeq.Promise
}

// Request is one that the world's policy permits.
func Request() *exeq.Request {
	return &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "dev"}, Action: exeq.ActionRun,
		Resource: exeq.Resource{Type: "Program", ID: "/usr/bin/bash", SHA256: exeq.Digest{7, 1}},
		Argv:     []string{"bash", "-c", "make test"}, Dir: "/home/u/app",
		Context: exeq.Context{Workspace: "/home/u/app", Home: "/home/u", Tmp: "/tmp/exeq-1", Command: "bash -c make test",
			Claimed: map[string]string{"intent": "run the tests"}},
	}
}

// Plan decides, permits and drafts an execution of a few seconds: permit,
// start, activities of two ticks, a denied one, an appraisal, the end.
func (w *World) Plan() *Plan {
	w.TB.Helper()
	ctx := w.TB.Context()
	p := &Plan{ID: exeq.NewID(), Request: Request(), Inputs: &exeq.Inputs{
		Tier: exeq.TierRootless, Risk: 10, Session: exeq.Session{Labels: []string{}}, Time: w.Tick(time.Second),
	}}
	var err error
	p.Decision, err = w.Set.Decide(ctx, p.Request, p.Inputs)
	check(w.TB, err)
	if !p.Decision.Verdict.Permits() {
		w.TB.Fatalf("the policy denies the test's request: %s", p.Decision.Reason)
	}
	p.Rights, err = w.Set.Compile(ctx, p.Request, p.Inputs, p.Decision)
	check(w.TB, err)
	p.Permit, err = w.Issuer.Issue(p.ID, p.Request, p.Inputs, &p.Decision, p.Rights, "")
	check(w.TB, err)
	applied := exeq.Applied{
		Tier: exeq.TierRootless, LandlockABI: 7, Canary: "exec outside the store", Downgrades: []string{"unix sockets by path"},
		Seen: map[string]string{"exec": "all", "map": "all", "read": "none", "write": "denials", "connect": "all"},
		Environment: exeq.Environment{BootID: w.Audience.BootID, UID: 1000, Seccomp: "filter", NoNewPrivs: true, Landlock: 7,
			Namespaces: map[string]string{"mnt": "mnt:[4026532001]"}},
	}
	node := w.Ring.Signer(exeq.RoleNode)
	draft := func(kind exeq.Kind, after time.Duration, b exeq.LeafBody, private map[string]any, s exeq.Signer) {
		p.Drafts = append(p.Drafts, Draft{Leaf: exeq.Leaf{Kind: kind, Time: w.Tick(after), Actor: "a3f0", Body: b}, Private: private, Signer: s})
	}
	draft(exeq.KindPermit, 0, exeq.LeafBody{Verdict: p.Decision.Verdict, Policies: p.Decision.Policies}, map[string]any{
		"permit": string(p.Permit.Envelope), "request": p.Request, "inputs": p.Inputs, "decision": p.Decision,
		"policySet": p.Decision.PolicySet, "rights": p.Rights,
	}, nil)
	draft(exeq.KindStart, 20*time.Millisecond, exeq.LeafBody{Tier: applied.Tier, LandlockABI: 7, Seen: applied.Seen, LeaseMillis: 3000},
		map[string]any{"applied": applied, "audience": w.Audience, "permitDigest": exeq.LeafHash(p.Permit.Envelope)}, node)
	w.activities(p, node, time.Second, "", "/usr/bin/make", "/usr/bin/git", "/usr/bin/cc")
	w.activities(p, node, time.Second, exeq.Deny, "/usr/bin/sudo")
	w.activities(p, node, time.Second, "", "/usr/bin/ld")
	draft(exeq.KindAppraisal, 100*time.Millisecond, exeq.LeafBody{FirstTick: 1, LastTick: 3, MaxGap: 1040}, nil, node)
	draft(exeq.KindEnd, 5*time.Millisecond, exeq.LeafBody{Code: "exited", Counts: map[string]int{"exec": 4}},
		map[string]any{"exit": exeq.Exit{Code: 0}}, node)
	return p
}

// activities drafts one activity leaf over execs.
func (w *World) activities(p *Plan, s exeq.Signer, after time.Duration, v exeq.Verdict, programs ...string) {
	at := w.Tick(after)
	var opened []exeq.SealedEntry
	var hs []exeq.Digest
	for i, path := range programs {
		verdict := v
		if verdict == "" {
			verdict = exeq.Allow
		}
		e := exeq.SealedEntry{Salt: fmt.Sprintf("%016x%016x", at.UnixNano(), i), Entry: exeq.ActivityEntry{
			Time: at, Verdict: verdict, Activity: exeq.Activity{Action: exeq.ActionExec, Argv: []string{path}, Dir: "/home/u/app",
				Resource: exeq.Resource{Type: "Program", ID: path, SHA256: exeq.Digest{byte(i + 1)}}},
		}}
		h, err := e.Hash()
		check(w.TB, err)
		opened, hs = append(opened, e), append(hs, h)
	}
	p.Drafts = append(p.Drafts, Draft{
		Leaf: exeq.Leaf{Kind: exeq.KindActivity, Time: at, Actor: "a3f0", Body: exeq.LeafBody{
			Verdict: v, Entries: len(opened), Root: exeq.MerkleRoot(hs), Counts: map[string]int{"exec": len(opened)},
		}}, Private: map[string]any{"entries": opened}, Signer: s,
	})
}

// Seal signs and links the drafts, promises the permit's leaf beside a
// neighbour, and puts all into the log in their order.
func (w *World) Seal(p *Plan) *Run {
	w.TB.Helper()
	r := &Run{Plan: p}
	prev := exeq.Digest{}
	for i, d := range p.Drafts {
		l := d.Leaf
		if !d.Loose {
			l.Execution, l.Seq, l.Prev = p.ID, i, prev
		}
		e, err := exeq.NewEntry(l, d.Private, d.Signer)
		check(w.TB, err)
		prev = exeq.LeafHash(e.Bytes)
		r.Entries = append(r.Entries, e)
	}
	r.Promise = w.Promises(p.Drafts[0].Leaf.Time, r.Entries[0].Bytes, []byte("a neighbour in the batch"))[0]
	for i, e := range r.Entries {
		if before := p.Drafts[i].Before; before != nil {
			before()
		}
		w.Log.Append(e.Bytes)
	}
	return r
}

// Promises signs one batch.
func (w *World) Promises(at exeq.Time, leaves ...[]byte) []exeq.Promise {
	w.TB.Helper()
	batch := NewLog(nil)
	for _, b := range leaves {
		batch.Append(b)
	}
	root := batch.Root(batch.Size())
	signer := w.Ring.NoteSigner(exeq.RolePromise)
	text := fmt.Sprintf("%s\n%d\n%s\ntime %d\n", signer.Name(), len(leaves), base64.StdEncoding.EncodeToString(root[:]), at.UnixMilli())
	b, err := note.Sign(&note.Note{Text: text}, signer)
	check(w.TB, err)
	out := make([]exeq.Promise, len(leaves))
	for i := range leaves {
		out[i] = exeq.Promise{Note: string(b), Index: i, Path: batch.path(int64(i))}
	}
	return out
}

func (l *Log) path(i int64) []exeq.Digest {
	p, err := tlog.ProveRecord(l.Size(), i, l.reader())
	if err != nil {
		panic(err) // only for an index outside of the log
	}
	return digests(p)
}

// Material gathers what a record would give to proof.Build, as of now.
func (w *World) Material(r *Run) *proof.Material {
	w.TB.Helper()
	m := &proof.Material{Promise: r.Promise, Source: canonical(w.TB, w.Set.Source())}
	n := w.Log.Size()
	receipt := func(e exeq.Entry) {
		if i := w.Log.Find(e.Bytes); i >= 0 {
			m.Receipts = append(m.Receipts, exeq.Receipt{Leaf: e.Leaf.ID, Proof: w.Log.Receipt(i, n, w.Witnesses...)})
		}
	}
	for i, e := range r.Entries {
		m.Leaves = append(m.Leaves, e.Bytes)
		m.Disclosures = append(m.Disclosures, e.Disclosures...)
		if i == 0 || e.Leaf.Kind == exeq.KindStart || i == len(r.Entries)-1 {
			receipt(e)
		}
	}
	for _, e := range w.Context {
		m.Context = append(m.Context, e.Bytes)
		m.Disclosures = append(m.Disclosures, e.Disclosures...)
		receipt(e)
	}
	var size int64
	if _, err := fmt.Sscanf(r.Plan.Permit.Body.Checkpoint, "%d:", &size); err == nil {
		m.Consistency = w.Log.Consistency(size, n)
	}
	return m
}

// Proof seals a genuine execution and bundles it, everything disclosed.
func (w *World) Proof() *proof.Proof {
	w.TB.Helper()
	return w.Bundle(w.Seal(w.Plan()))
}

// Bundle builds the proof of a run, everything disclosed unless names are given.
func (w *World) Bundle(r *Run, disclose ...string) *proof.Proof {
	w.TB.Helper()
	if len(disclose) == 0 {
		disclose = []string{proof.DiscloseAll}
	}
	p, err := proof.Build(w.Material(r), disclose...)
	check(w.TB, err)
	return p
}
