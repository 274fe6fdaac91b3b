//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// terminal is the supervisor's part in job control. The command has a process
// group of its own; where we were the terminal's foreground group, it is now.
type terminal struct {
	signals chan os.Signal
	done    chan struct{}
}

// openTerminal finds our terminal, and whether we are its foreground group.
func (s *launching) openTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	s.tty, s.front = tty, err == nil && group == unix.Getpgrp()
	s.onUndo(func() { tty.Close() })
}

func (s *launching) terminalFD() int { return int(s.tty.Fd()) }

// terminalPath names our terminal where it is a pseudo-terminal of the /dev/pts
// that we see: /dev/tty is a name for whatever it is (ioctl_tty(2), TIOCGDEV).
func (s *launching) terminalPath() string {
	if s.tty == nil {
		return ""
	}
	n, err := unix.IoctlGetUint32(s.terminalFD(), unix.TIOCGDEV)
	if err != nil {
		return ""
	}
	path := fmt.Sprintf("/dev/pts/%d", unix.Minor(uint64(n)))
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != uint64(n) {
		return ""
	}
	return path
}

// forwarded are the signals that reach us and are meant for the command. Those
// of the terminal's keys reach its group by themselves.
var forwarded = []os.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGCONT}

func (r *running) startTerminal() {
	if r.tty != nil {
		signal.Ignore(unix.SIGTTOU)
	}
	r.term.signals = make(chan os.Signal, 16)
	r.term.done = make(chan struct{})
	signal.Notify(r.term.signals, forwarded...)
	go func() {
		for {
			select {
			case s := <-r.term.signals:
				if s != unix.SIGCONT {
					r.forward(s.(unix.Signal))
				}
			case <-r.term.done:
				return
			}
		}
	}()
}

// forward passes a signal on as it would be without us: one of the terminal's
// keys to the group, any other to the process. The keys reach us when a shell
// brought us to the front without a word (fg of a job that ran on), and still
// do when the terminal was passed on between the key and our hearing of it.
func (r *running) forward(s unix.Signal) {
	key := s == unix.SIGINT || s == unix.SIGQUIT || s == unix.SIGTSTP
	if key && (r.passTerminal(unix.Getpgrp(), r.command) || r.passTerminal(r.command, r.command)) {
		unix.Kill(-r.command, s)
		return
	}
	unix.PidfdSendSignal(r.commandFD, s, nil, 0)
}

// stopTerminal takes the terminal back.
func (r *running) stopTerminal() {
	signal.Stop(r.term.signals)
	close(r.term.done)
	r.takeTerminal()
}

// takeTerminal takes it back from the command, and from nobody else.
func (r *running) takeTerminal() { r.passTerminal(r.command, unix.Getpgrp()) }

func (r *running) passTerminal(from, to int) bool {
	if r.tty == nil {
		return false
	}
	g, err := unix.IoctlGetInt(r.terminalFD(), unix.TIOCGPGRP)
	return err == nil && g == from && unix.IoctlSetPointerInt(r.terminalFD(), unix.TIOCSPGRP, to) == nil
}

// stopped runs when the command was stopped from within (^Z): everything else
// is stopped too, the lease is suspended, and we stop as the shell expects of
// a job. Nothing goes on before Resume.
func (r *running) stopped(by unix.Signal) {
	if (by == unix.SIGTTIN || by == unix.SIGTTOU) && r.passTerminal(unix.Getpgrp(), r.command) {
		unix.Kill(-r.command, unix.SIGCONT) // it wants the terminal, and we were given it
		return
	}
	go func() {
		switch err := r.Hold(); {
		case errors.Is(err, exeq.ErrGone):
			return
		case err != nil:
			r.opt.Logger.Error("hold", "error", err)
			r.Kill("cannot be held")
			return
		}
		if !r.announce(true) {
			return
		}
		r.takeTerminal()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
		r.announce(false)
	}()
}

func (r *running) announce(stopped bool) bool {
	select {
	case r.stops <- stopped:
		return true
	case <-r.gone:
		return false
	}
}

// Hold implements exeq.Running.
func (r *running) Hold() error {
	if r.isGone() {
		return exeq.ErrGone
	}
	r.notify.hold()
	if err := r.unlessGone(r.stopAll()); err != nil {
		return err
	}
	r.suspend()
	if w := r.opt.Warden; w != nil {
		return r.unlessGone(w.Hold(r.notify.ctx))
	}
	return nil
}

