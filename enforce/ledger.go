//go:build linux

package enforce

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// ledger remembers which inodes were decided on, so that evidence can tell a
// running program that was from one that was not.
type ledger struct {
	mu    sync.Mutex
	files map[inode]decided
}

type inode struct{ dev, ino uint64 }

type decided struct {
	id       programs.Identity
	resource exeq.Resource
}

func (l *ledger) put(id programs.Identity, r exeq.Resource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files == nil {
		l.files = map[inode]decided{}
	}
	l.files[inode{id.Dev, id.Ino}] = decided{id, r}
}

// add notes a file that is executed where it lies.
func (l *ledger) add(f *programs.File, r exeq.Resource) { l.put(f.ID, r) }

// addCopy notes a copy, under the path that it stands in for.
func (l *ledger) addCopy(c *programs.Copy, r exeq.Resource) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(c.File.Fd()), &st); err != nil {
		return err
	}
	l.put(identityOf(&st), r)
	return nil
}

// find tells what was decided on for an inode, and whether it is unchanged.
func (l *ledger) find(st *unix.Stat_t) (r exeq.Resource, intact, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.files[inode{uint64(st.Dev), st.Ino}]
	return d.resource, ok && d.id == identityOf(st), ok
}

func identityOf(st *unix.Stat_t) programs.Identity {
	return programs.Identity{Dev: uint64(st.Dev), Ino: st.Ino, Ctime: st.Ctim.Nano(), Size: st.Size, Mode: st.Mode}
}
