//go:build linux

package enforce

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// socketTable tells which unix sockets were bound inside the execution: those
// of its own network namespace.
type socketTable struct {
	mu   sync.Mutex
	diag int // NETLINK_SOCK_DIAG of that namespace
}

// connect makes the connection on the process's behalf, on its own socket and
// with the address read once. Inside the private network namespace any internet
// address is harmless; a unix socket is a door to a server of the host unless
// it was bound inside.
func (n *notifier) connect(q *notification, addr, size uint64) {
	if size < 2 || size > unix.SizeofSockaddrAny+32 {
		n.fail(q, unix.EINVAL)
		return
	}
	raw := make([]byte, size)
	if got, err := readMemory(int(q.pid), addr, raw); err != nil || got != len(raw) {
		n.fail(q, unix.EFAULT)
		return
	}
	sock, err := n.borrow(q, int(int32(q.args[0])))
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer unix.Close(sock)
	if binary.NativeEndian.Uint16(raw) == unix.AF_UNIX && len(raw) > 2 && raw[2] != 0 {
		name, _, _ := strings.Cut(string(raw[2:]), "\x00")
		p := programs.Process{PID: int(q.pid)}
		f, err := p.Resolve(unix.AT_FDCWD, name, programs.FollowLast)
		if err != nil {
			n.failAs(q, err)
			return
		}
		defer f.Close()
		if !n.valid(q) {
			n.forget(q)
			return
		}
		if !n.sockets.inside(f) {
			n.deny(fmt.Sprintf("connect unix:%s denied: the socket belongs to a server outside the execution", exeq.EncodeBytes(f.Path)))
			n.fail(q, unix.EACCES)
			return
		}
		// By descriptor: the path may lead elsewhere by now.
		own := fmt.Sprintf("/proc/self/fd/%d", f.FD())
		raw = append(raw[:2:2], own+"\x00"...)
	}
	if e := connectRaw(sock, raw); e != 0 {
		n.fail(q, e)
		return
	}
	n.send(q, response{})
}

// borrow duplicates a socket of the process that asks.
func (n *notifier) borrow(q *notification, fd int) (int, error) {
	pidfd, err := openPidfd(int(q.pid))
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	if !n.valid(q) {
		return -1, unix.ESRCH
	}
	return unix.PidfdGetfd(pidfd, fd, 0)
}

// sendto with an address goes to the network namespace's own loopback only:
// unix datagram sockets, whose address would be a path, cannot be made.
func (n *notifier) sendto(q *notification) { n.resume(q) }

func connectRaw(fd int, raw []byte) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)))
		if errno != unix.EINTR {
			return errno
		}
	}
}

const pidfdThread = unix.O_EXCL // PIDFD_THREAD, Linux 6.9

// openPidfd gives a pidfd for a thread, before Linux 6.9 for its process: the
// descriptors are the same ones unless a thread unshared them.
func openPidfd(tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, pidfdThread)
	if err != unix.EINVAL {
		return fd, err
	}
	group, err := threadGroup(tid)
	if err != nil {
		return -1, err
	}
	return unix.PidfdOpen(group, 0)
}

func threadGroup(tid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, unix.ESRCH
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(s))
		}
	}
	return 0, unix.ESRCH
}

const (
	sockDiagByFamily = 20
	diagShowVFS      = 2
	diagVFS          = 1
)

// inside asks the kernel whether a socket of the execution's own network
// namespace is bound to the file. Any doubt is no.
func (t *socketTable) inside(f *programs.File) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	req := make([]byte, unix.SizeofNlMsghdr+24)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // every state
	binary.NativeEndian.PutUint32(body[12:], diagShowVFS)
	if err := unix.Sendto(t.diag, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false
	}
	found := false
	buf := make([]byte, 32<<10)
	for {
		got, _, err := unix.Recvfrom(t.diag, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:got])
		if err != nil {
			return false
		}
		for _, m := range msgs {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return found
			case unix.NLMSG_ERROR:
				return false
			case sockDiagByFamily:
				found = found || boundTo(m.Data, f)
			}
		}
	}
}

// boundTo reads struct unix_diag_msg and its attributes.
func boundTo(b []byte, f *programs.File) bool {
	for b = b[min(16, len(b)):]; len(b) >= 4; {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < 4 || size > len(b) {
			return false
		}
		if kind == diagVFS && size >= 12 {
			ino, dev := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
			if ino == uint32(f.ID.Ino) && dev>>20 == unix.Major(f.ID.Dev) && dev&0xfffff == unix.Minor(f.ID.Dev) {
				return true
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false
}
