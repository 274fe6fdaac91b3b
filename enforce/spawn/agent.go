//go:build linux

package spawn

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kinds of event that Agent.Event receives.
const (
	// EventStatus carries a wait status of the command.
	EventStatus = 1 + iota
	// EventReady is sent by a step of a list.
	EventReady
)

// Agent is a clone that waits for lists to run and holds the lease.
type Agent struct {
	PID    int
	Mask   [8]byte // the signal mask that this process had
	arena  *Arena
	names  []string
	ctl    int // our end
	events int // our end
	child  struct{ ctl, events int }
	done   chan struct{} // closed: the thread that cloned the agent may end

	mu    sync.Mutex // one list at a time
	start Ref        // of the memory for lists
	close sync.Once
}

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// keepHeap leaves the Go heap out of what clones get, but for the stack that
// they run on: they need none of it, nothing in it is theirs to know, and each
// page that both had would be copied when this process writes it next. Heap
// beyond the arena of this stack is shared as before.
const (
	heapArena = 64 << 20 // runtime.heapArenaBytes on 64-bit Linux
	keepStack = 16 << 10 // to either side; nosplit code needs less than 1 KiB
)

//go:noinline
//go:nosplit
//go:norace
func keepHeap(here, page uintptr) {
	arena := here &^ (heapArena - 1)
	from, to := max(arena, (here-keepStack)&^(page-1)), min(arena+heapArena, (here+keepStack+page)&^(page-1))
	// What is not mapped in between does not stop the rest.
	syscall.RawSyscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DOFORK)
	syscall.RawSyscall(unix.SYS_MADVISE, arena, from-arena, unix.MADV_DONTFORK)
	syscall.RawSyscall(unix.SYS_MADVISE, to, arena+heapArena-to, unix.MADV_DONTFORK)
}

// clone makes the agent. The child never returns.
//
//go:noinline
//go:nosplit
//go:norace
func clone(flags uintptr, base unsafe.Pointer, page uintptr) (uintptr, syscall.Errno) {
	beforeFork()
	keepHeap(uintptr(unsafe.Pointer(&flags)), page)
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		childMain(base)
	}
	afterFork()
	return pid, errno
}

// Start clones an agent into the namespaces of flags. It runs the list that
// first assembles, then waits for more; Wait tells how that went. The agent
// dies with this process.
func Start(flags uintptr, first func(g *Agent, l *List)) (*Agent, error) {
	return clonedAgent(flags, false, first)
}

func clonedAgent(flags uintptr, tree bool, first func(g *Agent, l *List)) (*Agent, error) {
	arena, err := newArena()
	if err != nil {
		return nil, err
	}
	g := &Agent{arena: arena, done: make(chan struct{})}
	ctl, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("spawn: %w", err)
	}
	ev, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("spawn: %w", err)
	}
	g.ctl, g.child.ctl, g.events, g.child.events = ctl[0], ctl[1], ev[0], ev[1]

	h := arena.header()
	h.agent.ctl, h.agent.initFD, h.init.events = int32(g.child.ctl), -1, int32(g.child.events)
	h.agent.iov.Base, h.agent.iov.Len = (*byte)(unsafe.Pointer(&h.agent.list)), 8
	h.agent.msg.Iov, h.agent.msg.Iovlen = &h.agent.iov, 1
	h.agent.msg.Control = &h.agent.cmsg[0]

	l := g.NewList()
	if tree {
		h.tree.wanted, h.tree.supervisor = 1, int32(unix.Getpid())
	} else {
		l.Do("PDEATHSIG", unix.SYS_PRCTL, V(unix.PR_SET_PDEATHSIG), V(int(unix.SIGKILL)))
	}
	g.prelude(l)
	first(g, l)
	h.agent.first = uintptr(l.place())
	g.start = arena.Mark()

	type result struct {
		pid uintptr
		err error
	}
	started := make(chan result)
	go func() {
		// PDEATHSIG follows this thread; it lives as long as the agent may.
		runtime.LockOSThread()
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, uintptr(unsafe.Pointer(&g.Mask)), 8, 0, 0)
		page := uintptr(unix.Getpagesize())
		syscall.ForkLock.Lock()
		pid, errno := clone(flags, arena.base, page)
		syscall.ForkLock.Unlock()
		if errno != 0 {
			started <- result{0, errno}
			return
		}
		started <- result{pid, nil}
		<-g.done
	}()
	r := <-started
	unix.Close(g.child.ctl)
	unix.Close(g.child.events)
	if r.err != nil {
		unix.Close(g.ctl)
		unix.Close(g.events)
		return nil, fmt.Errorf("spawn: clone: %w", r.err)
	}
	g.PID = int(r.pid)
	return g, nil
}

// prelude frees what the agent has no need of.
func (g *Agent) prelude(l *List) {
	// Its own group: a signal to the supervisor's group must not stop it.
	l.Do("setpgid", unix.SYS_SETPGID, V(0), V(0)).Flags = Ignore
	lo, hi := min(g.child.ctl, g.child.events), max(g.child.ctl, g.child.events)
	for _, r := range [][2]int{{3, lo - 1}, {lo + 1, hi - 1}, {hi + 1, int(^uint32(0))}} {
		if r[0] <= r[1] {
			l.Do("close_range", unix.SYS_CLOSE_RANGE, V(r[0]), V(uint32(r[1])), V(0))
		}
	}
	l.Do("timerfd_create", unix.SYS_TIMERFD_CREATE, V(unix.CLOCK_BOOTTIME), V(unix.TFD_CLOEXEC)).Out =
		g.arena.refTo(unsafe.Pointer(&g.arena.header().agent.timer))
}

func (a *Arena) refTo(p unsafe.Pointer) Ref { return Ref(uintptr(p) - uintptr(a.base)) }

