//go:build linux

package record

import (
	"context"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// TestFindings: leaves that a drainer had merely not come to yet are drained
// without a word; those that nobody drained in time are said, unless their owner
// lives and may only have been stopped.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		live bool
		want int
	}{
		{exeq.MaxMergeDelay * 3 / 4, false, 0},
		{exeq.MaxMergeDelay * 2, false, 1},
		{exeq.MaxMergeDelay * 2, true, 0},
	} {
		dir, keys := newState(t)
		s, err := Open(context.Background(), Config{Dir: dir, Keys: keys, Now: func() time.Time { return time.Now().Add(-c.age) }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(within(t), chain(t, keys, whole...)...); err != nil {
			t.Fatal(err)
		}
		if c.live {
			if err := s.Own(within(t), "of this process"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, keys)
		r, err := s.Recover(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.Drained != len(whole) || len(r.Findings()) != c.want {
			t.Errorf("after %v, live %v: %d drained and said: %q", c.age, c.live, r.Drained, r.Findings())
		}
		s.Close()
	}
}
