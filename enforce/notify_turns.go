//go:build linux

package enforce

import (
	"io"
	"sync/atomic"
)

// One worker at a time waits for notifications, since the kernel wakes everyone
// who waits, for each of them: it has the turn. What takes a look it answers by
// itself; before anything else it passes the turn on, so that a slow ruling
// delays nobody, and answers then, on the thread that is awake already. A look
// that takes long (a file system that does not answer) loses the turn at a tick.

// turns says whose turn it is, and what look is under way.
type turns struct {
	now   atomic.Int64 // the number of the worker whose turn it is
	looks atomic.Int64 // counts them
	look  atomic.Int64 // the number of the one under way, 0: none
	last  atomic.Int64 // the one that was at the last tick
}

// work has a first worker wait.
func (n *notifier) work() { n.pass(n.turns.now.Load()) }

// pass starts a worker that has the turn after the one of that number; nobody
// gets it twice.
func (n *notifier) pass(turn int64) {
	if n.turns.now.CompareAndSwap(turn, turn+1) {
		n.workers.Add(1)
		go n.serve(turn + 1)
	}
}

// serve answers for as long as it is this worker's turn and the execution is
// there.
func (n *notifier) serve(turn int64) {
	defer n.workers.Done()
	for n.turns.now.Load() == turn {
		q, err := n.next()
		if err != nil {
			if err != io.EOF && n.ctx.Err() == nil {
				n.log.Error("notifications end", "error", err)
			}
			return
		}
		if n.holding() || !n.look(q) {
			n.pass(turn)
			n.handle(q)
			return
		}
	}
}

// look is quick, and says that it is under way.
func (n *notifier) look(q *notification) bool {
	look := n.turns.looks.Add(1)
	n.turns.look.Store(look)
	defer n.turns.look.CompareAndSwap(look, 0)
	return n.quick(q)
}

// tick passes the turn on if whoever has it still is at the look of the last
// tick.
func (n *notifier) tick() {
	turn, look := n.turns.now.Load(), n.turns.look.Load()
	if n.turns.last.Swap(look) == look && look != 0 {
		n.turns.look.CompareAndSwap(look, 0)
		n.pass(turn)
	}
}
