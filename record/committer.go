package record

import "runtime"

// maxGroup bounds the calls of one transaction: larger groups gain little, make
// everyone in them wait, and leave the other processor without work meanwhile.
const maxGroup = 128

// committer commits whatever calls have come in while the last transaction was
// being made durable, and from those who were about to call: it lets whoever
// has work to do go first, so that a busy machine has few large groups and not
// many small ones. One caller waits for nobody.
func (s *Store) committer() {
	defer close(s.done)
	group := make([]*call, 0, maxGroup)
	for {
		clear(group)
		group = group[:0]
		select {
		case c := <-s.calls:
			group = append(group, c)
		case <-s.closed:
			return
		}
		if len(s.calls) < maxGroup {
			runtime.Gosched()
		}
		group = s.gather(group)
		s.commit(group)
		bytes := int64(groupBytes)
		for _, c := range group {
			for _, l := range c.leaves {
				bytes += l.size()
			}
			close(c.done)
		}
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
