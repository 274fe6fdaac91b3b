//go:build linux

package spawn

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Role says which process a list runs in.
type Role uintptr

// The roles, parent first.
const (
	RoleAgent Role = iota
	RoleInit
	RoleCommand
	roles
)

// Everything in this file runs in clones, where there is no Go runtime: only
// nosplit functions, raw system calls, memory of the arena, no pointer stores.

type agentMemory struct {
	ctl, timer       int32 // descriptors
	initPID, initFD  int32 // initFD is -1 until there is an init
	first            uintptr
	list             uint64 // the request: an offset
	reply            failure
	polls            [3]unix.PollFd
	spec             unix.ItimerSpec
	now              unix.Timespec
	iov              unix.Iovec
	msg              unix.Msghdr
	cmsg             [cmsgSize]byte
	expirations      uint64
	status, _padding int32
}

type initMemory struct {
	events     int32 // descriptor
	commandPID int32
	status     int32
	_          int32
	event      [2]uint32
}

// MaxFDs is how many descriptors one message carries.
const MaxFDs = 16

const (
	cmsgHeader = 16 // struct cmsghdr on 64-bit machines
	cmsgSize   = cmsgHeader + 4*MaxFDs
)

// run walks the list at an offset. A fork continues here twice: the child
// comes back with its own role when its own list ended.
//
//go:nosplit
//go:norace
//go:nocheckptr
func run(base unsafe.Pointer, at uintptr, role uintptr) (uintptr, failure) {
	for {
		op := (*Op)(unsafe.Add(base, at))
		at += unsafe.Sizeof(Op{})
		if op.Nr == stepEnd {
			return role, failure{}
		}
		var r uintptr
		var errno syscall.Errno
		if op.Nr == stepFork {
			r, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, op.Args[0], unsafe.Sizeof(cloneArgs{}), 0, 0, 0, 0)
			if errno == unix.ENOSYS {
				// A container's filter. clone has no CLONE_CLEAR_SIGHAND, which
				// execve makes up for.
				flags := (*cloneArgs)(unsafe.Add(base, op.Args[0]-uintptr(base))).Flags
				r, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(flags&^unix.CLONE_CLEAR_SIGHAND)|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			}
			if r == 0 && errno == 0 {
				at, role = op.Args[1], op.Args[2]
				continue
			}
		} else {
			r, _, errno = syscall.RawSyscall6(op.Nr, arg(base, op, 0), arg(base, op, 1), arg(base, op, 2),
				arg(base, op, 3), arg(base, op, 4), arg(base, op, 5))
		}
		e := int32(errno)
		switch {
		case e == 0 && op.Want == 0 && op.Flags&Refused == 0:
			if op.Out != 0 {
				*(*int32)(unsafe.Add(base, op.Out)) = int32(r)
			}
			at += uintptr(op.OnOK) * unsafe.Sizeof(Op{})
		case e != 0 && (e == op.Want || op.tolerates(e)):
			at += uintptr(op.OnError) * unsafe.Sizeof(Op{})
		default:
			return role, failure{op.Name + 1, e}
		}
	}
}

//go:nosplit
//go:norace
//go:nocheckptr
func arg(base unsafe.Pointer, op *Op, i uintptr) uintptr {
	v := *(*uintptr)(unsafe.Add(unsafe.Pointer(&op.Args), 8*i))
	if op.Load&(1<<i) != 0 {
		return uintptr(*(*int32)(unsafe.Add(base, v)))
	}
	return v
}

// childMain is the whole life of a clone.
//
//go:nosplit
//go:norace
//go:nocheckptr
func childMain(base unsafe.Pointer) {
	h := (*header)(base)
	at := h.agent.first
	for {
		role, f := run(base, at, uintptr(RoleAgent))
		if role != uintptr(RoleAgent) {
			if f.Step == 0 && role == uintptr(RoleInit) {
				if h.tree.wanted != 0 {
					reapTree(h)
				}
				reap(h)
			}
			fail(base, role, f)
		}
		if f.Step == 0 {
			h.tree.armed = h.tree.wanted
		} else if h.tree.armed == 0 {
			h.tree.wanted = 0 // not confined: it must never signal anybody
		}
		h.agent.reply = f
		atomic.AddInt64(&h.Answers, 1)
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(h.agent.ctl), uintptr(unsafe.Pointer(&h.agent.reply)), unsafe.Sizeof(failure{}))
		at = serve(h)
	}
}

