package proof_test

import (
	"slices"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// everyField is what a holder can keep back of a permitted execution.
var everyField = []string{
	"permit", "request", "inputs", "decision", "rights", "policySet", "source",
	"applied", "audience", "permitDigest", "entries", "exit",
}

// TestWithholdingEachField says for every disclosure which lines cannot be
// shown without it; all others stay what they are, and none fails.
func TestWithholdingEachField(t *testing.T) {
	w := prooftest.New(t)
	run := w.Seal(w.Plan())
	whole := verify(t, w.Bundle(run), w.Trust())
	hides := map[string][]string{
		"permit": {proof.CheckSignature, proof.CheckDigest, proof.CheckReplay, proof.CheckAudience, proof.CheckRecorded,
			proof.CheckEnforced, proof.CheckLease, proof.CheckConsistent},
		"request":      {proof.CheckDigest, proof.CheckReplay},
		"inputs":       {proof.CheckDigest, proof.CheckReplay},
		"decision":     {proof.CheckDigest, proof.CheckReplay},
		"rights":       {proof.CheckDigest},
		"policySet":    {proof.CheckDigest, proof.CheckReplay},
		"source":       {proof.CheckReplay},
		"applied":      {proof.CheckEnforced},
		"audience":     {proof.CheckAudience},
		"permitDigest": {proof.CheckDigest},
		"entries":      {proof.CheckActivities},
		"exit":         nil,
	}
	for _, field := range everyField {
		t.Run(field, func(t *testing.T) {
			r := verify(t, w.Bundle(run, "-"+field), w.Trust())
			required := false
			for i, l := range r.Lines {
				want := whole.Lines[i].Status
				if slices.Contains(hides[field], l.Check) {
					want = proof.NotDisclosed
					required = required || l.Required
				}
				if l.Status != want {
					t.Errorf("%s: %s, want %s (%s)", l.Check, l.Status, want, l.Detail)
				}
			}
			if want := map[bool]proof.Verdict{true: proof.Unknown, false: proof.Valid}[required]; r.Verdict != want {
				t.Errorf("the verdict is %s, want %s", r.Verdict, want)
			}
			// A verifier who accepts that it is withheld says so in the trust file.
			tr := w.Trust()
			tr.Require = slices.DeleteFunc(tr.Require, func(c string) bool { return slices.Contains(hides[field], c) })
			if r := verify(t, w.Bundle(run, "-"+field), tr); r.Verdict != proof.Valid {
				t.Errorf("with no line required that rests on it: %s\n%s", r.Verdict, r.Text())
			}
		})
	}
}

// TestWithholdingHidesNoFault: whatever bent record is refuted when all is
// disclosed, no field can be kept back to make the refuted line a good one.
func TestWithholdingHidesNoFault(t *testing.T) {
	for _, f := range forgeries {
		if f.bundle != nil || f.trust != nil || f.status != proof.Failed {
			continue // a fault of the file, not of the record
		}
		t.Run(f.name, func(t *testing.T) {
			w := prooftest.New(t)
			plan := w.Plan()
			if f.plan != nil {
				f.plan(w, plan)
			}
			run := w.Seal(plan)
			if f.record != nil {
				f.record(w, run)
			}
			for _, field := range append(everyField, proof.DiscloseAll) {
				name := "-" + field
				if field == proof.DiscloseAll {
					name = proof.DiscloseNone
				}
				p, err := proof.Build(w.Material(run), name)
				if err != nil {
					continue // not even a holder can parse it
				}
				l := verify(t, p, w.Trust()).Line(f.check)
				if f.name == "policy activated after the permit" && field != "policySet" && field != proof.DiscloseAll && l.Status != proof.Failed && l.Status != proof.NotDisclosed {
					t.Errorf("withholding %s: %s is %s: %s", field, l.Check, l.Status, l.Detail)
				} else if l.Status == proof.Proved || l.Status == proof.Attested {
					t.Errorf("withholding %s made %s %s: %s", field, l.Check, l.Status, l.Detail)
				}
			}
		})
	}
}

// TestWithheldDenial: the record of a denial shows its decision or says that
// it is kept back.
func TestWithheldDenial(t *testing.T) {
	w := prooftest.New(t)
	plan := w.Plan()
	plan.Request.Resource.ID = "/opt/unknown"
	d, err := w.Set.Decide(t.Context(), plan.Request, plan.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	plan.Drafts = []prooftest.Draft{{Leaf: exeq.Leaf{Kind: exeq.KindDenial, Time: exeq.At(w.Now), Body: exeq.LeafBody{
		Verdict: d.Verdict, Policies: d.Policies, Needs: d.Needs, Code: "policy"}}, Signer: w.Ring.Signer(exeq.RoleIssuer),
		Private: map[string]any{"request": plan.Request, "inputs": plan.Inputs, "decision": d, "policySet": d.PolicySet}}}
	run := w.Seal(plan)
	for field, want := range map[string][2]proof.Status{ // digest, policy replay
		"request": {proof.Proved, proof.NotDisclosed}, "inputs": {proof.Proved, proof.NotDisclosed}, "source": {proof.Proved, proof.NotDisclosed},
		"decision": {proof.NotDisclosed, proof.NotDisclosed}, "policySet": {proof.NotDisclosed, proof.NotDisclosed},
	} {
		p := w.Bundle(run, "-"+field)
		r := verify(t, p, w.Trust())
		if got := [2]proof.Status{r.Line(proof.CheckDigest).Status, r.Line(proof.CheckReplay).Status}; got != want {
			t.Errorf("withholding %s: digest and replay are %q, want %q\n%s", field, got, want, r.Text())
		}
	}
}

// TestOneSpelling: of one selection of one execution there is one proof. What
// says nothing in it, or stands in another order, is refused.
func TestOneSpelling(t *testing.T) {
	w := prooftest.New(t)
	run := w.Seal(w.Plan())
	_, foreign := newKey()
	e := w.Key(exeq.RoleNode, "add", foreign)
	w.Context = w.Context[:len(w.Context)-1]
	other, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPolicy, Body: exeq.LeafBody{Event: "activate"}},
		map[string]any{"policySet": exeq.Digest{1}}, w.Ring.Signer(exeq.RoleIssuer))
	if err != nil {
		t.Fatal(err)
	}
	w.Log.Append(other.Bytes)
	add := func(p *proof.Proof, e exeq.Entry) {
		p.Context = append(p.Context, string(e.Bytes))
		p.Receipts = append(p.Receipts, exeq.Receipt{Leaf: e.Leaf.ID, Proof: w.Log.Receipt(w.Log.Find(e.Bytes), w.Log.Size())})
	}
	for name, bend := range map[string]func(*proof.Proof){
		"disclosures reversed": func(p *proof.Proof) { slices.Reverse(p.Disclosures) },
		"two fields swapped":   func(p *proof.Proof) { p.Disclosures[0], p.Disclosures[1] = p.Disclosures[1], p.Disclosures[0] },
		"receipts reversed":    func(p *proof.Proof) { slices.Reverse(p.Receipts) },
		"activities reversed":  func(p *proof.Proof) { slices.Reverse(p.Activities) },
		"key of nobody here":   func(p *proof.Proof) { add(p, e) },
		"policy of nobody here, its set withheld": func(p *proof.Proof) {
			i := len(p.Context) - 1 // in the place of the one that is
			id := w.Context[i].Leaf.ID
			p.Context = p.Context[:i]
			drop(p, id)
			add(p, other)
		},
		"two policies": func(p *proof.Proof) { add(p, other) },
	} {
		t.Run(name, func(t *testing.T) {
			p := w.Bundle(run, "all", "-entries", "activity.2.0", "activity.2.2")
			tr := w.Trust()
			tr.Require = slices.DeleteFunc(tr.Require, func(c string) bool { return c == proof.CheckActivities })
			if r := verify(t, p, tr); r.Verdict != proof.Valid {
				t.Fatalf("before:\n%s", r.Text())
			}
			bend(p)
			if r := verify(t, p, tr); r.Verdict != proof.NotValid {
				t.Errorf("%s\n%s", r.Verdict, r.Text())
			}
		})
	}
	// A builder leaves them out by itself.
	m := w.Material(run)
	m.Context = append(m.Context, e.Bytes)
	p, err := proof.Build(m, proof.DiscloseAll)
	if err != nil || len(p.Context) != len(w.Context) {
		t.Errorf("the builder took in a leaf that says nothing (%d, %v)", len(p.Context), err)
	}
}