// Events is the descriptor number, in the agent and init, of the socket whose
// other end Event reads.
func (g *Agent) Events() Arg { return V(g.child.events) }

// Control is the descriptor number of the agent's control socket, for init to
// close.
func (g *Agent) Control() Arg { return V(g.child.ctl) }

// Timer is where the agent's timer descriptor stands.
func (g *Agent) Timer() Arg {
	return Load(g.arena.refTo(unsafe.Pointer(&g.arena.header().agent.timer)))
}

// FD is the i-th descriptor that came with the list.
func (g *Agent) FD(i int) Arg {
	return Load(g.arena.refTo(unsafe.Pointer(&g.arena.header().agent.cmsg)) + cmsgHeader + Ref(4*i))
}

// ForkInit appends the clone of init, which runs child and then reaps; Watch
// and the lease refer to it from then on.
func (g *Agent) ForkInit(l *List, flags uint64, child *List) {
	h := g.arena.header()
	pid := l.Fork("clone of init", flags, RoleInit, child)
	l.Do("pidfd_open", unix.SYS_PIDFD_OPEN, Load(pid), V(0)).Out = g.arena.refTo(unsafe.Pointer(&h.agent.initFD))
	l.Do("fcntl", unix.SYS_FCNTL, Load(g.arena.refTo(unsafe.Pointer(&h.agent.initFD))), V(unix.F_SETFD), V(unix.FD_CLOEXEC))
	l.ops[l.Len()-3].Out = g.arena.refTo(unsafe.Pointer(&h.agent.initPID))
	l.ops[l.Len()-2].Args[0] = uintptr(g.arena.refTo(unsafe.Pointer(&h.agent.initPID)))
}

// ForkCommand appends to init's list the clone of the command.
func (g *Agent) ForkCommand(l *List, flags uint64, child *List) {
	l.Fork("clone of the command", flags, RoleCommand, child)
	l.ops[l.Len()-1].Out = g.arena.refTo(unsafe.Pointer(&g.arena.header().init.commandPID))
}

// InitPID is init's pid as this process sees it; 0 before ForkInit ran.
func (g *Agent) InitPID() int { return int(atomic.LoadInt32(&g.arena.header().agent.initPID)) }

// Failure tells what a role's list failed at; nil if it did not.
func (g *Agent) Failure(r Role) error {
	f := g.arena.header().Failed[r]
	if f.Step == 0 {
		return nil
	}
	return g.explain(f)
}

func (g *Agent) explain(f failure) error {
	name := "?"
	if int(f.Step) <= len(g.names) {
		name = g.names[f.Step-1]
	}
	if f.Errno == 0 {
		return fmt.Errorf("%s: was not refused", name)
	}
	return fmt.Errorf("%s: %w", name, unix.Errno(f.Errno))
}

// Wait returns when the list that the agent runs has ended.
func (g *Agent) Wait() error {
	var b [8]byte
	for {
		n, err := unix.Read(g.ctl, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("spawn: agent: %w", err)
		}
		if n != 8 {
			return errors.New("spawn: the agent is gone")
		}
		break
	}
	if f := *(*failure)(unsafe.Pointer(&b)); f.Step != 0 {
		return fmt.Errorf("spawn: agent: %w", g.explain(f))
	}
	return nil
}

// Run has the agent run the list that build assembles, with fds at hand as
// FD(0)…; the list closes them. One list runs at a time.
func (g *Agent) Run(build func(l *List), fds ...int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := len(g.names)
	mark := g.arena.Mark()
	defer func() { g.arena.Release(mark); g.names = g.names[:names] }()
	l := g.NewList()
	build(l)
	return g.request(l.place(), fds)
}

// Keep is Run for a list whose memory children go on reading.
func (g *Agent) Keep(build func(l *List), fds ...int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.NewList()
	build(l)
	return g.request(l.place(), fds)
}

func (g *Agent) request(at Ref, fds []int) error {
	b := *(*[8]byte)(unsafe.Pointer(&at))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(g.ctl, b[:], rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("spawn: agent: %w", err)
	}
	return g.Wait()
}

// Wake has the agent look at the deadline again.
func (g *Agent) Wake() error {
	var zero [8]byte
	if err := unix.Sendmsg(g.ctl, zero[:], nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("spawn: agent: %w", err)
	}
	return nil
}

// SetDeadline sets the end of the lease, on CLOCK_BOOTTIME in nanoseconds. An
// earlier one than before needs Wake.
func (g *Agent) SetDeadline(ns int64) { atomic.StoreInt64(&g.arena.header().Deadline, ns) }

// Lapsed reports whether the agent killed init at the end of the lease.
func (g *Agent) Lapsed() bool { return atomic.LoadInt64(&g.arena.header().Lapsed) != 0 }

// Answers grows with each list and Wake that the agent took.
func (g *Agent) Answers() int64 { return atomic.LoadInt64(&g.arena.header().Answers) }

// EventFD is our end of the socket on which init and the command report. Each
// message is two 32-bit words: a kind and its datum.
func (g *Agent) EventFD() int { return g.events }

// Close ends the agent, and with it everything in its namespaces, and reaps it.
func (g *Agent) Close() error {
	g.close.Do(func() {
		unix.Shutdown(g.ctl, unix.SHUT_RDWR)
		for {
			if _, err := unix.Wait4(g.PID, nil, unix.WALL, nil); err != unix.EINTR {
				break
			}
		}
		close(g.done)
		unix.Close(g.ctl)
		unix.Close(g.events)
		// Whoever still holds the agent may ask it for its lease: the memory goes
		// with the last of them.
		runtime.AddCleanup(g, func(mem []byte) { unix.Munmap(mem) }, g.arena.mem)
	})
	return nil
}
