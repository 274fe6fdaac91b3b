package proof_test

import (
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

func TestTrustRoundTrip(t *testing.T) {
	w := prooftest.New(t)
	w.Witnesses = []*prooftest.Witness{prooftest.NewWitness("w.example/1"), prooftest.NewWitness("w.example/2")}
	tr := w.Trust()
	b, err := tr.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := proof.ParseTrust(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Encode()
	if err != nil || string(again) != string(b) {
		t.Fatalf("%v\n%s\n%s", err, b, again)
	}
}

// TestTrustRefuses: a trust file is read one way or not at all.
func TestTrustRefuses(t *testing.T) {
	w := prooftest.New(t)
	x, y := prooftest.NewWitness("w.example/1"), prooftest.NewWitness("w.example/2")
	for _, c := range []struct {
		name string
		bend func(*proof.Trust)
		want string
	}{
		{"version", func(t *proof.Trust) { t.Version = 2 }, "cannot tell: version 2"},
		{"log key", func(t *proof.Trust) { t.Log = "x+00000000+AAAA" }, "log"},
		{"log of another origin", func(t *proof.Trust) { t.Origin = "exeq.local/other" }, "the key is named"},
		{"promise key is the log's", func(t *proof.Trust) { t.Promise = t.Log }, "promise: the key is named"},
		{"short key", func(t *proof.Trust) { t.Keys[0].PublicKey = "AAAA" }, "keys[0]"},
		{"unknown role", func(t *proof.Trust) { t.Keys[0].Role = "king" }, `role "king"`},
		{"key twice", func(t *proof.Trust) { t.Keys = append(t.Keys, t.Keys[0]) }, "twice"},
		{"retired before it was added", func(t *proof.Trust) { n := int64(0); t.Keys[1].Added = 3; t.Keys[1].Retired = &n }, "out of order"},
		{"unknown check", func(t *proof.Trust) { t.Require = []string{"sealed", "seeled"} }, "require[1]"},
		{"check twice", func(t *proof.Trust) { t.Require = []string{"sealed", "sealed"} }, "twice"},
		{"witnessed by nobody", func(t *proof.Trust) { t.Require = []string{"witnessed"} }, "needs a quorum"},
		{"no quorum", func(t *proof.Trust) { t.Witnesses = "witness a " + x.VKey() }, "no quorum"},
		{"quorum of nobody known", func(t *proof.Trust) { t.Witnesses = "quorum a" }, "not defined"},
		{"witness counted twice", func(t *proof.Trust) {
			t.Witnesses = "witness a " + x.VKey() + "\nwitness b " + x.VKey() + "\ngroup g 2 a b\nquorum g"
		}, "same witness key twice"},
		{"member of two groups", func(t *proof.Trust) {
			t.Witnesses = "witness a " + x.VKey() + "\nwitness b " + y.VKey() + "\ngroup g any a b\ngroup h all g a\nquorum h"
		}, "already in a group"},
		{"threshold of none", func(t *proof.Trust) {
			t.Witnesses = "witness a " + x.VKey() + "\ngroup g 0 a\nquorum g"
		}, "threshold"},
		{"log key as witness", func(t *proof.Trust) { t.Witnesses = "witness a " + t.Log + "\nquorum a" }, "not a C2SP verifier key of an Ed25519 witness"},
		{"unknown word", func(t *proof.Trust) { t.Witnesses = "quorum none\ntrust everyone" }, "line 2"},
	} {
		tr := w.Trust()
		c.bend(tr)
		if err := tr.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want …%s…", c.name, err, c.want)
		}
	}
	for _, text := range []string{`{"v":1,"v":1}`, `{"trust":"me"}`, `{}`, ``, `null`, `[]`, strings.Repeat("[", 1<<20)} {
		if _, err := proof.ParseTrust([]byte(text)); err == nil {
			t.Errorf("%.40s was taken for a trust file", text)
		}
	}
}

// TestTrustLearns: what the log tells of keys bounds them in the trust file,
// so that a proof which withholds a key leaf is not believed.
func TestTrustLearns(t *testing.T) {
	w := prooftest.New(t)
	before := w.Bundle(w.Seal(w.Plan()))
	silent := len(w.Context)
	w.Key(exeq.RoleIssuer, keyring.EventCompromised, w.Ring.Public(exeq.RoleIssuer))
	tr := w.Trust()
	for _, e := range w.Context {
		if e.Leaf.Kind != exeq.KindKey {
			continue
		}
		if err := tr.Learn(&e.Leaf, w.Log.Find(e.Bytes)); err != nil {
			t.Fatal(err)
		}
	}
	w.Context = w.Context[:silent]
	after := w.Bundle(w.Seal(w.Plan()))
	if r := verify(t, before, tr); r.Verdict != proof.Valid {
		t.Errorf("signed before the key was lost:\n%s", r.Text())
	}
	if r := verify(t, after, w.Trust()); r.Verdict != proof.Valid {
		t.Errorf("a verifier who has not heard of it:\n%s", r.Text())
	}
	if r := verify(t, after, tr); r.Verdict != proof.NotValid {
		t.Errorf("signed with the lost key:\n%s", r.Text())
	}
}
