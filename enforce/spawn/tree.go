//go:build linux

package spawn

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where no pid namespace can be had, the tree below the agent is held together
// by two things of the kernel's: every orphan in it falls to init, or to the
// agent once init is gone (PR_SET_CHILD_SUBREAPER), and kill(-1) of a process
// in a Landlock domain that scopes signals reaches that domain and nothing
// else. kill(-1) walks all processes under one lock, so nothing forks past it.
// Agent and init watch each other; whoever is left kills.

type treeMemory struct {
	// wanted by StartTree; armed once the agent's own list has confined it.
	wanted, armed int32
	supervisor    int32
	agent         int32 // as init sees its parent
	waitFor       uint64
	timeout       unix.Timespec
	status        int32
	_             int32
}

// StartTree is Start for an agent without namespaces of its own. The list that
// first assembles confines it: see [Agent.Confine]. The agent outlives this
// process for as long as it takes to kill what is below it.
func StartTree(first func(g *Agent, l *List)) (*Agent, error) { return clonedAgent(0, true, first) }

// landlockRuleset is struct landlock_ruleset_attr.
type landlockRuleset struct{ fs, net, scoped uint64 }

// Confine appends the steps that put the agent into a Landlock domain of its
// own that scopes signals and nothing else, and proves that the supervisor is
// out of their reach.
func (g *Agent) Confine(l *List) {
	h := g.arena.header()
	l.Do("subreaper", unix.SYS_PRCTL, V(unix.PR_SET_CHILD_SUBREAPER), V(1), V(0), V(0), V(0))
	l.Do("no_new_privs", unix.SYS_PRCTL, V(unix.PR_SET_NO_NEW_PRIVS), V(1), V(0), V(0), V(0))
	// A domain that does not grant REFER denies it, whatever it handles.
	attr := landlockRuleset{fs: unix.LANDLOCK_ACCESS_FS_REFER, scoped: unix.LANDLOCK_SCOPE_SIGNAL}
	ruleset := l.Result(l.Do("landlock: scope of signals", unix.SYS_LANDLOCK_CREATE_RULESET,
		V(l.Arena.Struct(unsafe.Pointer(&attr), unsafe.Sizeof(attr))), V(unsafe.Sizeof(attr)), V(0)))
	root := l.Do("open /", unix.SYS_OPENAT, V(unix.AT_FDCWD), V(l.Arena.Str("/")), V(unix.O_PATH|unix.O_CLOEXEC))
	rule := unix.LandlockPathBeneathAttr{Allowed_access: unix.LANDLOCK_ACCESS_FS_REFER}
	at := l.Arena.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&rule)), unsafe.Sizeof(rule)))
	root.Out = at + Ref(unsafe.Offsetof(rule.Parent_fd))
	l.Do("landlock: rule", unix.SYS_LANDLOCK_ADD_RULE, Load(ruleset), V(unix.LANDLOCK_RULE_PATH_BENEATH), V(l.Arena.Addr(at)), V(0))
	l.Do("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, Load(ruleset), V(0))
	l.Do("close", unix.SYS_CLOSE, Load(root.Out))
	l.Do("close", unix.SYS_CLOSE, Load(ruleset))
	l.Do("canary: signal to the supervisor", unix.SYS_KILL, V(h.tree.supervisor), V(0)).Want = int32(unix.EPERM)
}

// WatchAgent appends to init's list what makes it outlive the agent and kill
// the tree then.
func (g *Agent) WatchAgent(l *List) {
	h := g.arena.header()
	l.Do("subreaper", unix.SYS_PRCTL, V(unix.PR_SET_CHILD_SUBREAPER), V(1), V(0), V(0), V(0))
	// All signals are blocked: it stays pending until reapTree looks.
	l.Do("PDEATHSIG", unix.SYS_PRCTL, V(unix.PR_SET_PDEATHSIG), V(int(unix.SIGTERM)))
	l.Do("getppid", unix.SYS_GETPPID).Out = g.arena.refTo(unsafe.Pointer(&h.tree.agent))
	h.tree.waitFor = 1<<(uint(unix.SIGCHLD)-1) | 1<<(uint(unix.SIGTERM)-1)
	h.tree.timeout = unix.Timespec{Sec: 1}
}

// killTree kills everything in the caller's domain and returns when nothing
// below the caller is alive. It does nothing if the supervisor lives and is
// within reach: then the domain is not what it should be.
//
//go:nosplit
//go:norace
//go:nocheckptr
func killTree(h *header) {
	m := &h.tree
	parent, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	if int32(parent) == m.supervisor {
		if _, _, errno := syscall.RawSyscall(unix.SYS_KILL, parent, 0, 0); errno == 0 {
			return
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_KILL, ^uintptr(0), uintptr(unix.SIGKILL), 0)
		_, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.status)), unix.WALL, 0, 0, 0)
		if errno == unix.ECHILD {
			return
		}
		for errno == 0 {
			var pid uintptr
			pid, _, errno = syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.status)), unix.WALL|unix.WNOHANG, 0, 0, 0)
			if pid == 0 {
				break
			}
		}
	}
}

// reapTree is reap where init is not process 1.
//
//go:nosplit
//go:norace
//go:nocheckptr
func reapTree(h *header) {
	m := &h.init
	for {
		parent, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		if int32(parent) != h.tree.agent {
			killTree(h)
			for {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		pid, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.status)),
			unix.WALL|unix.WUNTRACED|unix.WCONTINUED|unix.WNOHANG, 0, 0, 0)
		if errno == 0 && pid == 0 {
			// Woken by a child or by the agent's end; the timeout is for a
			// signal that somebody else took from the queue.
			syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&h.tree.waitFor)), 0,
				uintptr(unsafe.Pointer(&h.tree.timeout)), 8, 0, 0)
			continue
		}
		if errno == unix.EINTR || errno == 0 && int32(pid) != m.commandPID {
			continue
		}
		s := m.status
		if errno == 0 {
			m.event[0], m.event[1] = EventStatus, uint32(s)
			syscall.RawSyscall(unix.SYS_WRITE, uintptr(m.events), uintptr(unsafe.Pointer(&m.event)), unsafe.Sizeof(m.event))
		}
		if errno != 0 || (s&0xff != 0x7f && s != 0xffff) {
			for {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
	}
}
