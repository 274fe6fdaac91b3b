//go:build linux

package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/node/wire"
)

// TestMain is also who asks from somewhere else.
func TestMain(m *testing.M) {
	if socket := os.Getenv("EXEQ_TEST_ASK"); socket != "" {
		b, _ := wire.Frame(wire.Request{Version: wire.Version, Hello: &struct{}{}})
		_, err := send(socket, b)
		fmt.Print(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const hello = `{"v":1,"hello":{}}`

func framed(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

// TestSocketBadInput: each bad message gets an error of its own and changes
// nothing for the execution that runs.
func TestSocketBadInput(t *testing.T) {
	w := newWorld(t)
	d, x := w.enclosed()
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	fd := int(null.Fd())
	for name, c := range map[string]struct {
		bytes []byte
		fds   []int
		want  string
	}{
		"nothing":             {framed(""), nil, "not understood"},
		"garbage":             {framed("\x00\xff\x13garbage"), nil, "not understood"},
		"a web browser":       {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil, "over the limit"},
		"no object":           {framed("7"), nil, "not understood"},
		"no request":          {framed(`{"v":1}`), nil, "0 things"},
		"two requests":        {framed(`{"v":1,"hello":{},"status":{}}`), nil, "2 things"},
		"another version":     {framed(`{"v":2,"hello":{}}`), nil, "version 2"},
		"an unknown member":   {framed(`{"v":1,"hello":{},"x":1}`), nil, "not understood"},
		"another case":        {framed(`{"V":1,"hello":{}}`), nil, "not understood"},
		"twice the same":      {framed(`{"v":1,"hello":{},"hello":{}}`), nil, "not understood"},
		"two values":          {framed(hello + hello), nil, "not understood"},
		"invalid text":        {framed("{\"v\":1,\"challenge\":{\"permit\":\"\xff\"}}"), nil, "not understood"},
		"deep":                {framed(strings.Repeat(`{"hello":`, 100)), nil, "not understood"},
		"huge":                {append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 1<<20)...), nil, "over the limit"},
		"a descriptor":        {framed(hello), []int{fd}, "1 descriptors"},
		"many descriptors":    {framed(hello), []int{fd, fd, fd, fd, fd, fd, fd, fd}, "more than"},
		"missing descriptors": {framed(`{"v":1,"enclose":{"permit":"x"}}`), nil, "0 descriptors"},
		"no such execution":   {framed(`{"v":1,"challenge":{"permit":"../../x"}}`), nil, "no such execution"},
	} {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			_, err := send(w.socket, c.bytes, c.fds...)
			var refusal *wire.Error
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want one that says %q", err, c.want)
			}
			for end := time.Now().Add(5 * time.Second); descriptors(t) > before; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d descriptors are open, %d were", descriptors(t), before)
				}
			}
		})
	}
	if !alive(x.command) {
		t.Error("the execution is gone")
	}
	w.challenge(d)
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(d)
}

// dialAs connects as another user: the kernel tells the credentials of the
// thread that connects.
func dialAs(t *testing.T, socket string, uid int) net.Conn {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	same := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); e != 0 {
		t.Fatal(e)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, 0, same); e != 0 {
		t.Fatal(e)
	}
	must(t, err)
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestSocketWhoAsks: users whom no issuer permits are told so without being
// heard, and so is whoever asks from inside.
func TestSocketWhoAsks(t *testing.T) {
	w := newWorld(t)
	w.trustIssuer("other", w.ring, 1234)
	c := dialAs(t, w.socket, 1235)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := wire.ReadAnswer(c) // nothing was said
	refused(t, err, wire.ErrPeer)
	time.Sleep(trustTime + 50*time.Millisecond)
	c = dialAs(t, w.socket, 1234)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write(framed(hello))
	a, err := wire.ReadAnswer(c)
	if err != nil || !a.Hello.Serves {
		t.Errorf("%+v, %v", a, err)
	}

	// Trust that others could have written is none.
	must(t, os.Chmod(filepath.Join(w.config.Trust, "other.json"), 0o666))
	time.Sleep(trustTime + 50*time.Millisecond)
	c = dialAs(t, w.socket, 1234)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = wire.ReadAnswer(c)
	refused(t, err, wire.ErrPeer)

	dir := filepath.Join(w.config.Cgroup, "inside")
	must(t, os.Mkdir(dir, 0o755))
	at, err := os.Open(dir)
	must(t, err)
	defer at.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"EXEQ_TEST_ASK=" + w.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(at.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), wire.ErrInside.Error()) {
		t.Errorf("from inside: %v %s", err, out)
	}
}

