//go:build linux

package enforce

// quick answers at once what needs no look at anything.
func (t *nested) quick(*notifier, *notification) bool { return false }

// handle answers a notification that this tier answers in its own way.
func (t *nested) handle(n *notifier, q *notification) bool {
	switch q.nr {
	case sysMmap:
		t.mapFile(n, q)
	case sysMprotect, sysPkeyMprotect:
		t.protect(n, q)
	case sysConnect:
		t.connect(n, q)
	default:
		args := n.written(q)
		names := absolute(int(q.pid), args)
		if !t.file(n, q) {
			return false
		}
		n.noteWrites(names, args)
	}
	return true
}
