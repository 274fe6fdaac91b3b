package proof_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// FuzzProof: whatever is read without error has one spelling, and verifying it
// does not panic; nothing but the genuine execution is valid.
func FuzzProof(f *testing.F) {
	w := prooftest.New(f)
	run := w.Seal(w.Plan())
	whole := w.Bundle(run)
	for _, disclose := range [][]string{{"all"}, {"none"}, {"permit", "activity.2.1"}} {
		b, err := w.Bundle(run, disclose...).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1}`))
	tr := w.Trust()
	tr.Require = []string{proof.CheckChain, proof.CheckInLog, proof.CheckSealed}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := proof.Parse(b)
		if err != nil {
			return
		}
		if again, err := p.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a second spelling: %q", b)
		}
		r, err := proof.Verify(p, tr, proof.Options{Replay: prooftest.Replay})
		if err != nil {
			t.Fatal(err)
		}
		// What stays valid tells the same execution: only disclosures, each of
		// which opens a commitment of these leaves, may be fewer.
		if r.Verdict == proof.Valid && !slices.Equal(p.Leaves, whole.Leaves) {
			t.Fatalf("another execution is valid: %q", b)
		}
		r.Text()
		if _, err := r.JSON(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzTrust: what is read can be written and read again.
func FuzzTrust(f *testing.F) {
	b, err := prooftest.New(f).Trust().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := proof.ParseTrust(b)
		if err != nil {
			return
		}
		out, err := tr.Encode()
		if err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		if _, err := proof.ParseTrust(out); err != nil {
			t.Fatalf("written and not read: %v", err)
		}
	})
}
