package proof_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// TestEveryByteCounts changes, doubles or deletes each byte of a genuine,
// witnessed proof: no mutant may be valid.
func TestEveryByteCounts(t *testing.T) {
	w := prooftest.New(t)
	w.Witnesses = []*prooftest.Witness{prooftest.NewWitness("w.example/1")}
	p := w.Proof()
	tr := w.Trust()
	tr.Require = append(tr.Require, proof.CheckConsistent, proof.CheckWitnessed)
	if r := verify(t, p, tr); r.Verdict != proof.Valid {
		t.Fatalf("the unchanged proof is %s:\n%s", r.Verdict, r.Text())
	}
	genuine, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// A seventh of the bytes a run, every byte with EXEQ_EXHAUSTIVE=1 (minutes).
	step, from := 7, int(time.Now().UnixNano()%7)
	if os.Getenv("EXEQ_EXHAUSTIVE") != "" {
		step, from = 1, 0
	}
	for i := from; i < len(genuine); i += step {
		b := genuine[i]
		var m []byte
		switch i % 4 {
		case 0:
			m = splice(genuine, i, 1, b^1)
		case 1:
			m = splice(genuine, i, 1, b^0x20)
		case 2:
			m = splice(genuine, i, 0, b)
		case 3:
			m = splice(genuine, i, 1)
		}
		if bytes.Equal(m, genuine) {
			t.Fatal("not a mutant")
		}
		q, err := proof.Parse(m)
		if err != nil {
			continue
		}
		r, err := proof.Verify(q, tr, proof.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict == proof.Valid {
			t.Errorf("byte %d of %d: …%s… became …%s… and it is still valid", i, len(genuine), around(genuine, i), around(m, i))
		}
	}
}

// TestEverySpellingOfSignedPartsCounts flips a bit of each character of one
// receipt and the promise, and every bit at the end of base64, where the
// format leaves room for a second spelling.
func TestEverySpellingOfSignedPartsCounts(t *testing.T) {
	w := prooftest.New(t)
	w.Witnesses = []*prooftest.Witness{prooftest.NewWitness("w.example/1")}
	p := w.Bundle(w.Seal(w.Plan()), "permit")
	tr := w.Trust()
	tr.Require = []string{proof.CheckInLog, proof.CheckWitnessed, proof.CheckRecorded, proof.CheckChain}
	if r := verify(t, p, tr); r.Verdict != proof.Valid {
		t.Fatalf("the unchanged proof is %s:\n%s", r.Verdict, r.Text())
	}
	for _, part := range []*string{&p.Promise.Note, &p.Receipts[0].Proof} {
		whole := *part
		for i := range 8 * len(whole) {
			if i%8 != i/8%8 && !bytes.ContainsAny([]byte(whole[i/8+1:min(len(whole), i/8+2)]), "=\n") {
				continue
			}
			b := []byte(whole)
			b[i/8] ^= 1 << (i % 8)
			*part = string(b)
			r, err := proof.Verify(p, tr, proof.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict == proof.Valid {
				t.Errorf("bit %d of …%q… does not count", i%8, around([]byte(whole), i/8))
			}
		}
		*part = whole
	}
}

// splice replaces n bytes at i.
func splice(b []byte, i, n int, with ...byte) []byte {
	return append(append(append(make([]byte, 0, len(b)+1), b[:i]...), with...), b[i+n:]...)
}

func around(b []byte, i int) []byte { return b[max(0, i-20):min(len(b), i+20)] }
