//go:build linux

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// TestNoFalseLapse keeps every core and the memory busy, outside the execution
// and inside it: nothing may be revoked and no lease may lapse. Ten minutes are
// EXEQ_ROUNDS=40.
func TestNoFalseLapse(t *testing.T) {
	h := newHouse(t)
	length := time.Duration(rounds(15)) * time.Second
	for range 2 * runtime.NumCPU() {
		burn := exec.Command(os.Args[0])
		burn.Env = append(os.Environ(), "EXEQ_BURN=1")
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

// burnForever keeps a core and 256 MiB of memory busy.
func burnForever() {
	b := make([]byte, 256<<20)
	for i := 0; ; i += 4096 + 64 {
		b[i%len(b)]++
	}
}
