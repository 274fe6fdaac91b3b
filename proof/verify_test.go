package proof_test

import (
	"testing"

	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// verify goes through the bytes, as a stranger does.
func verify(t testing.TB, p *proof.Proof, tr *proof.Trust) *proof.Report {
	t.Helper()
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	q, err := proof.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := proof.Verify(q, tr, proof.Options{Replay: prooftest.Replay})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGenuine(t *testing.T) {
	w := prooftest.New(t)
	r := verify(t, w.Proof(), w.Trust())
	if r.Verdict != proof.Valid {
		t.Fatalf("a genuine proof is %s:\n%s", r.Verdict, r.Text())
	}
	t.Log("\n" + r.Text())
}