// Resume implements exeq.Running.
func (r *running) Resume() error {
	if r.isGone() {
		return exeq.ErrGone
	}
	if w := r.opt.Warden; w != nil {
		if err := r.unlessGone(w.Resume(r.notify.ctx)); err != nil {
			return err
		}
	}
	if err := r.unsuspend(); err != nil {
		return err
	}
	r.notify.unhold()
	r.passTerminal(unix.Getpgrp(), r.command)
	return r.signalAll(unix.SIGCONT)
}

// stopAll stops processes until one pass over all of them finds none that
// runs: a process that is being forked meanwhile is found by the next pass.
func (r *running) stopAll() error {
	for {
		if err := r.signalAll(unix.SIGSTOP); err != nil {
			return err
		}
		running, err := r.anyRuns()
		if err != nil || !running {
			return err
		}
		if r.isGone() {
			return exeq.ErrGone
		}
		unix.Poll(nil, 1)
	}
}

// state is a process's state and parent, by the ids inside.
type state struct {
	letter byte
	parent int
}

func (r *running) states() (map[int]state, error) {
	pids, err := r.processes()
	if err != nil {
		return nil, err
	}
	out := make(map[int]state, len(pids))
	for _, pid := range pids {
		stat, err := r.readProc(strconv.Itoa(pid) + "/stat")
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// pid (comm) state ppid …
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 || len(fields[0]) != 1 {
			return nil, unix.EINVAL
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, err
		}
		out[pid] = state{fields[0][0], parent}
	}
	return out, nil
}

// anyRuns: every process is stopped, dead, waits for an answer of ours that it
// does not get, or (vfork) for a child that stands still itself.
func (r *running) anyRuns() (bool, error) {
	states, err := r.states()
	if err != nil {
		return true, err
	}
	still := map[int]bool{}
	parents := map[int]bool{}
	for pid, s := range states {
		if strings.IndexByte("TtZX", s.letter) >= 0 || r.notify.waits(pid) {
			still[pid] = true
			parents[s.parent] = s.letter != 'Z' && s.letter != 'X' || parents[s.parent]
		}
	}
	for pid, s := range states {
		if !still[pid] && !(s.letter == 'D' && parents[pid]) {
			return true, nil
		}
	}
	return false, nil
}

// unstick continues a child that a key of the terminal stopped between vfork
// and execve: its parent cannot stop before it has executed, so nobody would
// ever learn of the stop. Waiting for us makes that moment longer than it is
// without us.
func (r *running) unstick(faults *[]string) {
	states, err := r.states()
	if err != nil {
		*faults = append(*faults, "states: "+err.Error())
		return
	}
	for pid, s := range states {
		if s.letter == 'T' && states[s.parent].letter == 'D' {
			if err := r.signalOne(pid, unix.SIGCONT); err != nil {
				*faults = append(*faults, "signal: "+err.Error())
			}
		}
	}
}

// signalAll signals every process inside but init.
func (r *running) signalAll(s unix.Signal) error {
	pids, err := r.processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := r.signalOne(pid, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *running) signalOne(pid int, s unix.Signal) error {
	fd, err := unix.Openat(r.procFD, strconv.Itoa(pid), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A directory of /proc serves as a pidfd.
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != unix.ESRCH {
		return err
	}
	return nil
}

// hold has every thread that asks wait for its answer.
func (n *notifier) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == nil {
		n.held = make(chan struct{})
	}
}

func (n *notifier) holding() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held != nil
}

func (n *notifier) unhold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held != nil {
		close(n.held)
		n.held = nil
	}
}

// waits reports whether a process has a thread that waits for our answer.
func (n *notifier) waits(pid int) bool {
	n.mu.Lock()
	waiting := make([]uint32, 0, len(n.waiting))
	for _, tid := range n.waiting {
		waiting = append(waiting, tid)
	}
	n.mu.Unlock()
	for _, tid := range waiting {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(int(tid)) + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if ids, ok := strings.CutPrefix(line, "NStgid:"); ok {
				if f := strings.Fields(ids); len(f) > 0 && f[len(f)-1] == strconv.Itoa(pid) {
					return true
				}
			}
		}
	}
	return false
}
