package monitor_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
	"github.com/exeq/exeq/proof/monitor"
)

func at(p *prooftest.Plan, k exeq.Kind) int {
	return slices.IndexFunc(p.Drafts, func(d prooftest.Draft) bool { return d.Leaf.Kind == k })
}

// walk writes the log and walks it an hour later.
func walk(t *testing.T, w *prooftest.World, bend func(*monitor.Config)) *monitor.Report {
	t.Helper()
	dir := t.TempDir()
	w.Log.Write(dir, w.Log.Size(), w.Witnesses...)
	c := monitor.Config{Trust: w.Trust(), Log: os.DirFS(dir), Now: w.Now.Add(time.Hour)}
	if bend != nil {
		bend(&c)
	}
	r, err := monitor.Walk(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestClean: genuine executions over several tiles, earlier checkpoints and
// proofs give nothing to find.
func TestClean(t *testing.T) {
	w := prooftest.New(t)
	w.Witnesses = []*prooftest.Witness{prooftest.NewWitness("w.example/1")}
	var proofs []*proof.Proof
	var seen [][]byte
	for i := range 90 {
		run := w.Seal(w.Plan())
		if i%30 == 0 {
			proofs = append(proofs, w.Bundle(run))
			seen = append(seen, w.Log.Checkpoint(w.Log.Size()))
		}
	}
	r := walk(t, w, func(c *monitor.Config) { c.Proofs, c.Seen = proofs, seen })
	if r.Verdict != proof.Valid || len(r.Findings) > 0 || r.Executions["sealed"] != 90 || r.Seen != 6 || r.Promises != 3 || len(r.Witnesses) != 1 {
		t.Fatal(r.Text())
	}
	if r.Size < 512 {
		t.Fatalf("only %d leaves: the walk must cross tiles", r.Size)
	}
}

// TestFinds: each wrong thing that is made to happen is found by name.
func TestFinds(t *testing.T) {
	for _, c := range []struct {
		name    string
		find    string
		verdict proof.Verdict
		plan    func(*prooftest.World, *prooftest.Plan)
		after   func(*prooftest.World, *prooftest.Run)
		config  func(*prooftest.World, *prooftest.Run, *monitor.Config)
	}{
		{name: "permit used twice", find: monitor.DoubleStart, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = slices.Insert(p.Drafts, 2, p.Drafts[1])
		}},
		{name: "permit used again after the end", find: monitor.DoubleStart, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = append(p.Drafts, p.Drafts[1])
		}},
		{name: "second permit", find: monitor.DoublePermit, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = slices.Insert(p.Drafts, 1, p.Drafts[0])
		}},
		{name: "no end", find: monitor.Unsealed, verdict: proof.Valid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = p.Drafts[:len(p.Drafts)-1]
		}},
		{name: "leaf after the end", find: monitor.AfterEnd, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = append(p.Drafts, p.Drafts[at(p, exeq.KindActivity)])
		}},
		{name: "no permit", find: monitor.Orphan, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = p.Drafts[1:]
		}},
		{name: "leaf left out", find: monitor.ChainBreak, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			d := &p.Drafts[3]
			d.Loose, d.Leaf.Execution, d.Leaf.Seq, d.Leaf.Prev = true, p.ID, 9, exeq.Digest{1}
		}},
		{name: "signed by a stranger", find: monitor.BadSignature, verdict: proof.NotValid, plan: func(w *prooftest.World, p *prooftest.Plan) {
			p.Drafts[len(p.Drafts)-1].Signer = stranger(w.TB)
		}},
		{name: "signed by a retired key", find: monitor.BadSignature, verdict: proof.NotValid, plan: func(w *prooftest.World, _ *prooftest.Plan) {
			w.Key(exeq.RoleNode, keyring.EventRetire, w.Ring.Public(exeq.RoleNode))
		}},
		{name: "back-dated", find: monitor.BackDated, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			d := &p.Drafts[len(p.Drafts)-1]
			d.Leaf.Time = exeq.At(d.Leaf.Time.Add(-time.Hour))
		}},
		{name: "gap in the lease", find: monitor.LeaseGap, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts[at(p, exeq.KindAppraisal)].Leaf.Body.MaxGap = 9000
		}},
		{name: "activities left out", find: monitor.MissingContext, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			p.Drafts = slices.Delete(p.Drafts, 2, 3)
		}},
		{name: "child of no one", find: monitor.Orphan, verdict: proof.NotValid, plan: func(_ *prooftest.World, p *prooftest.Plan) {
			parent := exeq.NewID()
			for i := range p.Drafts {
				p.Drafts[i].Leaf.Parent = parent
			}
		}},
		{name: "unknown kind", find: monitor.UnknownKind, verdict: proof.Unknown, after: func(w *prooftest.World, _ *prooftest.Run) {
			e, err := exeq.NewEntry(exeq.Leaf{Kind: "telepathy"}, nil, w.Ring.Signer(exeq.RoleIssuer))
			if err != nil {
				w.TB.Fatal(err)
			}
			w.Log.Append(e.Bytes)
		}},
		{name: "not a leaf", find: monitor.NotALeaf, verdict: proof.NotValid, after: func(w *prooftest.World, _ *prooftest.Run) {
			w.Log.Append([]byte(`{"v":1,"kind":"end","extra":true}`))
		}},
		{name: "the same leaf twice", find: monitor.DuplicateID, verdict: proof.Valid, after: func(w *prooftest.World, r *prooftest.Run) {
			w.Log.Append(r.Entries[2].Bytes)
		}},
		{name: "two leaves of one id", find: monitor.DuplicateID, verdict: proof.NotValid, after: func(w *prooftest.World, r *prooftest.Run) {
			e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindDenial, ID: r.Entries[2].Leaf.ID, Execution: exeq.NewID()}, nil, w.Ring.Signer(exeq.RoleIssuer))
			if err != nil {
				w.TB.Fatal(err)
			}
			w.Log.Append(e.Bytes)
		}},
		{name: "broken promise", find: monitor.BrokenPromise, verdict: proof.NotValid, config: func(w *prooftest.World, _ *prooftest.Run, c *monitor.Config) {
			leaf := []byte("promised and dropped")
			c.Promises = []monitor.Promised{{Leaf: leaf, Promise: w.Promises(exeq.At(w.Now), leaf)[0]}}
		}},
		{name: "fork", find: monitor.Fork, verdict: proof.NotValid, config: func(w *prooftest.World, _ *prooftest.Run, c *monitor.Config) {
			fork := prooftest.NewLog(w.Ring.NoteSigner(exeq.RoleLog))
			for range 8 {
				fork.Append([]byte("another history"))
			}
			c.Seen = [][]byte{fork.Checkpoint(8)}
		}},
		{name: "rolled back", find: monitor.Fork, verdict: proof.NotValid, config: func(w *prooftest.World, _ *prooftest.Run, c *monitor.Config) {
			longer := prooftest.NewLog(w.Ring.NoteSigner(exeq.RoleLog))
			for _, b := range w.Log.Leaves {
				longer.Append(b)
			}
			longer.Append([]byte("what was rolled back"))
			c.Seen = [][]byte{longer.Checkpoint(longer.Size())}
		}},
		{name: "not witnessed", find: monitor.NotWitnessed, verdict: proof.Valid, config: func(_ *prooftest.World, _ *prooftest.Run, c *monitor.Config) {
			c.Trust.Witnesses = "witness a " + prooftest.NewWitness("w.example/9").VKey() + "\nquorum a\n"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := prooftest.New(t)
			w.Seal(w.Plan())
			plan := w.Plan()
			if c.plan != nil {
				c.plan(w, plan)
			}
			run := w.Seal(plan)
			if c.after != nil {
				c.after(w, run)
			}
			r := walk(t, w, func(m *monitor.Config) {
				if c.config != nil {
					c.config(w, run, m)
				}
			})
			if r.Verdict != c.verdict || !slices.ContainsFunc(r.Findings, func(f monitor.Finding) bool { return f.Name == c.find }) {
				t.Fatalf("want %q and %s:\n%s", c.find, c.verdict, r.Text())
			}
			if _, err := r.JSON(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRunning: what has not ended within its lease and grace is running.
func TestRunning(t *testing.T) {
	w := prooftest.New(t)
	plan := w.Plan()
	plan.Drafts = plan.Drafts[:len(plan.Drafts)-1]
	w.Seal(plan)
	r := walk(t, w, func(c *monitor.Config) { c.Now = w.Now })
	if r.Executions["running"] != 1 || len(r.Findings) > 0 {
		t.Fatal(r.Text())
	}
}

// TestEveryByteOfTheLog: any change of any file of the log is found, or the
// log cannot be read.
func TestEveryByteOfTheLog(t *testing.T) {
	w := prooftest.New(t)
	w.Seal(w.Plan())
	dir := t.TempDir()
	w.Log.Write(dir, w.Log.Size())
	files := 0
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		files++
		whole, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for i := 0; i < len(whole); i += 1 + len(whole)/150 {
			b := slices.Clone(whole)
			b[i] ^= 1 << (i % 8)
			if err := os.WriteFile(name, b, 0o644); err != nil {
				return err
			}
			r, err := monitor.Walk(monitor.Config{Trust: w.Trust(), Log: os.DirFS(dir), Now: w.Now})
			if err == nil && r.Verdict != proof.NotValid {
				t.Errorf("byte %d of %s changed and the log is %s", i, name, r.Verdict)
			}
		}
		return os.WriteFile(name, whole, 0o644)
	})
	if err != nil || files != 3 {
		t.Fatal(files, err)
	}
}

// TestRemote walks the same log over HTTP.
func TestRemote(t *testing.T) {
	w := prooftest.New(t)
	w.Seal(w.Plan())
	dir := t.TempDir()
	w.Log.Write(dir, w.Log.Size())
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	remote, err := monitor.Remote(t.Context(), srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	far, err := monitor.Walk(monitor.Config{Trust: w.Trust(), Log: remote, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	near, err := monitor.Walk(monitor.Config{Trust: w.Trust(), Log: os.DirFS(dir), Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	if far.Text() != near.Text() || far.Verdict != proof.Valid {
		t.Fatalf("%s\n%s", far.Text(), near.Text())
	}
	for _, bad := range []string{"ftp://x/", "/etc", "http://"} {
		if _, err := monitor.Remote(t.Context(), bad, nil); err == nil {
			t.Errorf("%q was taken for a URL", bad)
		}
	}
}

// TestAnotherLog: a log of another origin or key is not walked at all.
func TestAnotherLog(t *testing.T) {
	w, other := prooftest.New(t), prooftest.New(t)
	dir := t.TempDir()
	w.Log.Write(dir, w.Log.Size())
	if _, err := monitor.Walk(monitor.Config{Trust: other.Trust(), Log: os.DirFS(dir)}); err == nil {
		t.Error("a stranger's log was walked")
	}
}

// FuzzWalk: no bytes of a log bring the walk down.
func FuzzWalk(f *testing.F) {
	w := prooftest.New(f)
	w.Seal(w.Plan())
	for _, b := range w.Log.Leaves {
		f.Add(b)
	}
	tr := w.Trust()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0xffff {
			return
		}
		l := prooftest.NewLog(w.Ring.NoteSigner(exeq.RoleLog))
		for _, x := range w.Log.Leaves {
			l.Append(x)
		}
		l.Append(b)
		dir := t.TempDir()
		l.Write(dir, l.Size())
		r, err := monitor.Walk(monitor.Config{Trust: tr, Log: os.DirFS(dir)})
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsRune(r.Text(), '\x1b') {
			t.Fatal("a leaf steers the terminal")
		}
	})
}

type signer struct{ key ed25519.PrivateKey }

func (s signer) KeyID() string        { return exeq.KeyID(s.key.Public().(ed25519.PublicKey)) }
func (s signer) Sign(m []byte) []byte { return ed25519.Sign(s.key, m) }

func stranger(t testing.TB) exeq.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key}
}
