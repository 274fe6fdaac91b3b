//go:build linux

package faults

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDrainersAreReaped has a run go on until several drainers of its have put
// its leaves into the log: none of them stays behind as a dead process.
func TestDrainersAreReaped(t *testing.T) {
	h := newHouse(t)
	cmd := h.exeq("run", "--", "sh", "-c", `while [ ! -e stop ]; do /bin/true; cat /dev/null; sleep 0.1; done`)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	sizes := map[int64]bool{} // of the log, each by a drainer
	until(t, 60*time.Second, "three drainers to be done", func() bool {
		size := int64(0)
		for _, l := range h.log() {
			size = max(size, l.Index)
		}
		sizes[size] = true
		return len(sizes) > 3
	})
	until(t, 5*time.Second, "the dead drainers to be reaped", func() bool { return len(zombies(cmd.Process.Pid)) == 0 })
	if err := os.WriteFile(filepath.Join(h.work, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &said)
	}
}

// zombies lists the dead children of pid that nobody waited for.
func zombies(pid int) (dead []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(pid) {
			dead = append(dead, name)
		}
	}
	return dead
}

// until waits for a condition, which is looked at again and again.
func until(t *testing.T, most time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(most)
	for tick := time.NewTicker(100 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", most, what)
		}
	}
}
