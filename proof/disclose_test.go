package proof_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// TestWithheldIsNotFailed: what the holder keeps back is said to be kept back;
// what remains still verifies.
func TestWithheldIsNotFailed(t *testing.T) {
	w := prooftest.New(t)
	run := w.Seal(w.Plan())
	for _, c := range []struct {
		disclose []string
		verdict  proof.Verdict // under the default requirements
		withheld []string
	}{
		{[]string{proof.DiscloseAll}, proof.Valid, nil},
		{[]string{proof.DiscloseNone}, proof.Unknown, []string{proof.CheckSignature, proof.CheckDigest, proof.CheckReplay, proof.CheckAudience,
			proof.CheckRecorded, proof.CheckEnforced, proof.CheckLease, proof.CheckActivities, proof.CheckConsistent}},
		{[]string{"permit", "audience", "applied"}, proof.Unknown, []string{proof.CheckDigest, proof.CheckReplay, proof.CheckActivities}},
		{[]string{"permit", "request", "inputs", "rights", "decision"}, proof.Unknown,
			[]string{proof.CheckDigest, proof.CheckReplay, proof.CheckAudience, proof.CheckEnforced, proof.CheckActivities}},
		{[]string{"-source", "-exit"}, proof.Valid, []string{proof.CheckReplay}},
	} {
		t.Run(strings.Join(c.disclose, ","), func(t *testing.T) {
			r := verify(t, w.Bundle(run, c.disclose...), w.Trust())
			var got []string
			for _, l := range r.Lines {
				if l.Status == proof.NotDisclosed {
					got = append(got, l.Check)
				}
				if l.Status == proof.Failed {
					t.Errorf("%s failed: %s", l.Check, l.Detail)
				}
			}
			if r.Verdict != c.verdict || !slices.Equal(got, c.withheld) {
				t.Errorf("%s, withheld %q; want %s, %q\n%s", r.Verdict, got, c.verdict, c.withheld, r.Text())
			}
		})
	}
}

// TestNothingLeaks: a proof that discloses nothing holds none of the words.
func TestNothingLeaks(t *testing.T) {
	w := prooftest.New(t)
	b, err := w.Bundle(w.Seal(w.Plan()), proof.DiscloseNone).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"make test", "/usr/bin/bash", "/home/u", "run the tests", "/usr/bin/sudo", w.Audience.BootID} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%q is in a proof that discloses nothing", secret)
		}
	}
}

// TestOneActivity opens one entry of a leaf and withholds its neighbours.
func TestOneActivity(t *testing.T) {
	w := prooftest.New(t)
	run := w.Seal(w.Plan())
	p := w.Bundle(run, "all", "-entries", "activity.2.1")
	if len(p.Activities) != 1 || p.Activities[0].Entry.Entry.Activity.Resource.ID != "/usr/bin/git" {
		t.Fatalf("disclosed %+v", p.Activities)
	}
	tr := w.Trust() // of a verifier who need not see them all
	tr.Require = slices.DeleteFunc(tr.Require, func(c string) bool { return c == proof.CheckActivities })
	r := verify(t, p, tr)
	if r.Verdict != proof.Valid {
		t.Fatal(r.Text())
	}
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "/usr/bin/make") {
		t.Error("the neighbour leaks")
	}
	p.Activities[0].Entry.Entry.Activity.Resource.ID = "/usr/bin/gat"
	if r := verify(t, p, w.Trust()); r.Verdict != proof.NotValid {
		t.Error("an altered activity is " + r.Verdict)
	}
	if _, err := proof.Build(w.Material(run), "activity.2.9"); err == nil {
		t.Error("an activity that is not there was disclosed")
	}
	if _, err := proof.Build(w.Material(run), "requets"); err == nil {
		t.Error("a misspelt field was passed over")
	}
}

