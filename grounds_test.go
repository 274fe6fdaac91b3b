package exeq

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestGroundsAreWhatIsDigested: over generated requests, inputs and rights, what
// is written once gives the digests that are computed one by one, and the leaf
// commits to what it would if each were written anew.
func TestGroundsAreWhatIsDigested(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		return []string{"", "a", `"v":1}`, "\u20ac\n", `x\\`, "{}", "grep -rn"}[r.IntN(7)]
	}
	texts := func() (out []string) {
		for range r.IntN(4) {
			out = append(out, EncodeBytes(text()))
		}
		return out
	}
	for range 500 {
		q := &Request{
			Subject: Entity{"Agent", "a" + text()}, Action: "run" + text(), Argv: texts(), Dir: text(),
			Resource: Resource{Type: "Tool", ID: "t" + text()},
			Context:  Context{Workspace: "/w", Home: "/h", Tmp: "/t", Command: text()},
		}
		for range r.IntN(3) {
			q.OnBehalfOf = append(q.OnBehalfOf, Entity{"User", text()})
		}
		if r.IntN(2) == 0 {
			q.Context.Claimed = map[string]string{"v": text(), "intent": text()}
		}
		if r.IntN(2) == 0 {
			q.Resource = Resource{Type: "Program", ID: "/bin/sh", SHA256: Digest{byte(r.Int())}}
		}
		in := &Inputs{Tier: TierKernel, Risk: r.IntN(100), RiskReasons: texts(), Session: Session{Labels: texts()}, Time: At(time.UnixMilli(r.Int64N(1 << 41)))}
		rights := &Rights{Version: 1, Cells: []Cell{{Path: "/", At: Access{Read: true, Labels: slices.Sorted(slices.Values(texts()))}}}, Environment: texts()}
		d := &Decision{Verdict: Allow, Policies: texts(), PolicySet: Digest{1}}

		g, err := NewGrounds(q, in, rights)
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]struct {
			got  Digest
			want func() (Digest, error)
		}{"action": {g.Action, q.ActionDigest}, "inputs": {g.Inputs, in.Digest}, "rights": {g.Rights, rights.Digest}} {
			if want, err := c.want(); err != nil || c.got != want {
				t.Fatalf("%s: %s, want %s (%v)", what, c.got, want, err)
			}
		}
		p := &Permit{Envelope: []byte(`{"payload":""}`), Grounds: g}
		private := p.Private(d)
		e, err := NewEntry(Leaf{Kind: KindPermit}, private, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"permit": string(p.Envelope), "request": q, "inputs": in, "decision": d, "policySet": d.PolicySet, "rights": rights}
		if len(e.Disclosures) != len(want) {
			t.Fatalf("%d disclosures, want %d", len(e.Disclosures), len(want))
		}
		for _, o := range e.Disclosures {
			b, err := canonical(want[o.Field])
			if err != nil || string(o.Value) != string(b) {
				t.Fatalf("%s: %s\nwant %s (%v)", o.Field, o.Value, b, err)
			}
			if sum, err := o.Digest(); err != nil || sum != e.Leaf.Commitments[o.Field] {
				t.Fatalf("%s: the leaf commits to %s, opened is %s (%v)", o.Field, e.Leaf.Commitments[o.Field], sum, err)
			}
		}
	}
}

// TestGroundsRefuse: what has no digest of its own has none here.
func TestGroundsRefuse(t *testing.T) {
	good := func() (*Request, *Inputs, *Rights) {
		return &Request{
				Subject: Entity{"Agent", "a"}, Action: "call", Resource: Resource{Type: "Tool", ID: "t"},
				Context: Context{Workspace: "/w", Home: "/h", Tmp: "/t"},
			}, &Inputs{},
			&Rights{Version: 1, Cells: []Cell{{Path: "/"}}}
	}
	if _, err := NewGrounds(good()); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*Request, *Inputs, *Rights){
		"request":      func(q *Request, _ *Inputs, _ *Rights) { q.Context.Tmp = "t" },
		"not UTF-8":    func(q *Request, _ *Inputs, _ *Rights) { q.Action = "\xff" },
		"over a limit": func(q *Request, _ *Inputs, _ *Rights) { q.Argv = make([]string, MaxRequestBytes) },
		"inputs":       func(_ *Request, in *Inputs, _ *Rights) { in.Approved = []string{"\xff"} },
		"rights":       func(_ *Request, _ *Inputs, r *Rights) { r.Version = 2 },
		"a label":      func(_ *Request, _ *Inputs, r *Rights) { r.Environment = []string{"\xff"} },
	} {
		q, in, r := good()
		spoil(q, in, r)
		if g, err := NewGrounds(q, in, r); err == nil || g != nil {
			t.Errorf("%s: no error", what)
		}
	}
}
