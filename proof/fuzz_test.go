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

// FuzzProofEdits takes genuine proofs apart and puts the parts together
// otherwise, since hardly any change of the bytes is still a proof to look at.
func FuzzProofEdits(f *testing.F) {
	w := prooftest.New(f)
	whole, other := w.Bundle(w.Seal(w.Plan())), w.Bundle(w.Seal(w.Plan()))
	genuine, err := whole.Encode()
	if err != nil {
		f.Fatal(err)
	}
	tr := w.Trust()
	for op := range byte(14) {
		f.Add([]byte{op, 1, 2}, op%2 == 0)
	}
	f.Fuzz(func(t *testing.T, edits []byte, replay bool) {
		p, err := proof.Parse(genuine)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(edits) >= 3; edits = edits[3:] {
			edit(p, other, edits[0], int(edits[1]), int(edits[2]))
		}
		b, err := p.Encode()
		if err != nil {
			return // no UTF-8, say
		}
		if again, err := proof.Parse(b); err == nil {
			p = again
		} else if !bytes.Contains(b, []byte("null")) {
			t.Fatalf("written and not read: %v", err)
		}
		o := proof.Options{}
		if replay {
			o.Replay = prooftest.Replay
		}
		r, err := proof.Verify(p, tr, o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict == proof.Valid && (!slices.Equal(p.Leaves, whole.Leaves) || p.Execution != whole.Execution) {
			t.Fatalf("another execution is valid:\n%s\n%s", b, r.Text())
		}
		r.Text()
	})
}

// edit makes one change, of the part that i names.
func edit(p, other *proof.Proof, op byte, i, j int) {
	flip := func(s string) string {
		b := []byte(s)
		if len(b) > 0 {
			b[(j*7)%len(b)] ^= 1 << (j % 7)
		}
		return string(b)
	}
	leaves := &p.Leaves
	if op >= 128 {
		leaves, op = &p.Context, op-128
	}
	nl, nr, nd := len(*leaves), len(p.Receipts), len(p.Disclosures)
	if nl == 0 || nr == 0 || nd == 0 {
		return
	}
	switch op % 14 {
	case 0:
		(*leaves)[i%nl], (*leaves)[j%nl] = (*leaves)[j%nl], (*leaves)[i%nl]
	case 1:
		*leaves = slices.Delete(*leaves, i%nl, i%nl+1)
	case 2:
		*leaves = slices.Insert(*leaves, j%nl, (*leaves)[i%nl])
	case 3:
		(*leaves)[i%nl] = flip((*leaves)[i%nl])
	case 4:
		(*leaves)[i%nl] = other.Leaves[j%len(other.Leaves)]
	case 5:
		p.Receipts = slices.Delete(p.Receipts, i%nr, i%nr+1)
	case 6:
		p.Receipts[i%nr].Proof, p.Receipts[j%nr].Proof = p.Receipts[j%nr].Proof, p.Receipts[i%nr].Proof
	case 7:
		p.Receipts[i%nr].Proof = flip(p.Receipts[i%nr].Proof)
	case 8:
		p.Receipts[i%nr] = other.Receipts[j%len(other.Receipts)]
	case 9:
		p.Disclosures = slices.Delete(p.Disclosures, i%nd, i%nd+1)
	case 10:
		p.Disclosures[i%nd].Value = p.Disclosures[j%nd].Value
	case 11:
		p.Disclosures[i%nd] = other.Disclosures[j%len(other.Disclosures)]
	case 12:
		p.Promise = other.Promise
		p.Promise.Note = flip(p.Promise.Note)
	case 13:
		p.Execution, p.Leaves = other.Execution, slices.Concat(p.Leaves[:i%(nl+1)%(len(p.Leaves)+1)], other.Leaves[j%len(other.Leaves):])
	}
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