// TestUnstarted: a permit that was refused, and a launch that failed, verify
// as executions in which nothing ran.
func TestUnstarted(t *testing.T) {
	w := prooftest.New(t)
	plan := w.Plan()
	end := plan.Drafts[len(plan.Drafts)-1]
	end.Leaf.Body.Code, end.Leaf.Body.Counts = "failed", nil
	plan.Drafts = append(plan.Drafts[:1:1], end)
	r := verify(t, w.Bundle(w.Seal(plan)), w.Trust())
	if r.Verdict != proof.Valid || r.Line(proof.CheckLease).Status != proof.NotRequired {
		t.Error(r.Text())
	}
}

// TestLost: an execution that recovery sealed says that nobody watched.
func TestLost(t *testing.T) {
	w := prooftest.New(t)
	plan := w.Plan()
	plan.Drafts[len(plan.Drafts)-1].Leaf.Body.Code = "lost"
	r := verify(t, w.Bundle(w.Seal(plan)), w.Trust())
	if l := r.Line(proof.CheckLease); r.Verdict != proof.Unknown || l.Status != proof.CannotTell {
		t.Error(r.Text())
	}
}

// TestReportIsDeterministic: the same in, the same bytes out.
func TestReportIsDeterministic(t *testing.T) {
	w := prooftest.New(t)
	p := w.Proof()
	var first string
	for range 5 {
		r := verify(t, p, w.Trust())
		b, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if s := string(b) + r.Text(); first == "" {
			first = s
		} else if s != first {
			t.Fatal("two reports of one proof differ")
		}
	}
}

// TestReportCannotSteerATerminal: what a proof says is printed without control
// characters.
func TestReportCannotSteerATerminal(t *testing.T) {
	w := prooftest.New(t)
	plan := w.Plan()
	plan.Drafts[len(plan.Drafts)-1].Leaf.Body.Code = "\x1b[2Kvalid\nvalid: all is well"
	text := verify(t, w.Bundle(w.Seal(plan)), w.Trust()).Text()
	if strings.Contains(text, "\x1b") || strings.Contains(text, "\nvalid: all") {
		t.Errorf("%q", text)
	}
}

// TestDenial: the record of a denied request is a proof of its own, replayed
// like a permit's; one that policy did not deny is not called a forgery.
func TestDenial(t *testing.T) {
	w := prooftest.New(t)
	denial := func(bend func(*exeq.Decision)) *proof.Proof {
		plan := w.Plan()
		plan.Request.Resource.ID = "/opt/unknown"
		d, err := w.Set.Decide(t.Context(), plan.Request, plan.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		if bend != nil {
			bend(&d)
		}
		plan.Drafts = []prooftest.Draft{{Leaf: exeq.Leaf{Kind: exeq.KindDenial, Time: exeq.At(w.Now), Body: exeq.LeafBody{
			Verdict: d.Verdict, Policies: d.Policies, Needs: d.Needs, Code: "policy"}}, Signer: w.Ring.Signer(exeq.RoleIssuer),
			Private: map[string]any{"request": plan.Request, "inputs": plan.Inputs, "decision": d, "policySet": d.PolicySet, "reason": "no policy permits it"}}}
		p := w.Bundle(w.Seal(plan))
		p.Consistency = nil // there is no permit that names a checkpoint
		return p
	}
	r := verify(t, denial(nil), w.Trust())
	if r.Verdict != proof.Valid || r.Line(proof.CheckReplay).Status != proof.Proved || r.Line(proof.CheckSignature).Status != proof.NotRequired {
		t.Fatal(r.Text())
	}
	if r := verify(t, denial(func(d *exeq.Decision) { d.Policies = []string{"made-up"} }), w.Trust()); r.Verdict != proof.NotValid {
		t.Fatal(r.Text())
	}
	p := denial(nil)
	p.Disclosures = slices.DeleteFunc(p.Disclosures, func(d exeq.Disclosure) bool {
		return (d.Field == "policySet" || d.Field == "decision") && d.Leaf != p.Disclosures[len(p.Disclosures)-1].Leaf
	})
	if r := verify(t, p, w.Trust()); r.Verdict != proof.NotValid { // a source, and nothing that names its set
		t.Fatal(r.Text())
	}
}
