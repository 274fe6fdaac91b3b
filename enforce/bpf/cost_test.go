//go:build linux

package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLSMCost prints what opening a file and starting a program take without a
// gate, beside one and inside: the least of some batches, in turns. It fails
// where they do not work; the figures are for reading (emulated, in the VM).
func TestLSMCost(t *testing.T) {
	tmp := t.TempDir()
	deep := filepath.Join(tmp, "a/b/c")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	prog := marker(t, filepath.Join(deep, "prog"))
	best := map[string][2]int{}
	measure := func(name, cgroup string) {
		t.Helper()
		for what, out := range tryAll(t, cgroup, "cost", deep) {
			n, err := strconv.Atoi(out)
			if err != nil {
				t.Fatalf("%s: %s: %s", name, what, out)
			}
			b, i := best[name], map[string]int{"open": 0, "exec": 1}[what]
			if b[i] == 0 || n < b[i] {
				b[i] = n
			}
			best[name] = b
		}
	}
	for range 3 {
		measure("none", "")
		g := newKernelGate(t)
		measure("beside", "")
		dir, c := governed(t, g, self(t), prog)
		setLibraries(t, g, c, nil, self(t))
		measure("inside", dir)
		if err := g.Lift(c); err != nil {
			t.Fatal(err)
		}
		if err := g.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	plain := best["none"]
	for _, name := range []string{"none", "beside", "inside"} {
		b := best[name]
		t.Logf("%-6s open and close %6d ns ×%.2f, start of a program %8d ns ×%.2f", name,
			b[0], float64(b[0])/float64(plain[0]), b[1], float64(b[1])/float64(plain[1]))
	}
}

// cost prints the least time of each of some batches.
func cost(dir string) {
	least := func(rounds int, f func() error) string {
		var best time.Duration
		for range 10 {
			begun := time.Now()
			for range rounds {
				if err := f(); err != nil {
					return err.Error()
				}
			}
			if d := time.Since(begun) / time.Duration(rounds); best == 0 || d < best {
				best = d
			}
		}
		return strconv.Itoa(int(best))
	}
	path := dir + "/prog"
	fmt.Println("open", least(200, func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}))
	fmt.Println("exec", strings.ReplaceAll(least(5, func() error { return runs(exec.Command(path)) }), " ", "-"))
}
