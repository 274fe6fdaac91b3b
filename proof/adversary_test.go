package proof_test

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// forgery bends an execution before it is sealed (plan), the proof that was
// built of it (bundle), or what the verifier trusts; whichever is set.
type forgery struct {
	name   string
	plan   func(*prooftest.World, *prooftest.Plan)
	record func(*prooftest.World, *prooftest.Run)
	bundle func(*prooftest.World, *prooftest.Run, *proof.Proof)
	trust  func(*prooftest.World, *proof.Trust)
	// check is the line that must tell, with this status and, in its detail,
	// these words.
	check  string
	status proof.Status
	words  string
	// verdict is NotValid where it is not given.
	verdict proof.Verdict
}

func at(p *prooftest.Plan, k exeq.Kind) int {
	return slices.IndexFunc(p.Drafts, func(d prooftest.Draft) bool { return d.Leaf.Kind == k })
}

func newKey() (exeq.Signer, ed25519.PublicKey) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return stranger{key}, pub
}

// stranger signs with a key that nobody trusts.
type stranger struct{ key ed25519.PrivateKey }

func (s stranger) KeyID() string        { return exeq.KeyID(s.key.Public().(ed25519.PublicKey)) }
func (s stranger) Sign(m []byte) []byte { return ed25519.Sign(s.key, m) }