// TestSocketOwner: what one user had admitted is not another's, nor another
// process's, to touch.
func TestSocketOwner(t *testing.T) {
	w := newWorld(t)
	w.trustIssuer("other", w.ring, 1234)
	d, x := w.enclosed()
	time.Sleep(trustTime + 50*time.Millisecond)
	for _, member := range []string{"challenge", "hold", "resume", "over"} {
		c := dialAs(t, w.socket, 1234)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write(framed(fmt.Sprintf(`{"v":1,%q:{"permit":%q}}`, member, d.permit.Body.ID)))
		_, err := wire.ReadAnswer(c)
		refused(t, err, wire.ErrOwner)
	}
	c := dialAs(t, w.socket, 1234)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write(framed(`{"v":1,"status":{}}`))
	if a, err := wire.ReadAnswer(c); err != nil || len(a.Status.Executions) != 0 {
		t.Errorf("another's executions are listed: %+v %v", a, err)
	}
	if !alive(x.command) {
		t.Error("it is gone")
	}
}

// TestSocketFlood: one user's slow and large messages, and connections without
// end, take a bounded part of the node and nothing of others.
func TestSocketFlood(t *testing.T) {
	w := newWorld(t)
	w.trustIssuer("other", w.ring, 1234)
	d, x := w.enclosed()
	time.Sleep(trustTime + 50*time.Millisecond)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var slow []net.Conn
	for range 4 * maxUserConnections {
		c := dialAs(t, w.socket, 1234)
		c.Write(binary.BigEndian.AppendUint32(nil, wire.MaxMessage)) // and no more
		slow = append(slow, c)
	}
	// Meanwhile others are served, large messages included.
	w.challenge(d)
	big := w.draft()
	for i := range 4000 {
		big.rights.Cells = append(big.rights.Cells, big.rights.Cells[1])
		big.rights.Cells[len(big.rights.Cells)-1].Path = fmt.Sprintf("/usr/%06d", i)
	}
	if _, err := w.ask(wire.Request{Admit: big.issue(t)}); err != nil {
		t.Errorf("a large message of another user: %v", err)
	}
	if !alive(x.command) {
		t.Error("the execution is gone")
	}
	// One of them was read at a time; the others were turned away, at once or
	// when their time was over.
	busy := 0
	for _, c := range slow {
		c.SetReadDeadline(time.Now().Add(6 * messageTime))
		if _, err := wire.ReadAnswer(c); errors.Is(err, wire.ErrBusy) {
			busy++
		}
	}
	if busy < len(slow)-4 {
		t.Errorf("%d of %d connections were turned away", busy, len(slow))
	}
	for end := time.Now().Add(3 * messageTime); ; time.Sleep(50 * time.Millisecond) {
		w.node.mu.Lock()
		left := w.node.connections[1234]
		w.node.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d slow connections are still served", left)
		}
	}
	if after := heap(); after > before+16<<20 {
		t.Errorf("%d bytes are held after the flood, %d before", after, before)
	}
}

// TestListen: another node's socket is not taken over, and a stale one is.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := Listen(path); err == nil {
		t.Error("a file that is no socket was replaced")
	}
	must(t, os.Remove(path))
	l, err := Listen(path)
	must(t, err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(io.Discard, c)
		}
	}()
	if _, err := Listen(path); err == nil {
		t.Error("a socket that is served was taken over")
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if l, err = Listen(path); err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// TestOneNode: two nodes do not share a state.
func TestOneNode(t *testing.T) {
	w := newWorld(t)
	c := w.config
	c.Pins += "-2"
	c.Cgroup += "-2"
	if n, err := Open(c); err == nil {
		n.Close()
		t.Error("a second node opened the state of the first")
	}
}
