//go:build linux

package record

import (
	"context"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// TestFindings: leaves that a drainer had merely not come to yet are drained
// without a word; those that nobody drained in time are said.
func TestFindings(t *testing.T) {
	for age, want := range map[time.Duration]int{
		exeq.MaxMergeDelay * 3 / 4: 0,
		exeq.MaxMergeDelay * 2:     1,
	} {
		dir, keys := newState(t)
		s, err := Open(context.Background(), Config{Dir: dir, Keys: keys, Now: func() time.Time { return time.Now().Add(-age) }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(within(t), chain(t, keys, whole...)...); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, keys)
		r, err := s.Recover(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.Drained != len(whole) || len(r.Findings()) != want {
			t.Errorf("after %v: %d drained and said: %q", age, r.Drained, r.Findings())
		}
		s.Close()
	}
}
