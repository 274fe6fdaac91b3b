package main

import (
	"crypto/rand"
	"os"
	"path/filepath"

	"github.com/exeq/exeq/bench/measure"
)

const largeBytes = 100_000_000

// large starts a new program of 100 MB twice in one execution: the first time
// it is hashed and copied.
func (b *bench) large() error {
	head, err := os.ReadFile(filepath.Join(b.workspace, "true"))
	if err != nil {
		return err
	}
	program := filepath.Join(b.workspace, "large")
	samples := map[string][]float64{}
	for range b.rounds(5) {
		tail := make([]byte, largeBytes-len(head))
		rand.Read(tail) // new bytes each round: no copy of it is in the store
		if err := os.WriteFile(program, append(head[:len(head):len(head)], tail...), 0o755); err != nil {
			return err
		}
		text, err := output(b.governed("./spawn", "2", program))
		if err != nil {
			return err
		}
		if err := keep(samples, "exeq", text); err != nil {
			return err
		}
		if text, err = output(b.plain("./spawn", "2", program)); err != nil {
			return err
		}
		if err := keep(samples, "plain", text); err != nil {
			return err
		}
		if err := os.Remove(program); err != nil {
			return err
		}
	}
	for _, at := range []string{"first", "second"} {
		for _, who := range []string{"plain", "exeq"} {
			r := measure.Result{Part: "large", Case: at + " execution of a program of 100 MB", Who: who, Unit: "ns"}
			if err := b.out.Put(measure.Spread(r, samples[who+" "+at])); err != nil {
				return err
			}
		}
	}
	return nil
}
