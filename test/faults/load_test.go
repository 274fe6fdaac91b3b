//go:build linux

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestNoFalseLapse keeps every core and most of the memory busy, outside the
// execution and inside it: nothing may be revoked and no lease may lapse. Ten
// minutes are EXEQ_ROUNDS=40.
func TestNoFalseLapse(t *testing.T) {
	h := newHouse(t)
	length := time.Duration(rounds(15)) * time.Second
	burners := 2 * runtime.NumCPU()
	share := available(t) / 5 * 4 / uint64(burners)
	t.Logf("%d processes of %d MiB each", burners, share>>20)
	for range burners {
		burn := exec.Command(os.Args[0])
		burn.Env = append(os.Environ(), fmt.Sprint("EXEQ_BURN=", share))
		if err := burn.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { burn.Process.Kill(); burn.Wait() })
	}
	script := fmt.Sprintf(`end=$(($(date +%%s) + %d))
for i in 1 2; do (while [ $(date +%%s) -lt $end ]; do :; done) & done
while [ $(date +%%s) -lt $end ]; do ls -R /usr/share/doc >/dev/null 2>&1; done; wait; echo done`, int(length.Seconds()))
	out, err := h.exeq("run", "--", "sh", "-c", script).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("done")) {
		t.Errorf("after %v of load: %v\n%s", length, err, out)
	}
	longest := int64(0)
	for _, l := range h.log() {
		var leaf struct {
			Body struct {
				MaxGapMillis int64
			}
		}
		if err := json.Unmarshal(l.Leaf, &leaf); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, leaf.Body.MaxGapMillis)
	}
	t.Logf("%v of load, longest time between two renewals %d ms", length, longest)
}

// available is the memory that can be had without swapping, in bytes
// (proc_meminfo(5)).
func available(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("the kernel does not say how much memory is available")
	return 0
}

// burnForever keeps a core and so much memory busy: every page is written again
// and again.
func burnForever(bytes string) {
	n, err := strconv.ParseUint(bytes, 10, 64)
	if err != nil || n == 0 {
		os.Exit(2)
	}
	b := make([]byte, n)
	for i := uint64(0); ; i += 4096 + 64 {
		b[i%n]++
	}
}
