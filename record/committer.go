package record

// maxGroup bounds the calls of one transaction: larger groups gain little, make
// everyone in them wait, and leave the other processor without work meanwhile.
const maxGroup = 128

// committer commits whatever calls have come in while the last transaction was
// being made durable, and from those who are about to call, so that a busy
// machine has few large groups and not many small ones; see [queue.due]. One
// caller waits for nobody.
func (s *Store) committer() {
	defer close(s.done)
	group := make([]*call, 0, maxGroup)
	for {
		clear(group)
		if group = s.queue.next(group[:0]); len(group) == 0 {
			return
		}
		s.commit(group)
		bytes := int64(groupBytes)
		for _, c := range group {
			for i := range c.leaves {
				bytes += c.leaves[i].size()
			}
		}
		s.queue.settle(group)
		s.wake.ring()
		s.writer.wrote(bytes)
	}
}
