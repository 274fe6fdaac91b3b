//go:build linux

package enforce

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// An executable mapping is decided on by the descriptor. Between that and the
// call only threads of the same process could put another file under its
// number; they could as well write the code into anonymous memory, which is
// nobody's to decide. Another process can change bytes, and against that stands
// the copy.

// fixed reports whether everything there may be executed and nothing can be
// changed.
func (n *notifier) fixed(path string) bool {
	a := n.rights.Lookup(exeq.EncodeBytes(path))
	return a.Exec == exeq.ExecAll && !a.Write
}

func (t *nested) mapFile(n *notifier, q *notification) {
	fd := int(int32(q.args[4]))
	p := programs.Process{PID: int(q.pid)}
	f, err := p.Resolve(fd, "", programs.FollowLast)
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer f.Close()
	if f.Path == "" || f.Foreign || f.Process() || !f.Regular() {
		n.deny(fmt.Sprintf("map %s denied: what is mapped executable is a file with a path", exeq.EncodeBytes(f.Path)))
		n.fail(q, unix.EPERM)
		return
	}
	if within(f.Path, t.store) {
		n.resume(q) // a copy that was given
		return
	}
	id := exeq.EncodeBytes(f.Path)
	a := exeq.Activity{Action: exeq.ActionMap, PID: int(q.pid), Resource: exeq.Resource{Type: "Program", ID: id}}
	if !f.Stale && n.fixed(f.Path) {
		n.mu.Lock()
		seen := n.mapped[f.ID]
		n.mu.Unlock()
		if !seen {
			if a.Resource.SHA256, err = n.store.Digest(f, n.going(q)); err != nil {
				n.failAs(q, n.unread(a, err))
				return
			}
			n.gate.Seen(a, true)
			n.mu.Lock()
			n.mapped[f.ID] = true
			n.mu.Unlock()
		}
		n.resume(q)
		return
	}
	if f.Stale {
		n.deny(fmt.Sprintf("map %s denied: it was removed or renamed", id))
		n.fail(q, unix.EPERM)
		return
	}
	c, err := n.store.Put(f, n.going(q))
	if err != nil {
		n.failAs(q, n.unread(a, err))
		return
	}
	defer c.File.Close()
	a.Resource.SHA256 = c.Digest
	n.mapCopy(q, fd, a, c)
}

// protect answers mprotect with PROT_EXEC: anonymous memory may become
// executable, a file only where it could have been mapped so.
func (t *nested) protect(n *notifier, q *notification) {
	from := q.args[0] &^ 4095
	to := q.args[0] + q.args[1]
	maps, err := mappings(int(q.pid))
	if err != nil || to < from {
		n.fail(q, unix.EACCES)
		return
	}
	for _, m := range maps {
		if m.to <= from || m.from >= to || m.exec || !m.file() {
			continue
		}
		if m.path == "/dev/zero (deleted)" || within(m.path, t.store) { // shared anonymous memory; our copies
			continue
		}
		if !n.fixed(m.path) || strings.HasSuffix(m.path, " (deleted)") {
			n.deny(fmt.Sprintf("map %s denied: made executable after it was mapped", exeq.EncodeBytes(m.path)))
			n.fail(q, unix.EACCES)
			return
		}
	}
	n.resume(q)
}
