//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/bench/measure"
)

// plain is a command in the workspace, ungoverned.
func (b *bench) plain(argv ...string) *exec.Cmd {
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = b.workspace
	// A session of its own, as exeq gives to what it governs: the scheduler
	// shares a busy machine out by sessions.
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
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
	_, _, err := output(c)
	return err
}

// timed gives the times of a whole command.
func timed(c *exec.Cmd) (times, error) {
	_, t, err := output(c)
	return t, err
}

// output runs a command and what outlives it (exeq's drainer, which brings the
// record into the log, and a mount agent whose namespaces are cleared away),
// so that it takes no time of the next command's. It gives what the command
// wrote and the nanoseconds: by the clock until it ended, of CPU time with all
// its descendants.
func output(c *exec.Cmd) (string, times, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	start := time.Now()
	err := c.Run()
	t := times{wall: float64(time.Since(start))}
	rest, werr := orphans()
	if err != nil || werr != nil {
		return "", times{}, fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), errors.Join(err, werr), stderr.Bytes())
	}
	t.cpu = float64(c.ProcessState.UserTime()+c.ProcessState.SystemTime()) + rest
	return stdout.String(), t, nil
}

// adopt makes this process the parent of what its children leave behind.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// orphans waits for what was adopted and gives its CPU time.
func orphans() (cpu float64, err error) {
	for {
		var used unix.Rusage
		switch _, err := unix.Wait4(-1, nil, 0, &used); err {
		case nil:
			cpu += float64(used.Utime.Nano() + used.Stime.Nano())
		case unix.ECHILD:
			return cpu, nil
		case unix.EINTR:
		default:
			return cpu, err
		}
	}
}

// times are nanoseconds; cpu is 0 where it was not measured.
type times struct{ wall, cpu float64 }

// side is one of those that are compared.
type side struct {
	who     string
	measure func(round int) (times, error)
}

// turns measures the sides in turns, each of them first in every other round.
// The first round is not counted.
func (b *bench) turns(part, name string, rounds int, sides ...side) error {
	wall, cpu := make([][]float64, len(sides)), make([][]float64, len(sides))
	for round := range rounds + 1 {
		for i := range sides {
			if round%2 == 1 {
				i = len(sides) - 1 - i
			}
			t, err := sides[i].measure(round)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, sides[i].who, err)
			}
			if round > 0 {
				wall[i], cpu[i] = append(wall[i], t.wall), append(cpu[i], t.cpu)
			}
		}
	}
	if err := b.put(part, name, sides, wall); err != nil || cpu[0][0] == 0 {
		return err
	}
	return b.put(part, name+", CPU time", sides, cpu)
}

// put writes the sides' medians and that of the ratios of the second side to
// the first, each within a round.
func (b *bench) put(part, name string, sides []side, samples [][]float64) error {
	for i, s := range sides {
		if err := b.out.Put(measure.Spread(measure.Result{Part: part, Case: name, Who: s.who, Unit: "ns"}, samples[i])); err != nil {
			return err
		}
	}
	ratios := make([]float64, len(samples[0]))
	for i := range ratios {
		ratios[i] = samples[1][i] / samples[0][i]
	}
	return b.out.Put(measure.Spread(measure.Result{Part: part, Case: name, Who: sides[1].who + " ÷ " + sides[0].who, Unit: "×"}, ratios))
}

// repeated is what the workload program spawn tells of one command that starts
// another n times.
type repeated struct {
	whole         times // of a command that starts it once
	first, others float64
	cpu           float64 // of one start, see repeat
}

// repeat has spawn start what argv gives once, and n times. The CPU time of one start
// is what the second takes more by, the supervisor's included: what is spent once
// a command, as on exeq's own start and end, is in neither.
func repeat(command func(...string) *exec.Cmd, n int, argv func(n int) []string) (r repeated, err error) {
	spawn := func(n int) (text string, t times, err error) {
		return output(command(append([]string{"./spawn", strconv.Itoa(n)}, argv(n)...)...))
	}
	if _, r.whole, err = spawn(1); err != nil {
		return r, err
	}
	text, t, err := spawn(n)
	if err != nil {
		return r, err
	}
	if _, err := fmt.Sscan(text, &r.first, &r.others); err != nil {
		return r, fmt.Errorf("spawn printed %q: %w", text, err)
	}
	r.cpu = (t.cpu - r.whole.cpu) / float64(n-1)
	return r, nil
}

// printed runs a workload program and gives the two numbers that it prints: the
// first of its operations, and the mean of the others.
func printed(c *exec.Cmd) (first, others float64, err error) {
	text, _, err := output(c)
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(text, &first, &others); err != nil {
		return 0, 0, fmt.Errorf("%s printed %q: %w", c.Path, text, err)
	}
	return first, others, nil
}

// opened runs the workload program open and gives what it says of all but its
// first operation.
func opened(c *exec.Cmd) (t times, err error) {
	text, _, err := output(c)
	if err != nil {
		return t, err
	}
	var first float64
	if _, err := fmt.Sscan(text, &first, &t.wall, &t.cpu); err != nil {
		return t, fmt.Errorf("%s printed %q: %w", c.Path, text, err)
	}
	return t, nil
}
