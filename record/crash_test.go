//go:build linux

package record

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// rounds is how often the crash tests kill; EXEQ_ROUNDS scales it.
func rounds(t testing.TB, small int) int {
	if v := os.Getenv("EXEQ_ROUNDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("EXEQ_ROUNDS: %v", err)
		}
		return n
	}
	return small
}

// TestKill kills one or two recording and draining processes at random points,
// again and again on the same state: nothing acknowledged is ever lost, what
// was running is sealed as lost, and store and log stay sound.
func TestKill(t *testing.T) {
	dir, keys := newState(t)
	var total int
	var lost int
	for round := range rounds(t, 8) {
		var a acked
		children := []*process{start(t, "busy", dir)}
		if round%2 == 1 {
			children = append(children, start(t, "loop", dir))
		}
		// The moment is counted in acknowledgements, so that it falls on every
		// step of the protocol.
		for _, c := range children {
			for range 1 + rand.IntN(60) {
				line, ok := c.next()
				if !ok {
					break
				}
				a.take(line)
			}
		}
		for _, c := range children {
			for _, line := range c.kill() {
				a.take(line)
			}
		}
		if len(a.errors) > 0 {
			t.Fatalf("round %d: a child failed: %v", round, a.errors)
		}
		total += len(a.leaves)
		s := openStore(t, dir, keys)
		ctx := within(t)
		found, err := s.Recover(ctx)
		if err != nil {
			t.Fatalf("round %d: recover: %v", round, err)
		}
		lost += len(found.Lost)
		a.kept(t, s)
		for _, id := range a.burnt {
			if err := s.Burn(ctx, id, "n", exeq.At(time.Now())); !errors.Is(err, exeq.ErrReplayed) {
				t.Errorf("round %d: a burnt nonce was burnt again: %v", round, err)
			}
		}
		if again, err := s.Recover(ctx); err != nil || len(again.Lost) != len(found.Lost) && len(again.Lost) != 0 {
			t.Errorf("round %d: recovering twice found %v, %v", round, again, err)
		}
		if round%4 == 3 {
			if err := s.Drain(ctx); err != nil {
				t.Fatalf("round %d: drain: %v", round, err)
			}
			sound(t, s)
		}
		s.Close()
		if t.Failed() {
			t.Fatalf("stopped after round %d", round)
		}
	}
	s := openStore(t, dir, keys)
	ctx := within(t)
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
	strangerChecks(t, dir, keys, int64(total))
	// Every execution that started has an end.
	all, err := s.Executions(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if x.State == exeq.Live {
			t.Errorf("execution %s started and was never sealed", x.ID)
		}
	}
	t.Logf("%d leaves acknowledged, %d executions lost and sealed, %d executions", total, lost, len(all))
}

// TestRacers: 4 processes race to burn the same 2000 permits; each is burnt
// exactly once.
func TestRacers(t *testing.T) {
	dir, keys := newState(t)
	openStore(t, dir, keys).Close()
	var racers []*process
	for range 4 {
		racers = append(racers, start(t, "burn", dir))
	}
	for _, r := range racers {
		if line, ok := r.next(); !ok || line != "ready" {
			t.Fatalf("a racer says %q", line)
		}
	}
	for _, r := range racers {
		fmt.Fprintln(r.stdin, "go")
	}
	won := 0
	for _, r := range racers {
		for _, line := range r.rest() {
			if n, ok := strings.CutPrefix(line, "won "); ok {
				i, err := strconv.Atoi(n)
				if err != nil {
					t.Fatal(err)
				}
				won += i
				t.Log(line)
			} else {
				t.Error(line)
			}
		}
	}
	if won != 2000 {
		t.Errorf("%d burns of 2000 permits", won)
	}
}

// TestNeverPublished: a crash between the first integration and the first
// checkpoint leaves a log without one; the next drainer publishes it.
func TestNeverPublished(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.write(ctx, func(w *writer, st *state) error {
		st.covered, st.size = 0, 0
		if _, err := w.conn.ExecContext(ctx, `DELETE FROM placed`); err != nil {
			return err
		}
		return w.saveState(st)
	}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.Remove(filepath.Join(dir, "log", "checkpoint")); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, keys)
	if _, err := s.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
	strangerChecks(t, dir, keys, 4)
}
