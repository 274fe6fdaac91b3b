//go:build linux

package node

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/wire"
)

// silent is a file system that gives one file and never answers when it is to be
// flushed, polled or asked for its size again; mute, it answers nothing at all.
type silent struct {
	dir     string
	mute    atomic.Bool
	opened  atomic.Bool
	flushed atomic.Int64
}

// The requests of FUSE that it knows.
const (
	fuseLookup, fuseForget, fuseGetattr, fuseOpen = 1, 2, 3, 14
	fuseFlush, fuseInit, fuseInterrupt, fusePoll  = 25, 26, 36, 40
	fuseRelease, fuseStatfs, fuseBatchForget      = 18, 17, 42
)

func newSilent(t *testing.T) *silent {
	t.Helper()
	return silentAt(t, t.TempDir())
}

func silentAt(t *testing.T, dir string) *silent {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	s := &silent{dir: dir}
	if err := unix.Mount("silent", s.dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)); err != nil {
		unix.Close(dev)
		t.Skip(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.serve(dev)
	}()
	t.Cleanup(func() {
		s.end()
		<-ended
		unix.Close(dev)
	})
	return s
}

// end has each request that waits fail.
func (s *silent) end() { unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH) }

func (s *silent) serve(dev int) {
	le, b := binary.LittleEndian, make([]byte, 1<<17)
	// attr is of the directory, 1, or the file, 2.
	attr := func(node uint64) []byte {
		a := make([]byte, 88)
		le.PutUint64(a, node)
		le.PutUint32(a[60:], unix.S_IFREG|0o755)
		if node == 1 {
			le.PutUint32(a[60:], unix.S_IFDIR|0o755)
		}
		le.PutUint32(a[64:], 1)
		return a
	}
	for {
		n, err := unix.Read(dev, b)
		if err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		var out []byte
		var no unix.Errno
		if s.mute.Load() && le.Uint32(b[4:]) != fuseInit {
			continue
		}
		switch node := le.Uint64(b[16:]); le.Uint32(b[4:]) {
		case fuseInit:
			out = make([]byte, 64)
			le.PutUint32(out, 7)
			le.PutUint32(out[4:], 31)
			le.PutUint32(out[20:], 1<<16) // max_write
		case fuseLookup:
			out = make([]byte, 40, 128)
			le.PutUint64(out, 2)
			out = append(out, attr(2)...)
		case fuseGetattr:
			if s.opened.Load() {
				continue
			}
			out = append(make([]byte, 16, 104), attr(node)...)
		case fuseOpen:
			s.opened.Store(true)
			out = make([]byte, 16)
		case fuseFlush:
			s.flushed.Add(1)
			continue
		case fusePoll, fuseStatfs, fuseForget, fuseBatchForget, fuseInterrupt:
			continue
		case fuseRelease:
		default:
			no = unix.ENOSYS
		}
		head := make([]byte, 16, 16+len(out))
		le.PutUint32(head, uint32(16+len(out)))
		le.PutUint32(head[4:], uint32(-int32(no)))
		copy(head[8:], b[8:16])
		unix.Write(dev, append(head, out...))
	}
}

// TestSilentDescriptors: a file whose server never answers holds up neither the
// node nor its end, and whoever sends such ones is not heard any more.
func TestSilentDescriptors(t *testing.T) {
	w := newWorld(t)
	s := newSilent(t)
	fd, err := unix.Open(filepath.Join(s.dir, "file"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	defer func() {
		s.end()
		unix.Close(fd)
	}()
	a := wire.Request{Approve: &wire.Approve{Permit: exeq.NewID(), Path: "/usr/bin/x"}}
	stuck := func() int {
		w.node.mu.Lock()
		defer w.node.mu.Unlock()
		return w.node.stuck[os.Getuid()]
	}
	for range maxStuck {
		_, err := w.ask(a, fd)
		refused(t, err, wire.ErrProgram)
	}
	if n := stuck(); n != maxStuck {
		t.Errorf("%d descriptors do not close, not %d", n, maxStuck)
	}
	_, err = w.ask(a, fd)
	refused(t, err, wire.ErrBusy)
	for end := time.Now().Add(20 * time.Second); s.flushed.Load() < maxStuck; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d closings wait for an answer: the attack is none", s.flushed.Load())
		}
	}
	go func() {
		defer close(closed)
		w.stop()
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the node does not end")
	}
	s.end()
	for end := time.Now().Add(20 * time.Second); stuck() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("they do not close when the file system is gone")
		}
	}
	<-closed
}
