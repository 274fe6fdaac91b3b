package record

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/exeq/exeq"
)

// wokenAtOnce is how many callers are woken by one; see [queue]. One alone would
// be a chain that Go lets keep its processor, before all that waits in its
// queues, the committer and preempted callers among them.
const wokenAtOnce = 8

// queue brings calls to the committer and its word back to their callers, both
// in the order in which they came.
//
// Callers whose calls are settled are not all woken at once: the last of a few
// wakes the next few when it runs. A trace of 256 callers showed that most of
// their time is that between their commit and their turn on a processor, and
// that a group woken whole gets it in no order: Go puts everyone into the queue
// of the committer's processor, which serves nobody while the next group is
// written; another processor steals half of them once it has nothing else to
// do, and who is woken there later goes first. Half waited for 6.4 ms and one in a
// hundred for 25. Here a few for each processor are on their way, so that none
// is idle while a caller could run, and the others wait in order: one in a
// hundred waits less than twice as long as most.
type queue struct {
	mu      sync.Mutex
	more    sync.Cond // the committer waits for calls
	waiting []*call   // for the committer, oldest first
	settled []*call   // their callers are not woken yet, oldest first
	waking  int       // callers woken, each of which wakes the next; 0 only if settled is empty
	busy    bool      // the committer commits
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.more.L = &q.mu
	return q
}

// submit hands the call to the committer and waits until it is settled. When
// its context ends first its fate is unknown, which is an error as good as any.
func (q *queue) submit(c *call) error {
	c.done = make(chan struct{}, 1)
	if !q.put(c) {
		return fmt.Errorf("%w: the store is closed", exeq.ErrRecord)
	}
	select {
	case <-c.done:
	case <-c.ctx.Done():
		if !q.leave(c) {
			return fmt.Errorf("%w: %w", exeq.ErrRecord, context.Cause(c.ctx))
		}
	}
	q.pass(c)
	c.over = true
	return c.err
}

// put queues a call; false: the queue is closed.
func (q *queue) put(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.waiting = append(q.waiting, c)
	if !q.busy && q.due() {
		q.more.Signal()
	}
	return true
}

// due says that a group is worth its commit: it is full, or nobody is about to
// come. Who was just woken often is, and waits the less for the larger group.
func (q *queue) due() bool {
	return len(q.waiting) >= maxGroup || len(q.waiting) > 0 && q.waking == 0 || q.closed
}

// next waits for calls and adds them to group; none: the queue is closed and
// empty. Until settle is called the committer counts as busy.
func (q *queue) next(group []*call) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	for !q.due() {
		q.more.Wait()
	}
	if len(q.waiting) < maxGroup && !q.closed {
		// Whoever has work to do goes first: where many begin at once, they come
		// into one group.
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
	}
	q.busy = true
	n := min(len(q.waiting), maxGroup)
	group = append(group, q.waiting[:n]...)
	q.waiting = shift(q.waiting, n)
	return group
}

// settle has the callers of a group woken, in its order.
func (q *queue) settle(group []*call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settled = append(q.settled, group...)
	for n := runtime.GOMAXPROCS(0); q.waking < n && len(q.settled) > 0; {
		q.wake()
	}
}

// wake wakes the next few callers, the last of which is to pass.
func (q *queue) wake() {
	var now [wokenAtOnce]*call
	i, n := 0, 0
	for ; i < len(q.settled) && n < len(now); i++ {
		if c := q.settled[i]; !c.left {
			now[n], c.woken = c, true
			n++
		}
	}
	q.settled = shift(q.settled, i)
	if n == 0 {
		return
	}
	q.waking++
	now[n-1].passes = true
	// The last that is made ready runs first.
	for _, c := range now[1:n] {
		c.done <- struct{}{}
	}
	now[0].done <- struct{}{}
}

// pass is what a caller does that was woken: the last of a few wakes the next.
func (q *queue) pass(c *call) {
	if !c.passes {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waking--
	q.wake()
	if !q.busy && q.due() {
		q.more.Signal()
	}
}

// leave is what a caller does that waits no longer. It reports whether it was
// woken meanwhile.
func (q *queue) leave(c *call) (woken bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.left = true
	return c.woken
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Signal()
}

// shift takes the first n away and keeps the memory.
func shift(calls []*call, n int) []*call {
	rest := copy(calls, calls[n:])
	clear(calls[rest:])
	return calls[:rest]
}
