//go:build linux

package enforce

import (
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

// openTerminal finds out whether we are the foreground group of a terminal.
func (s *launching) openTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	if group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		tty.Close()
		return
	}
	s.tty = tty
	s.onUndo(func() { tty.Close() })
}

func (s *launching) terminalFD() int { return int(s.tty.Fd()) }

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
					// As without us: to the process, not to its group.
					unix.PidfdSendSignal(r.commandFD, s.(unix.Signal), nil, 0)
				}
			case <-r.term.done:
				return
			}
		}
	}()
}

// stopTerminal takes the terminal back.
func (r *running) stopTerminal() {
	signal.Stop(r.term.signals)
	close(r.term.done)
	r.takeTerminal()
}

func (r *running) takeTerminal() {
	if r.tty != nil {
		unix.IoctlSetPointerInt(r.terminalFD(), unix.TIOCSPGRP, unix.Getpgrp())
	}
}

// stopped runs when the command was stopped from within (^Z): everything else
// is stopped too, the lease is suspended, and we stop as the shell expects of
// a job. Nothing goes on before Resume.
func (r *running) stopped() {
	go func() {
		if err := r.Hold(); err != nil {
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
	if err := r.stopAll(); err != nil {
		return err
	}
	r.suspend()
	return nil
}

// Resume implements exeq.Running.
func (r *running) Resume() error {
	if r.isGone() {
		return exeq.ErrGone
	}
	if err := r.unsuspend(); err != nil {
		return err
	}
	r.notify.unhold()
	if r.tty != nil {
		if g, err := unix.IoctlGetInt(r.terminalFD(), unix.TIOCGPGRP); err == nil && g == unix.Getpgrp() {
			unix.IoctlSetPointerInt(r.terminalFD(), unix.TIOCSPGRP, r.command)
		}
	}
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

// anyRuns: every process is stopped, dead, or waits for an answer of ours that
// it does not get.
func (r *running) anyRuns() (bool, error) {
	pids, err := r.processes()
	if err != nil {
		return true, err
	}
	for _, pid := range pids {
		stat, err := r.readProc(strconv.Itoa(pid) + "/stat")
		if gone(err) {
			continue
		}
		if err != nil {
			return true, err
		}
		i := strings.LastIndexByte(stat, ')')
		if i < 0 || i+2 >= len(stat) {
			return true, unix.EINVAL
		}
		switch stat[i+2] {
		case 'T', 't', 'Z', 'X':
		default:
			if !r.notify.waits(r, pid) {
				return true, nil
			}
		}
	}
	return false, nil
}

// signalAll signals every process inside but init.
func (r *running) signalAll(s unix.Signal) error {
	pids, err := r.processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		fd, err := unix.Openat(r.procFD, strconv.Itoa(pid), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = unix.PidfdSendSignal(fd, s, nil, 0) // a directory of /proc is a pidfd
		unix.Close(fd)
		if err != nil && err != unix.ESRCH {
			return err
		}
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

func (n *notifier) unhold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held != nil {
		close(n.held)
		n.held = nil
	}
}

// waits reports whether a process has a thread that waits for our answer.
func (n *notifier) waits(r *running, pid int) bool {
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
