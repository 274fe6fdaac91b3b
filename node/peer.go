//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end, as the kernel has it since connect(2).
type peer struct {
	uid, pid int
	pidfd    *os.File
}

// whoIs asks the kernel.
func whoIs(c *net.UnixConn) (*peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	pidfd, perr, cerr := -1, error(nil), error(nil)
	if err := raw.Control(func(fd uintptr) {
		if cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr == nil {
			pidfd, perr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		}
	}); err != nil {
		return nil, err
	}
	if cerr != nil {
		return nil, cerr
	}
	if perr != nil { // before Linux 6.5: its number may be another's by now
		pidfd, perr = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if perr != nil {
		return nil, fmt.Errorf("the caller is gone: %w", perr)
	}
	unix.CloseOnExec(pidfd)
	return &peer{uid: int(cred.Uid), pid: int(cred.Pid), pidfd: os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

// same reports whether two are one process that still lives.
func (p *peer) same(q *peer) bool {
	return p.pid == q.pid && p.uid == q.uid && alive(p.pidfd) && alive(q.pidfd)
}

// alive reports whether a pidfd's process has not ended.
func alive(pidfd *os.File) bool {
	p := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR { // the runtime's own signals
			return err == nil && n == 0
		}
	}
}

// pidOf gives the number of a pidfd's process here. It stands for it as long as
// the pidfd is alive: check afterwards.
func pidOf(pidfd *os.File) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(s))
			if err == nil && pid > 0 {
				return pid, nil
			}
			return 0, errors.New("its process is gone, or not seen from here")
		}
	}
	return 0, errors.New("not a pidfd")
}

// process is what /proc tells of one.
type process struct {
	parent int
	uid    int  // real
	first  bool // process 1 of a pid namespace of its own
}

func inspect(pid int) (p process, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	p.parent, p.uid = -1, -1
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch name {
		case "PPid":
			p.parent, err = strconv.Atoi(f[0])
		case "Uid":
			p.uid, err = strconv.Atoi(f[0])
		case "NSpid":
			p.first = len(f) > 1 && f[len(f)-1] == "1"
		}
		if err != nil {
			return p, err
		}
	}
	if p.parent < 0 || p.uid < 0 {
		return p, fmt.Errorf("process %d: its status is not whole", pid)
	}
	return p, nil
}

// isOf checks that init is process 1 of a namespace, made by a child of the
// supervisor, and command its child: an execution that waits, and nothing of
// somebody else's.
func isOf(supervisor *peer, init, command int) error {
	i, err := inspect(init)
	if err != nil {
		return err
	}
	c, err := inspect(command)
	if err != nil {
		return err
	}
	agent, err := inspect(i.parent)
	if err != nil {
		return err
	}
	switch {
	case !i.first:
		return errors.New("the first is not process 1 of a pid namespace")
	case c.parent != init:
		return errors.New("the second is not a child of the first")
	case agent.parent != supervisor.pid:
		return errors.New("they do not descend from whoever asks")
	case supervisor.uid != 0 && (i.uid != supervisor.uid || c.uid != supervisor.uid):
		return errors.New("they run as another user")
	}
	return alone(init, command)
}

// alone checks that nothing else descends from the two: it would run outside of
// their cgroup. An orphan of the namespace is a child of its process 1.
func alone(init, command int) error {
	for _, pid := range []int{init, command} {
		children, err := childrenOf(pid)
		if err != nil {
			return err
		}
		for _, c := range children {
			if pid != init || c != command {
				return fmt.Errorf("process %d descends from them, too", c)
			}
		}
	}
	return nil
}

// childrenOf are those of all its threads. A process that waits has one: with
// more, they could pass children on to each other while they are read.
func childrenOf(pid int) (all []int, err error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	for _, t := range threads {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			return nil, err
		}
		for _, f := range strings.Fields(string(b)) {
			c, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// cgroupOf gives a process's cgroup of version 2, from the hierarchy's root.
func cgroupOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(p, "\n"), nil
		}
	}
	return "", errors.New("no cgroup of version 2")
}
