//go:build linux

package node

import (
	"os"
	"path/filepath"
)

// warm has the kernel ready for a move between cgroups. The first one in a while
// waits until every processor has come to rest (cgroup_threadgroup_rwsem, in a
// hierarchy that is not mounted favordynmods), with the next a few milliseconds
// later it does not. A supervisor that says hello still has its walls to build, so
// the wait is over when it has: this process is moved to where it is. What comes
// of it is of no account, and one at a time is enough.
func (n *Node) warm() {
	if !n.warming.CompareAndSwap(false, true) {
		return
	}
	if !n.use() {
		return
	}
	go func() {
		defer n.done.Done()
		defer n.warming.Store(false)
		if at, err := cgroupOf(os.Getpid()); err == nil {
			os.WriteFile(filepath.Join(n.top, at, "cgroup.procs"), []byte("0"), 0)
		}
	}()
}
