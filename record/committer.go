package record

import "runtime"

// maxGroup bounds the calls of one transaction: larger groups gain little, make
// everyone in them wait, and leave the other processor without work meanwhile.
const maxGroup = 128

// Callers whose group is durable are woken a few at a time. Go's scheduler lets
// what returns from a system call wait behind all that its processors have in
// their queues: with a whole group woken at once the committer would wait for
// milliseconds after each write, and everyone with it.
const (
	wokenAtOnce = 16 // while calls are gathered: enough that no processor is idle
	wokenAhead  = 32 // before a commit: what the processors do while the disk writes
)

// committer commits whatever calls have come in while the last transaction was
// being made durable, and from those who were about to call: it lets whoever
// has work to do go first, so that a busy machine has few large groups and not
// many small ones. One caller waits for nobody.
func (s *Store) committer() {
	defer close(s.done)
	var durable []*call // whose callers are not woken yet, oldest first
	wake := func(n int) {
		n = min(n, len(durable))
		for _, c := range durable[:n] {
			close(c.done)
		}
		durable = durable[n:]
	}
	group := make([]*call, 0, maxGroup)
	for {
		clear(group)
		group = group[:0]
		if len(durable) == 0 {
			select {
			case c := <-s.calls:
				group = append(group, c)
			case <-s.closed:
				return
			}
		}
		group = s.gather(group)
		for len(group) < maxGroup {
			before, woken := len(group), min(wokenAtOnce, len(durable))
			wake(woken)
			runtime.Gosched()
			if group = s.gather(group); woken == 0 && len(group) == before {
				break
			}
		}
		if len(group) == 0 {
			continue
		}
		wake(wokenAhead)
		s.commit(group)
		bytes := int64(groupBytes)
		for _, c := range group {
			for _, l := range c.leaves {
				bytes += l.size()
			}
		}
		durable = append(durable, group...)
		wake(wokenAtOnce)
		s.wake.ring()
		s.writer.wrote(bytes)
	}
}

// gather adds the calls that wait to a group, as far as it has room.
func (s *Store) gather(group []*call) []*call {
	for len(group) < maxGroup {
		select {
		case c := <-s.calls:
			group = append(group, c)
		default:
			return group
		}
	}
	return group
}