// fail leaves word of what went wrong and ends a child. A command whose list
// ends, which it never should, ends here too.
//
//go:nosplit
//go:norace
//go:nocheckptr
func fail(base unsafe.Pointer, role uintptr, f failure) {
	h := (*header)(base)
	*(*failure)(unsafe.Add(unsafe.Pointer(&h.Failed), role*unsafe.Sizeof(failure{}))) = f
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}

// serve holds the lease until the next list is asked for. The end of the
// supervisor is the end of the agent, which is the end of init.
//
//go:nosplit
//go:norace
//go:nocheckptr
func serve(h *header) uintptr {
	m := &h.agent
	armed := int64(0)
	for {
		if d := atomic.LoadInt64(&h.Deadline); d != armed {
			armed = d
			if d == Never {
				d = 0
			}
			m.spec.Value.Sec, m.spec.Value.Nsec = d/1e9, d%1e9
			syscall.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(m.timer), unix.TFD_TIMER_ABSTIME, uintptr(unsafe.Pointer(&m.spec)), 0, 0, 0)
		}
		m.polls[0].Fd, m.polls[1].Fd, m.polls[2].Fd = m.ctl, m.timer, m.initFD
		m.polls[0].Events, m.polls[1].Events, m.polls[2].Events = unix.POLLIN, unix.POLLIN, unix.POLLIN
		m.polls[0].Revents, m.polls[1].Revents, m.polls[2].Revents = 0, 0, 0
		syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&m.polls)), 3, 0, 0, 0, 0)
		if m.polls[1].Revents != 0 {
			syscall.RawSyscall(unix.SYS_READ, uintptr(m.timer), uintptr(unsafe.Pointer(&m.expirations)), 8)
			armed = 0
			syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&m.now)), 0)
			if d := atomic.LoadInt64(&h.Deadline); d != 0 && m.now.Sec*1e9+m.now.Nsec >= d {
				atomic.StoreInt64(&h.Lapsed, 1)
				atomic.StoreInt64(&h.Deadline, 0)
				if h.tree.armed != 0 {
					killTree(h)
				}
				syscall.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(m.initFD), uintptr(unix.SIGKILL), 0, 0, 0, 0)
			}
		}
		if m.polls[2].Revents != 0 {
			if h.tree.armed != 0 {
				killTree(h)
			}
			syscall.RawSyscall6(unix.SYS_WAIT4, uintptr(m.initPID), uintptr(unsafe.Pointer(&m.status)), unix.WALL, 0, 0, 0)
			syscall.RawSyscall(unix.SYS_CLOSE, uintptr(m.initFD), 0, 0)
			m.initFD = -1
		}
		if m.polls[0].Revents == 0 {
			continue
		}
		m.msg.Controllen = cmsgSize
		n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(m.ctl), uintptr(unsafe.Pointer(&m.msg)), unix.MSG_CMSG_CLOEXEC)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || n != 8 {
			if h.tree.armed != 0 {
				killTree(h)
			}
			for {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		atomic.AddInt64(&h.Answers, 1)
		if m.list != 0 {
			return uintptr(m.list)
		}
	}
}

// reap is process 1: it collects what ends and tells what becomes of the
// command, whose end is its own and so that of everything inside.
//
//go:nosplit
//go:norace
//go:nocheckptr
func reap(h *header) {
	m := &h.init
	for {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.status)), unix.WALL|unix.WUNTRACED|unix.WCONTINUED, 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno == 0 && int32(pid) != m.commandPID {
			continue
		}
		s := m.status
		if errno == 0 {
			m.event[0], m.event[1] = EventStatus, uint32(s)
			syscall.RawSyscall(unix.SYS_WRITE, uintptr(m.events), uintptr(unsafe.Pointer(&m.event)), unsafe.Sizeof(m.event))
		}
		if errno != 0 || (s&0xff != 0x7f && s != 0xffff) { // neither stopped nor continued
			for {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
	}
}
