//go:build linux

package vm

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// Tests says what Test runs.
type Tests struct {
	Kernel  string
	Run     string   // as go test -run has it
	Skips   []string // tests that may be skipped there; any other that is skipped fails
	Files   []string // beside the test binary, see Job
	Env     []string // beside PATH and HOME
	OwnTime bool     // see Job
	Timeout time.Duration
}

// Test runs tests of the running test binary in a machine, and fails t where
// one of them fails, or is skipped without leave, or where none was run. It
// skips t where no machine can be had.
func Test(t *testing.T, w Tests) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Job{
		Kernel: w.Kernel, Args: []string{self, "-test.v", "-test.run", w.Run, "-test.timeout", (w.Timeout - 10*time.Second).String()},
		Env: append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}, w.Env...), Dir: dir, Files: w.Files, OwnTime: w.OwnTime, Timeout: w.Timeout,
	})
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	names := func(how string) (all []string) {
		for _, m := range regexp.MustCompile(`(?m)^ *--- `+how+`: (\S+)`).FindAllSubmatch(r.Output, -1) {
			all = append(all, string(m[1]))
		}
		return all
	}
	passed, failed := names("PASS"), names("FAIL")
	t.Logf("Linux %s: boot %s, tests %s, %d passed, %d failed\n%s", r.Release, r.Boot.Round(time.Second/10), r.Ran.Round(time.Second/10),
		len(passed), len(failed), r.Output)
	if r.Status != 0 || len(failed) > 0 || len(passed) == 0 {
		t.Errorf("Linux %s: status %d, failed: %v", r.Release, r.Status, failed)
	}
	for _, name := range names("SKIP") {
		if !slices.Contains(w.Skips, name) {
			t.Errorf("Linux %s: %s was skipped", r.Release, name)
		}
	}
}
