package proof_test

import (
	"testing"

	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

func BenchmarkSmall(b *testing.B) {
	w := prooftest.New(b)
	p := w.Proof()
	p.Source = nil
	raw, _ := p.Encode()
	b.Logf("%d bytes", len(raw))
	tr := w.Trust()
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			proof.Parse(raw)
		}
	})
	q, _ := proof.Parse(raw)
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			proof.Verify(q, tr, proof.Options{})
		}
	})
}
