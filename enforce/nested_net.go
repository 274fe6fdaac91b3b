//go:build linux

package enforce

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// The network is the one of the host or container. Landlock lets TCP connect
// to the proxy's port, of whatever address; the address is the supervisor's to
// choose, because it makes the connection: on the process's own socket where it
// may take it, else on a new one that replaces it.

// connect answers connect: the proxy, or nothing.
func (t *nested) connect(n *notifier, q *notification) {
	addr, size := q.args[1], q.args[2]
	if size < 2 || size > unix.SizeofSockaddrAny+32 {
		n.fail(q, unix.EINVAL)
		return
	}
	raw := make([]byte, size)
	if got, err := readMemory(int(q.pid), addr, raw); err != nil || got != len(raw) {
		n.fail(q, unix.EFAULT)
		return
	}
	to, ok := inetAddress(raw)
	if !ok {
		n.fail(q, unix.EACCES)
		return
	}
	if to.Addr().Unmap() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) || int(to.Port()) != t.proxy.Port {
		n.deny(fmt.Sprintf("connect %s denied: only Exeq's proxy (http_proxy) leads out", exeq.EncodeBytes(to.String())))
		n.fail(q, unix.EACCES)
		return
	}
	fd := int(int32(q.args[0]))
	sock, err := n.borrow(q, fd)
	if err == nil {
		defer unix.Close(sock)
		n.answerConnect(q, sock, raw, t.net)
		return
	}
	if err != unix.EPERM && err != unix.ENOSYS {
		n.failAs(q, err)
		return
	}
	t.replace(n, q, fd)
}

func inetAddress(raw []byte) (netip.AddrPort, bool) {
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET && len(raw) >= 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:])), true
	case family == unix.AF_INET6 && len(raw) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), binary.BigEndian.Uint16(raw[2:])), true
	}
	return netip.AddrPort{}, false
}

func (n *notifier) answerConnect(q *notification, sock int, raw []byte, l *gatedListener) {
	l.expect()
	e := connectRaw(sock, raw)
	local, err := unix.Getsockname(sock)
	if e != 0 && e != unix.EINPROGRESS || err != nil {
		l.expected(0)
		if e == 0 {
			e = unix.EACCES
		}
		n.fail(q, e)
		return
	}
	l.expected(portOf(local))
	if e != 0 {
		n.fail(q, e)
		return
	}
	n.send(q, response{})
}

func portOf(a unix.Sockaddr) int {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}

// replace puts a connected socket of ours in the place of the process's, with
// its flags but without its options.
func (t *nested) replace(n *notifier, q *notification, fd int) {
	kind, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", q.pid, fd))
	if err != nil || len(kind) < 7 || kind[:7] != "socket:" {
		n.fail(q, unix.ENOTSOCK)
		return
	}
	flags, err := fdFlags(int(q.pid), fd)
	if err != nil {
		n.failAs(q, err)
		return
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer unix.Close(sock)
	t.net.expect()
	err = unix.Connect(sock, &unix.SockaddrInet4{Port: t.proxy.Port, Addr: [4]byte{127, 0, 0, 1}})
	local, lerr := unix.Getsockname(sock)
	if err != nil || lerr != nil {
		t.net.expected(0)
		n.failAs(q, err)
		return
	}
	t.net.expected(portOf(local))
	if flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(sock, true); err != nil {
			n.failAs(q, err)
			return
		}
	}
	if e := n.give(q, sock, fd, flags&unix.O_CLOEXEC != 0); e != 0 {
		n.fail(q, e)
		return
	}
	n.send(q, response{})
}

// gatedListener accepts what this supervisor connected and closes what others
// of the machine did.
type gatedListener struct {
	net.Listener
	mu      sync.Mutex
	pending int // connections whose port is not known yet
	known   *sync.Cond
	ports   map[int]bool
}

// expect says that a connection is about to be made; expected, exactly once
// after it, from which port (0: it was not).
func (l *gatedListener) expect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	l.pending++
}

func (l *gatedListener) init() {
	if l.known == nil {
		l.known, l.ports = sync.NewCond(&l.mu), map[int]bool{}
	}
}

func (l *gatedListener) expected(port int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending--
	if port != 0 {
		l.ports[port] = true
	}
	l.known.Broadcast()
}

// Accept implements net.Listener.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.ours(c.RemoteAddr().(*net.TCPAddr).Port) {
			return c, nil
		}
		c.Close()
	}
}

func (l *gatedListener) ours(port int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	for !l.ports[port] && l.pending > 0 {
		l.known.Wait()
	}
	ok := l.ports[port]
	delete(l.ports, port)
	return ok
}
