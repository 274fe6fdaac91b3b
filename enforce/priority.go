//go:build linux

package enforce

import (
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/spawn"
)

// A lease must not lapse because the execution itself keeps every processor
// busy. What the supervisor does each tick is little, but it has to be done in
// time: its threads ask for short slices, which the scheduler serves first
// (anybody may ask, Linux 6.12), and get a higher priority where that is
// allowed. The command gets back what the supervisor had at its start.

// schedAttr is struct sched_attr of the first version.
type schedAttr struct {
	size, policy uint32
	flags        uint64
	nice         int32
	priority     uint32
	runtime      uint64
	deadline     uint64
	period       uint64
}

const (
	supervisorSlice = 100_000 // ns, the least that the kernel takes
	supervisorNice  = -15
)

// raise gives every thread of this process, and by inheritance those to come,
// its priority. It returns what the command is to have.
func raise() schedAttr {
	var was schedAttr
	if _, _, errno := unix.RawSyscall6(unix.SYS_SCHED_GETATTR, 0, uintptr(unsafe.Pointer(&was)), unsafe.Sizeof(was), 0, 0, 0); errno != 0 || was.policy != unix.SCHED_NORMAL {
		return schedAttr{} // not ours to change
	}
	was.size = uint32(unsafe.Sizeof(was))
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return schedAttr{}
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		for _, nice := range []int32{min(was.nice, supervisorNice), was.nice} {
			want := was
			want.nice, want.runtime = nice, supervisorSlice
			if _, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETATTR, uintptr(tid), uintptr(unsafe.Pointer(&want)), 0); errno == 0 {
				break
			}
		}
	}
	return was
}

// AsBefore runs f, which starts a process that is not the command's keeper, on
// a thread with the priority that this process came with.
func (e *Enforcer) AsBefore(f func() error) error {
	if e.was.size == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := e.was
	was.runtime, was.flags = 0, 0
	var now schedAttr
	if _, _, errno := unix.RawSyscall6(unix.SYS_SCHED_GETATTR, 0, uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(now), 0, 0, 0); errno != 0 {
		return f()
	}
	unix.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&was)), 0)
	defer unix.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&now)), 0)
	return f()
}

// lower appends the return to what the supervisor had.
func (was schedAttr) lower(l *spawn.List) {
	if was.size == 0 {
		return
	}
	was.runtime = 0 // the default slice
	was.flags = 0
	l.Do("sched_setattr", unix.SYS_SCHED_SETATTR, v(0), v(l.Arena.Struct(unsafe.Pointer(&was), unsafe.Sizeof(was))), v(0)).Flags = spawn.Ignore
}

// umask gives the command its caller's, where the supervisor has another.
func (s *launching) umask(l *spawn.List) {
	if s.opt.Umask != nil {
		l.Do("umask", unix.SYS_UMASK, v(*s.opt.Umask))
	}
}

// apart puts the agent, once init is forked, in a session of its own: where the
// scheduler divides between sessions first (autogroup), the execution's
// processes then cannot crowd out who holds their lease.
func (s *launching) apart(l *spawn.List) {
	// Not from the head of a group: back into ours first.
	l.Do("setpgid", unix.SYS_SETPGID, v(0), v(unix.Getpgrp())).Flags = spawn.Ignore
	l.Do("setsid", unix.SYS_SETSID).Flags = spawn.Ignore
}

// ownGroup makes the command the head of a process group; without a terminal,
// which would be lost by it, of a session, so that the supervisor has its turn
// however many processes the command has.
func (s *launching) ownGroup(l *spawn.List) {
	if s.tty == nil {
		l.Do("setsid", unix.SYS_SETSID)
		return
	}
	l.Do("setpgid", unix.SYS_SETPGID, v(0), v(0))
}
