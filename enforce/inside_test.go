//go:build linux

package enforce

import "testing"

// TestParseStat: a process is dead once its last thread is, not its first.
func TestParseStat(t *testing.T) {
	for stat, alive := range map[string]bool{
		"7 (a) b) S 3 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0": true,
		"7 (x) Z 3 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0":    false,
		"7 (x) Z 3 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 2 0 99 0":    true,
		"7 (x) X 3 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 0 0 99 0":    false,
	} {
		p, got, err := parseStat(7, stat)
		if err != nil || got != alive || p != (Process{PID: 7, Parent: 3, Began: 99}) {
			t.Errorf("%s: %+v, alive %v (%v)", stat, p, got, err)
		}
	}
	if _, _, err := parseStat(7, "7 (x) S 3"); err == nil {
		t.Error("a short line is believed")
	}
}
