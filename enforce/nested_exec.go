//go:build linux

package enforce

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// Here nothing stands behind a notified execve: whatever its path says when
// the kernel reads it again is executed, if Landlock permits executing there.
// So the thread is traced across the call. Its exec stop comes before the new
// program's first instruction; what is in memory then is compared with what was
// decided on. From then on the kernel lets nobody write to the program's file
// (ETXTBSY), so its bytes can be read at leisure.

// admitted is a file that one execve was decided to run.
type admitted struct {
	id     programs.Identity
	path   string
	loader bool // mapped by the kernel, not executed
}

// proceed lets an execve that was decided on go on.
func (n *notifier) proceed(q *notification) {
	if n.nested == nil {
		n.resume(q)
		return
	}
	for _, a := range q.admitted {
		if a.loader && n.rights.Lookup(exeq.EncodeBytes(a.path)).Write {
			n.deny(fmt.Sprintf("exec %s denied: its loader %s lies where the execution may write", exeq.EncodeBytes(q.admitted[0].path), exeq.EncodeBytes(a.path)))
			n.fail(q, unix.EPERM)
			return
		}
	}
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	t := tracee{tid: int(q.pid)}
	var err error
	if t.group, err = threadGroup(t.tid); err == nil {
		err = t.seize()
	}
	if err != nil {
		n.deny(fmt.Sprintf("exec %s denied: it cannot be looked at while it starts: %v", exeq.EncodeBytes(q.admitted[0].path), err))
		n.fail(q, unix.EPERM)
		return
	}
	n.nested.writing.Lock()
	n.nested.writing.Unlock() // waits for those that hold it
	n.resume(q)
	if !t.wait() {
		if t.failed == unix.EACCES || t.failed == unix.EPERM {
			n.deny(fmt.Sprintf("exec %s denied: policy lets it run, and the kernel does not: it, or what it needs to start, may not be read or lies on a mount without execution", exeq.EncodeBytes(q.admitted[0].path)))
		}
		return
	}
	if err := n.compare(q, t.group); err != nil {
		n.deny(fmt.Sprintf("exec %s denied: %v", exeq.EncodeBytes(q.admitted[0].path), err))
		t.kill()
		return
	}
	t.detach(t.group, 0)
}

// compare holds a process that stands at its exec stop against what was
// decided on.
func (n *notifier) compare(q *notification, pid int) error {
	f, err := programs.Process{PID: pid}.Resolve(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/exe", pid), programs.FollowLast)
	if err != nil {
		return err
	}
	defer f.Close()
	if !slices.ContainsFunc(q.admitted, func(a admitted) bool {
		return !a.loader && a.id.Dev == f.ID.Dev && a.id.Ino == f.ID.Ino
	}) {
		return fmt.Errorf("%s was put in its place", exeq.EncodeBytes(f.Path))
	}
	r, _, known := n.decided.find(&unix.Stat_t{Dev: f.ID.Dev, Ino: f.ID.Ino})
	d, err := n.store.Digest(f, n.ctx.Err)
	if err != nil {
		return err
	}
	if !known || d != r.SHA256 {
		return fmt.Errorf("it was written to since it was decided on")
	}
	n.decided.add(f, r)
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}
	may := []string{exe}
	for _, a := range q.admitted {
		if a.loader {
			may = append(may, a.path)
		}
	}
	maps, err := mappings(pid)
	if err != nil {
		return err
	}
	for _, m := range maps {
		if m.file() && !slices.Contains(may, m.path) {
			return fmt.Errorf("%s is mapped into it", exeq.EncodeBytes(m.path))
		}
	}
	return nil
}

// mapping is one line of /proc/PID/maps.
type mapping struct {
	from, to uint64
	exec     bool
	path     string
}

func (m mapping) file() bool { return strings.HasPrefix(m.path, "/") }

// unmapName undoes what maps escapes.
var unmapName = strings.NewReplacer(`\012`, "\n")

