//go:build linux

package enforce

import (
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// TestOutputIsCounted: what the tree wrote is in the evidence, whoever of it
// lives still: a child that was waited for, an orphan, and one that goes on.
func TestOutputIsCounted(t *testing.T) {
	if !outputKnown() {
		t.Skip("this kernel does not account what processes write (CONFIG_TASK_IO_ACCOUNTING)")
	}
	for name, line := range map[string]string{
		"child":  `head -c 300000 /dev/zero >/dev/null; echo done; exec sleep 1000`,
		"orphan": `(setsid sh -c "head -c 300000 /dev/zero >/dev/null; echo done; exec sleep 1000" &); exec sleep 1000`,
		"alive":  `exec python3 -c 'import os,time; [os.write(os.open("/dev/null",1), b"x"*100000) for _ in range(3)]; print("done",flush=True); time.sleep(1000)'`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.rights.Quotas = exeq.Quotas{OutputBytes: 1 << 40}
			a := newAlive(t)
			r := b.launchWith(a, "sh", "-c", line)
			defer r.Kill("the test is over")
			if got := a.line(t); got != "done\n" {
				t.Fatal(got)
			}
			ev, err := r.Evidence(t.Context())
			if err != nil || len(ev.Faults) > 0 {
				t.Fatalf("%v %v", err, ev.Faults)
			}
			if ev.OutputBytes < 300000 || ev.OutputBytes > 400000 {
				t.Errorf("%d bytes were counted, 300000 and a little were written", ev.OutputBytes)
			}
			if said := strings.Join(r.Applied().Downgrades, "\n"); !strings.Contains(said, "quota outputBytes: counted once a tick") {
				t.Errorf("what is not counted is not said: %s", said)
			}
		})
	}
}

// TestOutputIsNeverForgotten: what vanishes between two ticks stays counted.
func TestOutputIsNeverForgotten(t *testing.T) {
	var o output
	for i, c := range []struct{ sum, want int64 }{{100, 100}, {150, 150}, {20, 150}, {60, 190}, {0, 190}, {1000, 1190}} {
		if got := o.seen(c.sum); got != c.want {
			t.Errorf("tick %d: %d, want %d", i, got, c.want)
		}
	}
}
