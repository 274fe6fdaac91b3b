//go:build linux

package client

import (
	"crypto/ed25519"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce"
	"github.com/exeq/exeq/node/wire"
)

var _ enforce.Warden = (*Client)(nil)

// TestServedByRoot: a socket that another user serves is no node's, whatever is
// said there.
func TestServedByRoot(t *testing.T) {
	if uid, err := dial(t, 65534); !errors.Is(err, wire.ErrPeer) {
		t.Errorf("user %d is believed to be a node: %v", uid, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if _, err := dial(t, 0); err != nil {
		t.Errorf("root is not: this shows nothing: %v", err)
	}
}

// dial asks a node that the user plays (or this one, where it may not change).
func dial(t *testing.T, uid int) (int, error) {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "exeq-client-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "socket")
	l := make(chan net.Listener, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its user
		if os.Geteuid() == 0 {
			if err := os.Chmod(dir, 0o777); err == nil {
				unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
			}
		}
		at, err := net.Listen("unix", path)
		if err != nil {
			t.Error(err)
		}
		l <- at
	}()
	at := <-l
	if at == nil {
		t.FailNow()
	}
	defer at.Close()
	go func() {
		for {
			c, err := at.Accept()
			if err != nil {
				return
			}
			b, _ := wire.Frame(wire.Answer{Version: wire.Version, Hello: &wire.Identity{Audience: exeq.Audience{Node: exeq.KeyID(pub)}, PublicKey: pub, Tier: exeq.TierKernelLite, Serves: true}})
			c.Write(b)
			c.Close()
		}
	}()
	_, err = Dial(t.Context(), path)
	return uid, err
}
