package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/exeq/exeq/bench/measure"
)

// plain is a command in the workspace, ungoverned.
func (b *bench) plain(argv ...string) *exec.Cmd {
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = b.workspace
	// Both sides get the same environment, apart from what exeq scrubs.
	c.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false", "GOPROXY=off", "GIT_CONFIG_NOSYSTEM=1")
	return c
}

// governed is the same command under exeq, with the policy of first use.
func (b *bench) governed(argv ...string) *exec.Cmd {
	return b.plain(append([]string{b.exeq, "run", "--state", b.state, "--"}, argv...)...)
}

// run runs a command to its end; what it said is in the error.
func run(c *exec.Cmd) error {
	_, err := output(c)
	return err
}

func output(c *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, stderr.Bytes())
	}
	return stdout.String(), nil
}

// wall is the wall time of a whole command in nanoseconds.
func wall(c *exec.Cmd) (float64, error) {
	start := time.Now()
	err := run(c)
	return float64(time.Since(start)), err
}

// side is one of those that are compared.
type side struct {
	who     string
	measure func(round int) (float64, error)
}

// turns measures the sides in turns. The first round is not counted. Beside
// the median of each side goes that of the ratios of the first two, each
// within a round.
func (b *bench) turns(part, name string, rounds int, note string, sides ...side) error {
	samples := make([][]float64, len(sides))
	var ratios []float64
	for round := range rounds + 1 {
		for i, s := range sides {
			v, err := s.measure(round)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, s.who, err)
			}
			if round > 0 {
				samples[i] = append(samples[i], v)
			}
		}
		if round > 0 {
			n := round - 1
			ratios = append(ratios, samples[1][n]/samples[0][n])
		}
	}
	for i, s := range sides {
		r := measure.Spread(measure.Result{Part: part, Case: name, Who: s.who, Unit: "ns"}, samples[i])
		if i == 0 {
			r.Note = note
		}
		if err := b.out.Put(r); err != nil {
			return err
		}
	}
	slices.Sort(ratios)
	return b.out.Put(measure.Spread(measure.Result{
		Part: part, Case: name, Who: sides[1].who + " ÷ " + sides[0].who, Unit: "×",
	}, ratios))
}

// printed runs a workload program and gives the n-th number that it prints.
func printed(c *exec.Cmd, n int) (float64, error) {
	text, err := output(c)
	if err != nil {
		return 0, err
	}
	var v [2]float64
	if _, err := fmt.Sscan(text, &v[0], &v[1]); err != nil {
		return 0, fmt.Errorf("%s printed %q: %w", c.Path, text, err)
	}
	return v[n], nil
}
