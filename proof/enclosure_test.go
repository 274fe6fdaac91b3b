package proof_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/proof"
)

// TestTierUnvouched: a supervisor that says a tier of the node's by itself is
// repeated as just that.
func TestTierUnvouched(t *testing.T) {
	w := prooftest.New(t)
	p := w.Plan()
	start := &p.Drafts[at(p, exeq.KindStart)]
	a := start.Private["applied"].(exeq.Applied)
	a.Tier = exeq.TierKernelLite
	start.Private["applied"], start.Leaf.Body.Tier = a, exeq.TierKernelLite
	r, err := proof.Verify(w.Bundle(w.Seal(p)), w.Trust(), proof.Options{Replay: prooftest.Replay})
	if err != nil {
		t.Fatal(err)
	}
	if l := r.Line(proof.CheckEnforced); !strings.Contains(l.Detail, "no node of its own vouches for the tier") {
		t.Error(l.Detail)
	}
}

// TestEnclosure: a permit for a node of its own is good for a start that this
// node signed the enclosure of, by a key that stands in the log before it, and
// for no other.
func TestEnclosure(t *testing.T) {
	type world struct {
		*prooftest.World
		node  exeq.Signer
		plan  *prooftest.Plan
		word  *exeq.Enclosure
		added bool
	}
	sign := func(e *exeq.Enclosure, s exeq.Signer) {
		e.Key = s.KeyID()
		msg, err := e.Signable()
		if err != nil {
			t.Fatal(err)
		}
		e.Signature = base64.StdEncoding.EncodeToString(s.Sign(msg))
	}
	for _, c := range []struct {
		name   string
		bend   func(w *world)
		status proof.Status
		words  string
	}{
		{"whole", func(w *world) {}, proof.Proved, "the node signed that it closed the gate"},
		{"none", func(w *world) { w.word = nil }, proof.Failed, "another node than the one that started it"},
		{"a key that is not in the log", func(w *world) { w.added = false }, proof.Failed, "is not trusted as node"},
		{"altered", func(w *world) { w.word.Canary = "everything" }, proof.Failed, "does not verify"},
		{"of another permit", func(w *world) { w.word.Permit = exeq.NewID(); sign(w.word, w.node) }, proof.Failed, "of another permit"},
		{"of another epoch", func(w *world) { w.word.Audience.Epoch = "00"; sign(w.word, w.node) }, proof.Failed, "of another permit, node, boot"},
		{"by the supervisor", func(w *world) { sign(w.word, w.Ring.Signer(exeq.RoleNode)) }, proof.Failed, "of another permit, node"},
		{"of a lower tier", func(w *world) { w.word.Tier = exeq.TierRootless; sign(w.word, w.node) }, proof.Failed, "the start says tier kernel-lite, the node rootless"},
		{"of a gate that lacks something, which the start keeps back", func(w *world) { w.word.Missing = []string{"unix sockets"}; sign(w.word, w.node) }, proof.Failed, "keeps back what the node says is missing: the kernel's gate: unix sockets"},
		{"of another version", func(w *world) { w.word.Version = 2; sign(w.word, w.node) }, proof.CannotTell, "version 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{World: prooftest.New(t), added: true}
			own := w.Audience
			signer, pub := newKey()
			w.node = signer
			w.Audience = exeq.Audience{Node: signer.KeyID(), BootID: own.BootID, Epoch: "aabbccdd"}
			var err error
			if w.Issuer, err = permit.NewIssuer(permit.IssuerConfig{Key: w.Ring.Signer(exeq.RoleIssuer), Audience: w.Audience,
				Checkpoint: w.Log.Bound, Now: func() time.Time { return w.Now }}); err != nil {
				t.Fatal(err)
			}
			w.plan = w.Plan()
			w.word = &exeq.Enclosure{Version: 1, Permit: w.plan.ID, Audience: w.Audience, Tier: exeq.TierKernelLite, Canary: "an exec", Time: exeq.At(w.Now)}
			sign(w.word, signer)
			c.bend(w)
			if w.added {
				w.Key(exeq.RoleNode, "add", pub)
			}
			start := &w.plan.Drafts[at(w.plan, exeq.KindStart)]
			a := start.Private["applied"].(exeq.Applied)
			a.Tier, a.Enclosure = exeq.TierKernelLite, w.word
			start.Private["applied"], start.Leaf.Body.Tier = a, exeq.TierKernelLite
			trust := w.Trust()
			run := w.Seal(w.plan)
			// Whatever its word is worth: kept back, it is worth nothing.
			for _, field := range []string{"permit", "applied", "audience"} {
				l := verify(t, w.Bundle(run, "-"+field), trust).Line(proof.CheckAudience)
				if l.Status == proof.Proved || l.Status == proof.Attested || c.status == proof.Proved && l.Status != proof.NotDisclosed {
					t.Errorf("without %s it is %s: %s", field, l.Status, l.Detail)
				}
			}
			report, err := proof.Verify(w.Bundle(run), trust, proof.Options{Replay: prooftest.Replay})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range report.Lines {
				if l.Check == proof.CheckAudience && (l.Status != c.status || !strings.Contains(l.Detail, c.words)) {
					t.Errorf("%s: %s, want %s: …%s…", l.Status, l.Detail, c.status, c.words)
				}
				if c.status == proof.Proved && l.Status == proof.Failed {
					t.Errorf("%s: %s", l.Check, l.Detail)
				}
			}
		})
	}
}