var forgeries = []forgery{
	{name: "truncated tail", bundle: func(_ *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		p.Leaves = p.Leaves[:len(p.Leaves)-1]
		drop(p, r.Entries[len(r.Entries)-1].Leaf.ID)
	}, check: proof.CheckSealed, status: proof.CannotTell, words: "withheld", verdict: proof.Unknown},
	{name: "end left out of receipts", bundle: func(_ *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		id := r.Entries[len(r.Entries)-1].Leaf.ID
		p.Receipts = slices.DeleteFunc(p.Receipts, func(x exeq.Receipt) bool { return x.Leaf == id })
	}, check: proof.CheckInLog, status: proof.CannotTell, words: "no receipt of: end", verdict: proof.Unknown},
	{name: "leaf in the middle left out", bundle: func(_ *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		p.Leaves = slices.Delete(p.Leaves, 3, 4)
		drop(p, r.Entries[3].Leaf.ID)
	}, check: proof.CheckChain, status: proof.Failed, words: "does not follow"},
	{name: "leaves reordered", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Leaves[3], p.Leaves[4] = p.Leaves[4], p.Leaves[3]
	}, check: proof.CheckChain, status: proof.Failed, words: "does not follow"},
	{name: "leaf twice", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Leaves = slices.Insert(p.Leaves, 3, p.Leaves[3])
	}, check: proof.CheckChain, status: proof.Failed, words: "twice"},
	{name: "receipt of another leaf", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Receipts[0].Proof, p.Receipts[1].Proof = p.Receipts[1].Proof, p.Receipts[0].Proof
	}, check: proof.CheckInLog, status: proof.Failed, words: "not at that index"},
	{name: "receipt of a leaf that is not there", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Receipts[0].Leaf = exeq.NewID()
	}, check: proof.CheckInLog, status: proof.Failed, words: "no such leaf"},
	{name: "receipt twice", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Receipts = append(p.Receipts, p.Receipts[0])
	}, check: proof.CheckInLog, status: proof.Failed, words: "second"},
	{name: "promise of another batch", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		p.Promise = w.Promises(exeq.At(w.Now), []byte("another leaf"), []byte("and one more"))[0]
	}, check: proof.CheckRecorded, status: proof.Failed, words: "not in the batch"},
	{name: "promise by another key", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		p.Promise = prooftest.New(w.TB).Promises(exeq.At(w.Now), r.Entries[0].Bytes)[0]
	}, check: proof.CheckRecorded, status: proof.Failed, words: "promise"},
	{name: "promised after the start", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		p.Promise = w.Promises(exeq.At(w.Now.Add(time.Hour)), r.Entries[0].Bytes)[0]
	}, check: proof.CheckRecorded, status: proof.Failed, words: "promised at"},
	{name: "no promise", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Promise = exeq.Promise{Path: []exeq.Digest{}}
	}, check: proof.CheckRecorded, status: proof.Failed, words: "promise"},
	{name: "two starts", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts = slices.Insert(p.Drafts, 2, p.Drafts[1])
	}, check: proof.CheckSingleUse, status: proof.Failed, words: "2 times"},
	{name: "two ends", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts = append(p.Drafts, p.Drafts[len(p.Drafts)-1])
	}, check: proof.CheckChain, status: proof.Failed, words: "ends the execution and others follow"},
	{name: "leaf after the end", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts = append(p.Drafts, p.Drafts[at(p, exeq.KindActivity)])
	}, check: proof.CheckChain, status: proof.Failed, words: "others follow"},
	{name: "activity before the start", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[1], p.Drafts[2] = p.Drafts[2], p.Drafts[1]
	}, check: proof.CheckChain, status: proof.Failed, words: "before the start"},
	{name: "time runs backwards", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Leaf.Time = exeq.At(p.Drafts[0].Leaf.Time.Add(-time.Hour))
	}, check: proof.CheckChain, status: proof.Failed, words: "backwards"},
	{name: "signed by a stranger", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		s, _ := newKey()
		p.Drafts[len(p.Drafts)-1].Signer = s
	}, check: proof.CheckChain, status: proof.Failed, words: "another node"},
	{name: "issuer signs for the node", plan: func(w *prooftest.World, p *prooftest.Plan) {
		for i := range p.Drafts[1:] {
			p.Drafts[i+1].Signer = w.Ring.Signer(exeq.RoleIssuer)
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "not trusted as node"},
	{name: "unsigned leaf", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Signer = nil
	}, check: proof.CheckChain, status: proof.Failed, words: "another node"},
	{name: "leaf of another execution", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Leaf.Execution, p.Drafts[3].Leaf.Seq, p.Drafts[3].Loose = exeq.NewID(), 3, true
	}, check: proof.CheckChain, status: proof.Failed, words: "another execution"},
	{name: "permit of another execution", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.ID = exeq.NewID()
	}, check: proof.CheckSignature, status: proof.Failed, words: "another execution"},
	{name: "permit by a stranger", plan: func(w *prooftest.World, p *prooftest.Plan) {
		other := prooftest.New(w.TB)
		permit, err := other.Issuer.Issue(p.ID, p.Request, p.Inputs, &p.Decision, p.Rights, "")
		if err != nil {
			w.TB.Fatal(err)
		}
		p.Drafts[0].Private["permit"] = string(permit.Envelope)
		p.Drafts[1].Private["permitDigest"] = exeq.LeafHash(permit.Envelope)
	}, check: proof.CheckSignature, status: proof.Failed, words: "not trusted as issuer"},
	{name: "permit edited after signing", plan: func(w *prooftest.World, p *prooftest.Plan) {
		var e exeq.Envelope
		if err := json.Unmarshal(p.Permit.Envelope, &e); err != nil {
			w.TB.Fatal(err)
		}
		payload, _ := base64.StdEncoding.DecodeString(e.Payload)
		e.Payload = base64.StdEncoding.EncodeToString([]byte(strings.Replace(string(payload), `"leaseMillis":3000`, `"leaseMillis":9000`, 1)))
		b, err := json.Marshal(map[string]any{"payload": e.Payload, "payloadType": e.PayloadType, "signatures": e.Signatures})
		if err != nil || string(b) == string(p.Permit.Envelope) {
			w.TB.Fatal("nothing was edited", err)
		}
		p.Drafts[0].Private["permit"] = string(b)
		p.Drafts[1].Private["permitDigest"] = exeq.LeafHash(b)
	}, check: proof.CheckSignature, status: proof.Failed, words: "does not verify"},
	{name: "permit for another node", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, pub := newKey()
		w.Key(exeq.RoleNode, keyring.EventAdd, pub)
		for i := range p.Drafts[1:] {
			p.Drafts[i+1].Signer = s
		}
	}, check: proof.CheckAudience, status: proof.Failed, words: "another node"},
	{name: "permit for another boot", plan: func(w *prooftest.World, p *prooftest.Plan) {
		a := w.Audience
		a.BootID = "11111111-8f3c-4be0-9a0a-7a1a0c9d8e11"
		p.Drafts[1].Private["audience"] = a
	}, check: proof.CheckAudience, status: proof.Failed, words: "another boot"},
	{name: "start commits to another permit", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[1].Private["permitDigest"] = exeq.Digest{1}
	}, check: proof.CheckDigest, status: proof.Failed, words: "another permitDigest"},
	{name: "started outside of the window", plan: func(w *prooftest.World, p *prooftest.Plan) {
		for i := range p.Drafts[1:] {
			l := &p.Drafts[i+1].Leaf
			l.Time = exeq.At(l.Time.Add(time.Hour))
		}
	}, check: proof.CheckRecorded, status: proof.Failed, words: "outside the permit's"},
	{name: "another request than permitted", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		r := *p.Request
		r.Argv = []string{"bash", "-c", "curl evil"}
		p.Drafts[0].Private["request"] = r
	}, check: proof.CheckDigest, status: proof.Failed, words: "not the one that the permit is for"},
	{name: "other inputs than permitted", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		in := *p.Inputs
		in.Risk = 99
		p.Drafts[0].Private["inputs"] = in
	}, check: proof.CheckDigest, status: proof.Failed, words: "inputs"},
	{name: "wider rights than permitted", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		r := *p.Rights
		r.Endpoints = []exeq.Endpoint{{Host: "*"}}
		p.Drafts[0].Private["rights"] = r
	}, check: proof.CheckDigest, status: proof.Failed, words: "rights"},
	{name: "another verdict than decided", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		d := p.Decision
		d.Policies = []string{"made-up"}
		p.Drafts[0].Private["decision"] = d
	}, check: proof.CheckDigest, status: proof.Failed, words: "decision and permit differ"},
	{name: "policy source of another set", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Source = json.RawMessage(strings.Replace(string(p.Source), "/usr/bin", "/usr/lib", 1))
	}, check: proof.CheckReplay, status: proof.Failed, words: "not of the set"},
	{name: "value disclosed that was not committed to", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		i := slices.IndexFunc(p.Disclosures, func(d exeq.Disclosure) bool { return d.Field == "exit" })
		p.Disclosures[i].Value = json.RawMessage(`{"code":1}`)
	}, check: proof.CheckDigest, status: proof.Failed, words: "does not open"},
	{name: "disclosed twice", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Disclosures = append(p.Disclosures, p.Disclosures[0])
	}, check: proof.CheckDigest, status: proof.Failed, words: "salt was used before"},
	{name: "disclosure under another leaf", bundle: func(_ *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		i := slices.IndexFunc(p.Disclosures, func(d exeq.Disclosure) bool { return d.Field == "exit" })
		p.Disclosures[i].Leaf = r.Entries[0].Leaf.ID
	}, check: proof.CheckDigest, status: proof.Failed, words: "no such commitment"},
	{name: "policy activated after the permit", record: func(w *prooftest.World, r *prooftest.Run) {
		w.Context = w.Context[:len(w.Context)-1]
		e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPolicy, Body: exeq.LeafBody{Event: "activate"}},
			map[string]any{"policySet": w.Set.PolicySet()}, w.Ring.Signer(exeq.RoleIssuer))
		if err != nil {
			w.TB.Fatal(err)
		}
		w.Context = append(w.Context, e)
		w.Log.Append(e.Bytes)
	}, check: proof.CheckReplay, status: proof.Failed, words: "after the permit"},
	{name: "tier below the floor", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Rights.TierFloor = exeq.TierKernel
		permit, err := w.Issuer.Issue(p.ID, p.Request, p.Inputs, &p.Decision, p.Rights, "")
		if err != nil {
			w.TB.Fatal(err)
		}
		p.Drafts[0].Private["permit"] = string(permit.Envelope)
		p.Drafts[1].Private["permitDigest"] = exeq.LeafHash(permit.Envelope)
	}, check: proof.CheckEnforced, status: proof.Failed, words: "tier rootless is below the permit's floor kernel"},
	{name: "another tier than was applied", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[1].Leaf.Body.Tier = exeq.TierKernel
	}, check: proof.CheckEnforced, status: proof.Failed, words: "differs"},
	{name: "no canary", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		a := p.Drafts[1].Private["applied"].(exeq.Applied)
		a.Canary = ""
		p.Drafts[1].Private["applied"] = a
	}, check: proof.CheckEnforced, status: proof.Failed, words: "canary"},
	{name: "gap in the ticks", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[at(p, exeq.KindAppraisal)].Leaf.Body.FirstTick = 2
	}, check: proof.CheckLease, status: proof.Failed, words: "tick 0 is followed by tick 2"},
	{name: "gap longer than the lease", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[at(p, exeq.KindAppraisal)].Leaf.Body.MaxGap = 3001
	}, check: proof.CheckLease, status: proof.Failed, words: "3001 ms"},
	{name: "three ticks for an hour", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		for i := at(p, exeq.KindAppraisal); i < len(p.Drafts); i++ {
			p.Drafts[i].Leaf.Time = exeq.At(p.Drafts[i].Leaf.Time.Add(time.Hour))
		}
	}, check: proof.CheckLease, status: proof.Failed, words: "do not cover"},
	{name: "an hour behind the last renewal", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		l := &p.Drafts[len(p.Drafts)-1].Leaf
		l.Time = exeq.At(l.Time.Add(time.Hour))
	}, check: proof.CheckLease, status: proof.Failed, words: "not renewed"},
	{name: "goes on after a failed appraisal", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		i := at(p, exeq.KindAppraisal)
		d := p.Drafts[i]
		p.Drafts[i].Leaf.Body.Failed = []string{"program /usr/bin/ld changed"}
		d.Leaf.Body.FirstTick, d.Leaf.Body.LastTick = 4, 5
		p.Drafts = slices.Insert(p.Drafts, i+1, d)
	}, check: proof.CheckLease, status: proof.Failed, words: "after one that failed"},
	{name: "another lease than permitted", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[1].Leaf.Body.LeaseMillis = 60000
	}, check: proof.CheckLease, status: proof.Failed, words: "60000 ms"},
	{name: "activities missing", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		i := at(p, exeq.KindActivity)
		p.Drafts = slices.Delete(p.Drafts, i, i+1)
	}, check: proof.CheckActivities, status: proof.Failed, words: "the end counts 4 of exec, the leaves hold 1"},
	{name: "entries that the root does not cover", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[at(p, exeq.KindActivity)].Leaf.Body.Root = exeq.Digest{9}
	}, check: proof.CheckActivities, status: proof.Failed, words: "not those that its root covers"},
	{name: "counts that the entries belie", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[at(p, exeq.KindActivity)].Leaf.Body.Counts = map[string]int{"exec": 2, "connect": 1}
	}, check: proof.CheckActivities, status: proof.Failed, words: "counts"},
	{name: "unknown kind", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		d := p.Drafts[3]
		d.Leaf.Kind, d.Private = "telepathy", nil
		p.Drafts = slices.Insert(p.Drafts, 3, d)
	}, check: proof.CheckChain, status: proof.CannotTell, words: "telepathy", verdict: proof.Unknown},
	{name: "log of another installation", trust: func(w *prooftest.World, t *proof.Trust) {
		o := prooftest.New(w.TB).Trust()
		t.Origin, t.Log, t.Promise = o.Origin, o.Log, o.Promise
	}, check: proof.CheckInLog, status: proof.Failed, words: "receipt"},
	{name: "fork: the same size, another root", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		fork := prooftest.NewLog(w.Ring.NoteSigner(exeq.RoleLog))
		for _, b := range w.Log.Leaves {
			if string(b) == string(r.Entries[3].Bytes) {
				b = []byte("something else")
			}
			fork.Append(b)
		}
		p.Receipts[0].Proof = fork.Receipt(w.Log.Find(r.Entries[0].Bytes), fork.Size())
	}, check: proof.CheckInLog, status: proof.Failed, words: "forked"},
	{name: "rewritten since the permit was issued", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		fork := prooftest.NewLog(w.Ring.NoteSigner(exeq.RoleLog))
		fork.Append([]byte("this was not there"))
		for _, b := range w.Log.Leaves {
			fork.Append(b)
		}
		for i := range p.Receipts {
			for _, b := range append(append([]string{}, p.Leaves...), p.Context...) {
				if l, err := exeq.ParseLeaf([]byte(b)); err == nil && l.ID == p.Receipts[i].Leaf {
					p.Receipts[i].Proof = fork.Receipt(fork.Find([]byte(b)), fork.Size())
				}
			}
		}
	}, check: proof.CheckConsistent, status: proof.Failed, words: "does not extend"},
	{name: "node key retired before", record: func(w *prooftest.World, r *prooftest.Run) {},
		plan: func(w *prooftest.World, _ *prooftest.Plan) {
			w.Key(exeq.RoleNode, keyring.EventRetire, w.Ring.Public(exeq.RoleNode))
		}, check: proof.CheckChain, status: proof.Failed, words: "was retired at index 5"},
	{name: "issuer key compromised before", plan: func(w *prooftest.World, _ *prooftest.Plan) {
		w.Key(exeq.RoleIssuer, keyring.EventCompromised, w.Ring.Public(exeq.RoleIssuer))
	}, check: proof.CheckSignature, status: proof.Failed, words: "marked compromised at index 5"},
	{name: "issuer key compromised, the trust file knows, the proof is silent", trust: func(_ *prooftest.World, t *proof.Trust) {
		at := int64(2)
		for i := range t.Keys {
			if t.Keys[i].Role == exeq.RoleIssuer {
				t.Keys[i].Compromised = &at
			}
		}
	}, check: proof.CheckSignature, status: proof.Failed, words: "marked compromised at index 2"},
	{name: "key added by a stranger", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, pub := newKey()
		e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindKey, Body: exeq.LeafBody{
			Role: exeq.RoleNode, Event: "add", PublicKey: base64.StdEncoding.EncodeToString(pub)}}, nil, s)
		if err != nil {
			w.TB.Fatal(err)
		}
		w.Context = append(w.Context, e)
		w.Log.Append(e.Bytes)
		for i := range p.Drafts[1:] {
			p.Drafts[i+1].Signer = s
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "not trusted as issuer"},
	{name: "not witnessed and it is required", trust: func(_ *prooftest.World, t *proof.Trust) {
		x := prooftest.NewWitness("w.example/1")
		t.Witnesses = "witness w " + x.VKey() + "\nquorum w\n"
		t.Require = append(t.Require, proof.CheckWitnessed)
	}, check: proof.CheckWitnessed, status: proof.Failed, words: "did not cosign"},
	{name: "two of three witnesses, one has signed", trust: func(w *prooftest.World, t *proof.Trust) {
		a, b := prooftest.NewWitness("w.example/2"), prooftest.NewWitness("w.example/3")
		t.Witnesses = "witness a " + w.Witnesses[0].VKey() + "\nwitness b " + a.VKey() + "\nwitness c " + b.VKey() +
			"\ngroup g 2 a b c\nquorum g\n"
		t.Require = append(t.Require, proof.CheckWitnessed)
	}, plan: func(w *prooftest.World, _ *prooftest.Plan) {
		w.Witnesses = []*prooftest.Witness{prooftest.NewWitness("w.example/1")}
	}, check: proof.CheckWitnessed, status: proof.Failed, words: "did not cosign"},
	{name: "single use cannot be required of one proof", trust: func(_ *prooftest.World, t *proof.Trust) {
		t.Require = append(t.Require, proof.CheckSingleUse)
	}, check: proof.CheckSingleUse, status: proof.NeedsMonitor, words: "walk of the log", verdict: proof.Unknown},
}

