//go:build linux

package bpf

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSwappedExec: while somebody outside swaps what a path leads to, what is
// allowed runs, and what is not never does; under the gate of each tier that the
// kernel has. (A program that is itself renamed has another change time and has
// to be approved again, so it is links and directories that move.)
func TestSwappedExec(t *testing.T) {
	sh := real(t, "sh")
	for tier, gate := range map[string]func(*testing.T) *Gate{"kernel-lite": newGate, "kernel": newKernelGate} {
		t.Run(tier, func(t *testing.T) {
			g := gate(t)
			tmp := t.TempDir()
			good := marker(t, filepath.Join(tmp, "good"))
			copyProgram(t, real(t, "true"), filepath.Join(tmp, "bad"))
			for name, to := range map[string]string{"one/p": "../good", "two/p": "../bad", "a": "good", "b": "bad"} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(tmp, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(to, filepath.Join(tmp, name)); err != nil {
					t.Fatal(err)
				}
			}
			dir, c := governed(t, g, sh, good)
			if g.Kernel() {
				setLibraries(t, g, c, nil, sh)
			}
			for _, s := range [][3]string{{"a", "b", "./a"}, {"one", "two", "one/p"}} {
				n := map[string]int{}
				for i := 0; i < 10 && (n["99"] == 0 || n["0"] == 0); i++ {
					swapping(t, "", tmp, s, n)
				}
				if n["99"] == 0 || n["0"] == 0 {
					t.Errorf("%s, outside: %v: it is no race", s[2], n)
				}
				n = map[string]int{}
				for i := 0; i < 10 && (n["99"] == 0 || n["126"]+n["137"] == 0); i++ {
					swapping(t, dir, tmp, s, n)
				}
				if n["99"] == 0 || n["0"] != 0 || n["126"]+n["137"] == 0 {
					t.Errorf("%s: %v", s[2], n)
				}
				t.Logf("%s: exit statuses %v", s[2], n)
			}
		})
	}
}

// swapping executes s[2] 60 times in the cgroup while s[0] and s[1] are swapped
// outside it, and counts the exit statuses: 99 is the marker's, 0 that of true.
func swapping(t *testing.T, cgroup, tmp string, s [3]string, codes map[string]int) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(i%17) * 50 * time.Microsecond):
			}
			if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(tmp, s[0]), unix.AT_FDCWD, filepath.Join(tmp, s[1]), unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	out := shell(t, cgroup, tmp, "i=0; while [ $i -lt 60 ]; do "+s[2]+" >/dev/null 2>&1; echo $?; i=$((i+1)); done")
	close(done)
	wg.Wait()
	for _, code := range strings.Fields(out) {
		codes[code]++
	}
}
