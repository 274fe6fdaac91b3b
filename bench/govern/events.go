//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/exeq/exeq/bench/measure"
)

// eventRate is how many opens a second events are measured at. A second of them
// stays below the denials that the policy of first use bears.
const eventRate = 9900

// events is what each open takes of processor time, the supervisor's and the
// node's included, of a command that opens about 10,000 times a second, beside
// the same outside: what it takes more than one that opens nothing for as long.
func (n *noded) events() error {
	own, err := n.files("events")
	if err != nil {
		return err
	}
	other, err := n.files(filepath.Join(n.dir, "elsewhere"))
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Join(n.dir, "elsewhere"))
	for _, of := range []struct {
		name, mode string
		files      []string
		refused    bool
	}{
		{"reads that are allowed", "paced-read", own, false},
		{"reads that are denied", "paced-read", other, true},
		{"writes that are allowed", "paced-write", own, false},
		{"writes that are denied", "paced-write", other, true},
	} {
		each := func(command func(...string) *exec.Cmd, outside bool) func(int) (times, error) {
			paced := func(rate int) (cpu float64, err error) {
				used := measure.ProcessTime()
				text, t, err := output(command(append([]string{"./open", of.mode, fmt.Sprint(rate), "1"}, of.files...)...))
				if err != nil {
					return 0, err
				}
				if !outside {
					t.cpu += float64(measure.ProcessTime() - used)
				}
				var refused, done int
				if _, err := fmt.Sscan(text, &refused, &done); err != nil || done != rate {
					return 0, fmt.Errorf("open printed %q: %v", text, err)
				}
				if want := of.refused && !outside; rate > 0 && want != (refused == done) || !want && refused > 0 {
					return 0, fmt.Errorf("%s: %d of %d were refused", of.name, refused, done)
				}
				return t.cpu, nil
			}
			return func(int) (times, error) {
				none, err := paced(0)
				if err != nil {
					return times{}, err
				}
				all, err := paced(eventRate)
				return times{wall: (all - none) / eventRate}, err // in the place of the one that is always there
			}
		}
		if err := n.turns("events", of.name, n.rounds(10), side{"plain", each(n.plain, true)}, side{n.tier, each(n.at(n.tier), false)}); err != nil {
			return err
		}
	}
	return nil
}