// drop takes receipts and disclosures of a leaf out.
func drop(p *proof.Proof, leaf string) {
	p.Receipts = slices.DeleteFunc(p.Receipts, func(r exeq.Receipt) bool { return r.Leaf == leaf })
	p.Disclosures = slices.DeleteFunc(p.Disclosures, func(d exeq.Disclosure) bool { return d.Leaf == leaf })
}

func TestForgeries(t *testing.T) {
	for _, f := range forgeries {
		t.Run(f.name, f.test)
	}
}

func (f forgery) test(t *testing.T) {
	w := prooftest.New(t)
	plan := w.Plan()
	if f.plan != nil {
		f.plan(w, plan)
	}
	run := w.Seal(plan)
	if f.record != nil {
		f.record(w, run)
	}
	p := forgeable(w, run)
	if f.bundle != nil {
		f.bundle(w, run, p)
	}
	tr := w.Trust()
	if f.trust != nil {
		f.trust(w, tr)
	}
	r, err := proof.Verify(p, tr, proof.Options{Replay: prooftest.Replay})
	if err != nil {
		t.Fatal(err)
	}
	want := f.verdict
	if want == "" {
		want = proof.NotValid
	}
	l := r.Line(f.check)
	if r.Verdict != want || l.Status != f.status || !strings.Contains(l.Detail, f.words) {
		t.Fatalf("want %s, %q %s (…%s…); got\n%s", want, f.check, f.status, f.words, r.Text())
	}
}

// forgeable bundles what Build, which parses strictly, would refuse.
func forgeable(w *prooftest.World, run *prooftest.Run) *proof.Proof {
	m := w.Material(run)
	p, err := proof.Build(m, proof.DiscloseAll)
	if err == nil {
		return p
	}
	p = &proof.Proof{Version: 1, Execution: run.Plan.ID, Promise: m.Promise, Receipts: m.Receipts, Consistency: m.Consistency, Disclosures: m.Disclosures, Source: m.Source}
	for _, b := range m.Leaves {
		p.Leaves = append(p.Leaves, string(b))
	}
	for _, b := range m.Context {
		p.Context = append(p.Context, string(b))
	}
	place := map[string]int{}
	for _, e := range append(run.Entries[:len(run.Entries):len(run.Entries)], w.Context...) {
		place[e.Leaf.ID] = len(place)
	}
	slices.SortFunc(p.Disclosures, func(x, y exeq.Disclosure) int {
		return cmp.Or(place[x.Leaf]-place[y.Leaf], strings.Compare(x.Field, y.Field))
	})
	return p
}
