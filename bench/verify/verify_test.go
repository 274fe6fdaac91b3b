package main

import (
	"context"
	"testing"

	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/proof"
)

// BenchmarkVerify is for profiles; the table comes from the command.
func BenchmarkVerify(b *testing.B) {
	set, err := policy.Load(policy.Starter())
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	inst, err := standalone.Open(context.Background(), standalone.Options{Dir: dir, Set: set})
	if err != nil {
		b.Fatal(err)
	}
	defer inst.Close()
	trust, err := standalone.TrustOf(dir)
	if err != nil {
		b.Fatal(err)
	}
	text, err := execute(context.Background(), inst, 100)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		p, err := proof.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		if r, err := proof.Verify(p, trust, proof.Options{Replay: standalone.Replay}); err != nil || r.Verdict != proof.Valid {
			b.Fatal(err, r)
		}
	}
}
