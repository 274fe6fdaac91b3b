//go:build linux

package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

// TestFirstUseByMany has many processes use a state directory for the first
// time at once: one makes it, the others wait for that, and its record is one
// that a monitor believes.
func TestFirstUseByMany(t *testing.T) {
	const n = 10
	for round := range rounds(4) {
		h := &house{t: t, state: filepath.Join(t.TempDir(), "state"), work: t.TempDir()}
		errs := make(chan error, n)
		for range n {
			go func() {
				out, err := h.exeq("run", "--", "true").CombinedOutput()
				if err != nil {
					err = fmt.Errorf("%w: %s", err, out)
				}
				errs <- err
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		h.begunOnce(n + 1)
	}
}

// TestFirstUseKilled kills first uses at random points: the next one finishes
// what was begun, and nothing is on record twice.
func TestFirstUseKilled(t *testing.T) {
	for range rounds(12) {
		h := &house{t: t, state: filepath.Join(t.TempDir(), "state"), work: t.TempDir()}
		for range 3 {
			cmd := h.exeq("run", "--", "true")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // the random point
			cmd.Process.Kill()
			cmd.Wait()
		}
		h.begunOnce(-1)
	}
}

// begunOnce runs once more, so that all is in the log, and checks that the
// record begins as it should; ends, if not negative, is how many runs there
// were with that one.
func (h *house) begunOnce(ends int) {
	h.t.Helper()
	h.must("run", "--proof", filepath.Join(h.work, "p.json"), "--", "true")
	h.must("verify", filepath.Join(h.work, "p.json"))
	h.must("monitor")
	kinds := map[string]int{}
	for _, l := range h.log() {
		var leaf struct{ Kind string }
		if err := json.Unmarshal(l.Leaf, &leaf); err != nil {
			h.t.Fatal(err)
		}
		kinds[leaf.Kind]++
	}
	if kinds["key"] != 4 || kinds["policy"] != 1 || ends >= 0 && kinds["end"] != ends {
		h.t.Fatalf("the record has %v, want 4 keys, one policy and %d ends", kinds, ends)
	}
}
