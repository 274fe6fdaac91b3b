//go:build linux

package node

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/node/wire"
)

// descriptors takes those that came with a message. One whose file system a
// user's own program may answer for is none: already to poll, to stat or to
// close it may last for ever.
func (n *Node) descriptors(oob []byte, uid int) (fds []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	for i := range msgs {
		got, _ := unix.ParseUnixRights(&msgs[i])
		for _, fd := range got {
			if oerr := n.gate.Ours(fd); oerr != nil {
				err = fmt.Errorf("%w: %w", wire.ErrProgram, oerr)
				n.discard(fd, uid)
				continue
			}
			// It may enter the file with the poller, and therefore comes last.
			fds = append(fds, os.NewFile(uintptr(fd), "descriptor"))
		}
	}
	return fds, err
}

// discard closes a descriptor without waiting for it. The kernel asks FUSE first
// (FLUSH), and waits for the answer even in a process that is killed: a node that
// ends meanwhile is not gone before whoever serves the file system is.
func (n *Node) discard(fd, uid int) {
	n.mu.Lock()
	n.stuck[uid]++
	n.mu.Unlock()
	go func() {
		unix.Close(fd)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.stuck[uid]--; n.stuck[uid] == 0 {
			delete(n.stuck, uid)
		}
	}()
}
