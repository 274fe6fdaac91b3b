//go:build linux

package main

import (
	"crypto/rand"
	"os"
	"os/exec"
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
		for who, command := range map[string]func(...string) *exec.Cmd{"exeq": b.governed, "plain": b.plain} {
			first, second, err := printed(command("./spawn", "2", program))
			if err != nil {
				return err
			}
			samples[who+" first"] = append(samples[who+" first"], first)
			samples[who+" second"] = append(samples[who+" second"], second)
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
