//go:build linux

package record

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/exeq/exeq"
)

// queued has n callers wait in q and gives their calls, in the order of the
// queue. Each caller that is woken puts its call into the second slice.
func queued(ctx context.Context, q *queue, n int, ended *sync.WaitGroup) (calls []*call, woken func() []*call) {
	var mu sync.Mutex
	var order []*call
	for range n {
		c := &call{ctx: ctx}
		ended.Go(func() {
			err := q.submit(c)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				order = append(order, c)
			}
		})
	}
	for len(calls) < n {
		calls = q.next(calls)
	}
	return calls, func() []*call {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(order)
	}
}

// TestQueueWakesAll: every caller is woken once, also where others of its group
// have left, and with more groups than one at a time.
func TestQueueWakesAll(t *testing.T) {
	const n, groups = 100, 5
	q := newQueue()
	left, leave := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	var all [][]*call
	var woken []func() []*call
	for range groups {
		calls, w := queued(t.Context(), q, n, &ended)
		gone, _ := queued(left, q, n/2, &ended)
		for i, c := range gone { // every third one
			calls = slices.Insert(calls, 3*i, c)
		}
		all, woken = append(all, calls), append(woken, w)
	}
	leave()
	for _, group := range all {
		for _, c := range group {
			if c.ctx == left { // its caller leaves before the group is settled
				for {
					q.mu.Lock()
					gone := c.left
					q.mu.Unlock()
					if gone {
						break
					}
				}
			}
		}
		q.settle(group)
	}
	ended.Wait() // for ever, if anyone was forgotten
	for i, w := range woken {
		if got := len(w()); got != n {
			t.Errorf("group %d: %d of %d callers were told that their call is settled", i, got, n)
		}
	}
	if q.waking != 0 || len(q.settled) != 0 {
		t.Errorf("afterwards %d are waking others and %d wait", q.waking, len(q.settled))
	}
}

// TestQueueOrder: a few callers are on their way at once, in the order of their
// calls; whoever is next waits until one of them runs.
func TestQueueOrder(t *testing.T) {
	q := newQueue()
	var group []*call
	for range 10 * wokenAtOnce {
		group = append(group, &call{ctx: t.Context(), done: make(chan struct{}, 1)})
	}
	q.settle(group)
	onTheirWay := func() int {
		n := 0
		for i, c := range group {
			if c.woken != (len(c.done) == 1) {
				t.Fatalf("call %d: woken %v, told %v", i, c.woken, len(c.done) == 1)
			}
			if c.woken {
				n++
			}
		}
		for i, c := range group {
			if c.woken != (i < n) {
				t.Fatalf("%d are woken, and not the first ones: call %d: %v", n, i, c.woken)
			}
		}
		return n
	}
	first := onTheirWay()
	if first%wokenAtOnce != 0 || first == 0 || first > wokenAtOnce*max(q.waking, 1) {
		t.Fatalf("%d are woken at once by %d", first, q.waking)
	}
	// All of one few but its last run: nobody else is woken. Then its last.
	for _, c := range group[:wokenAtOnce-1] {
		q.pass(c)
	}
	if n := onTheirWay(); n != first {
		t.Fatalf("%d are on their way after %d, and the last of those had not run", n, first)
	}
	q.pass(group[wokenAtOnce-1])
	if n := onTheirWay(); n != min(first+wokenAtOnce, len(group)) {
		t.Fatalf("%d are on their way after %d, and one few had run", n, first)
	}
}

// TestQueueGroups: a group is taken when it is full or when nobody is about to
// come; what is in the queue when it closes is still taken.
func TestQueueGroups(t *testing.T) {
	q := newQueue()
	put := func(n int) {
		for range n {
			if !q.put(&call{ctx: t.Context()}) {
				t.Fatal("an open queue takes no call")
			}
		}
	}
	put(3)
	if got := q.next(nil); len(got) != 3 {
		t.Fatalf("%d of 3 calls, and nobody else was about to come", len(got))
	}
	late := &call{ctx: t.Context(), done: make(chan struct{}, 1)}
	q.settle([]*call{late}) // woken, and has not run
	put(2)
	if q.due() {
		t.Fatal("2 calls are taken while a caller is about to come")
	}
	put(maxGroup)
	if got := q.next(nil); len(got) != maxGroup {
		t.Fatalf("a group of %d, want a full one of %d", len(got), maxGroup)
	}
	q.settle(nil)
	if q.due() {
		t.Fatal("2 calls are taken while a caller is about to come")
	}
	q.pass(late)
	if !q.due() {
		t.Fatal("2 calls are not taken, and nobody is about to come")
	}
	put(maxGroup)
	q.close()
	if q.put(&call{ctx: t.Context()}) {
		t.Fatal("a closed queue takes a call")
	}
	if n := len(q.next(nil)) + len(q.next(nil)); n != maxGroup+2 {
		t.Fatalf("%d of %d calls that were there before it closed", n, maxGroup+2)
	}
	if got := q.next(nil); len(got) != 0 {
		t.Fatalf("%d calls of a closed and empty queue", len(got))
	}
}

// TestLeaveUnwoken: a caller whose context ends while others wait behind it is
// told so, and keeps nobody waiting.
func TestLeaveUnwoken(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	within := within(t)
	var wg sync.WaitGroup
	for i := range 64 {
		ctx, cancel := context.WithCancel(within)
		wg.Go(func() {
			defer cancel()
			for range 8 {
				es, err := newChain(keys, whole...)
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					go cancel()
				}
				switch _, err := s.Record(ctx, es...); {
				case err == nil:
				case !errors.Is(err, exeq.ErrRecord) || !errors.Is(err, context.Canceled):
					t.Error(err)
					return
				case i%2 != 0:
					t.Error("a caller that did not leave:", err)
				}
			}
		})
	}
	wg.Wait()
	sound(t, s)
}