func mappings(pid int) ([]mapping, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var out []mapping
	for line := range strings.Lines(string(b)) {
		// 7f00-7f01 r-xp 00000000 fe:01 123    /path
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(f) < 5 {
			return nil, fmt.Errorf("maps: a line of %d fields", len(f))
		}
		from, to, ok := strings.Cut(f[0], "-")
		var m mapping
		var e1, e2 error
		m.from, e1 = strconv.ParseUint(from, 16, 64)
		m.to, e2 = strconv.ParseUint(to, 16, 64)
		if !ok || e1 != nil || e2 != nil || len(f[1]) < 4 {
			return nil, fmt.Errorf("maps: cannot read a line")
		}
		m.exec = f[1][2] == 'x'
		if len(f) == 6 {
			m.path = unmapName.Replace(strings.TrimLeft(f[5], " "))
		}
		out = append(out, m)
	}
	return out, nil
}

// tracee is a thread between its decision and its exec stop.
type tracee struct {
	tid, group int
	failed     unix.Errno // what the call that did not execute answered
}

func ptrace(request, pid int, addr, data uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0)
	return errno
}

// seize traces the thread; the interrupt makes a failed execve stop too, and
// is forgotten at the exec stop.
func (t *tracee) seize() error {
	if e := ptrace(unix.PTRACE_SEIZE, t.tid, 0, unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_EXITKILL); e != 0 {
		return e
	}
	if e := ptrace(unix.PTRACE_INTERRUPT, t.tid, 0, 0); e != 0 {
		reap(t.tid) // it is dying
		return e
	}
	return nil
}

// wait reports whether the thread became another program; else it goes on
// untraced or is gone.
func (t *tracee) wait() bool {
	for {
		pid, ws, err := t.next()
		if err != nil || !ws.Stopped() {
			return false
		}
		switch ws >> 16 {
		case unix.PTRACE_EVENT_EXEC:
			return true
		case unix.PTRACE_EVENT_STOP:
			var regs unix.PtraceRegs
			if unix.PtraceGetRegs(pid, &regs) == nil {
				if r := result(&regs); r < 0 && r > -4096 {
					t.failed = unix.Errno(-r)
				}
			}
			t.detach(pid, 0)
		default:
			t.detach(pid, ws.StopSignal())
		}
		return false
	}
}

// next waits for the thread, which by a successful execve takes the id of its
// group.
func (t *tracee) next() (int, unix.WaitStatus, error) {
	var ws unix.WaitStatus
	options := unix.WALL
	if t.tid != t.group {
		options |= unix.WNOHANG
	}
	for {
		pid, err := unix.Wait4(t.tid, &ws, options, nil)
		if err == unix.EINTR {
			continue
		}
		if pid == t.tid {
			return pid, ws, nil
		}
		if t.tid == t.group {
			return 0, 0, err
		}
		pid, leader := unix.Wait4(t.group, &ws, options, nil)
		switch {
		case pid == t.group:
			return pid, ws, nil
		case err == unix.ECHILD && leader == unix.ECHILD:
			return 0, 0, err
		}
		unix.Poll(nil, 1)
	}
}

// detach lets a stopped thread go on untraced. One that is killed at that moment
// is no longer stopped, so it stays traced.
func (t *tracee) detach(pid int, sig unix.Signal) {
	if ptrace(unix.PTRACE_DETACH, pid, 0, uintptr(sig)) != 0 {
		reap(pid)
	}
}

// kill ends a process that stands at its exec stop.
func (t *tracee) kill() {
	unix.Kill(t.group, unix.SIGKILL)
	reap(t.group)
}

// reap waits for a traced thread that is being killed: its parent, and so the
// end of the execution, learns of its death only after its tracer.
func reap(tid int) {
	var ws unix.WaitStatus
	for {
		pid, err := unix.Wait4(tid, &ws, unix.WALL, nil)
		if err == unix.EINTR || err == nil && pid == tid && ws.Stopped() {
			continue
		}
		return
	}
}

// traceable tries to trace a process of ours.
func traceable(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := tracee{tid: pid, group: pid}
	if err := t.seize(); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	if t.wait() {
		return fmt.Errorf("ptrace: an exec stop of a process that executes nothing")
	}
	return nil
}

// lookable reports whether programs of the execution's user can be looked at:
// root needs a capability for those of others, which containers take away.
func (who identity) lookable() error {
	if !who.change {
		return nil
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if have[0].Effective&(1<<unix.CAP_SYS_PTRACE) == 0 {
		return fmt.Errorf("root without CAP_SYS_PTRACE cannot look at programs of user %d, whose workspace this is: add the capability, or run as that user", who.uid)
	}
	return nil
}
