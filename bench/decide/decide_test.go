package main

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/exeq/exeq/bench/shape"
	"github.com/exeq/exeq/policy"
)

// BenchmarkDecide is for profiles; the table comes from the command.
func BenchmarkDecide(b *testing.B) {
	for _, n := range shape.Sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			dir := b.TempDir()
			if err := shape.Write(dir, n); err != nil {
				b.Fatal(err)
			}
			set, err := policy.LoadDir(filepath.Join(dir, shape.SetDir))
			if err != nil {
				b.Fatal(err)
			}
			requests, err := shape.Read(dir)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := &requests[i%len(requests)]
				if _, err := set.Decide(context.Background(), &r.Request, &r.Inputs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
