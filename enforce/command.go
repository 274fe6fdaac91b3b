//go:build linux

package enforce

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/spawn"
)

// What the lists of system calls of both tiers share that lead from the clone
// to the command's execve.

// dropBoundingSet keeps capabilities from coming back by an execve.
func dropBoundingSet(l *spawn.List) {
	l.Do("securebits", unix.SYS_PRCTL, v(unix.PR_SET_SECUREBITS), v(secureBits))
	for c := range uint64(unix.CAP_LAST_CAP + 1) {
		l.Do("drop the bounding set", unix.SYS_PRCTL, v(unix.PR_CAPBSET_DROP), v(c)).Flags = spawn.Ignore
	}
}

// changeUser becomes the execution's user.
func (s *launching) changeUser(l *spawn.List) {
	groups := l.Arena.Reserve(4 * (len(s.who.groups) + 1))
	for i, g := range s.who.groups {
		l.Arena.PutInt(groups+spawn.Ref(4*i), int32(g))
	}
	l.Do("setgroups", unix.SYS_SETGROUPS, v(len(s.who.groups)), v(l.Arena.Addr(groups)))
	l.Do("setresgid", unix.SYS_SETRESGID, v(s.who.gid), v(s.who.gid), v(s.who.gid))
	l.Do("setresuid", unix.SYS_SETRESUID, v(s.who.uid), v(s.who.uid), v(s.who.uid))
}

// dropCapabilities leaves none, and nothing that could bring any.
func dropCapabilities(l *spawn.List) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	l.Do("drop capabilities", unix.SYS_CAPSET, v(l.Arena.Struct(unsafe.Pointer(&head), unsafe.Sizeof(head))),
		v(l.Arena.Struct(unsafe.Pointer(&none), unsafe.Sizeof(none))))
	l.Do("clear ambient", unix.SYS_PRCTL, v(unix.PR_CAP_AMBIENT), v(unix.PR_CAP_AMBIENT_CLEAR_ALL), v(0), v(0), v(0))
	l.Do("no_new_privs", unix.SYS_PRCTL, v(unix.PR_SET_NO_NEW_PRIVS), v(1), v(0), v(0), v(0))
}

// receive takes in the ruleset, the standard streams and, where the command
// stands in the foreground, the terminal. It gives the ruleset's descriptor.
func (s *launching) receive(l *spawn.List) spawn.Ref {
	l.Do("dumpable", unix.SYS_PRCTL, v(unix.PR_SET_DUMPABLE), v(1), v(0), v(0), v(0))
	s.ownGroup(l)
	fds := l.Receive("receive descriptors", s.agent.Events(), 5)
	ruleset, tty := fds[0], fds[4]
	if s.front {
		pid := l.Result(l.Do("getpid", unix.SYS_GETPID))
		l.Do("TIOCSPGRP", unix.SYS_IOCTL, load(tty), v(unix.TIOCSPGRP), v(l.Arena.Addr(pid)))
	}
	for i := range 3 {
		l.Do("dup3", unix.SYS_DUP3, load(fds[1+i]), v(i), v(0))
	}
	return ruleset
}

// seccomp installs the filter and sends its listener out. The filter bites.
func (s *launching) seccomp(l *spawn.List, prog []unix.SockFilter) {
	code := l.Arena.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(prog)*int(unsafe.Sizeof(prog[0]))))
	fprog := struct{ count, filter uint64 }{uint64(len(prog)), uint64(l.Arena.Addr(code))} // struct sock_fprog
	listener := l.Do("seccomp", unix.SYS_SECCOMP, v(unix.SECCOMP_SET_MODE_FILTER),
		v(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
		v(l.Arena.Struct(unsafe.Pointer(&fprog), unsafe.Sizeof(fprog))))
	listener.Out = l.Send("send the listener", s.agent.Events(), eventSeccomp, 0)
	l.Do("canary: refused system call", unix.SYS_BPF, v(0), v(0), v(0)).Want = int32(unix.EPERM)
}

// execute is the end of the list: the canary that the gate must refuse, and the
// command.
func (s *launching) execute(l *spawn.List, canary spawn.Ref, env []string) {
	m, empty := mounter{l: l}, v(l.Arena.Strs(nil))
	l.Do("canary: program nobody approved", unix.SYS_EXECVEAT, load(canary), m.str(""), empty, empty, v(unix.AT_EMPTY_PATH)).Want = int32(unix.EPERM)
	l.Do("close_range", unix.SYS_CLOSE_RANGE, v(3), v(^uint32(0)), v(unix.CLOSE_RANGE_CLOEXEC))
	l.Do("signal mask", unix.SYS_RT_SIGPROCMASK, v(unix.SIG_SETMASK), v(l.Arena.Addr(l.Arena.Bytes(s.agent.Mask[:]))), v(0), v(8))
	l.Do("execve", unix.SYS_EXECVE, m.str(s.programPath()), v(l.Arena.Strs(s.launch.Argv)), v(l.Arena.Strs(env)))
}
