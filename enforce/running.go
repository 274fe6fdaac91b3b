//go:build linux

package enforce

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/enforce/spawn"
)

// running is one live execution.
type running struct {
	*launching
	store     *programs.Store
	binds     *binds
	notify    *notifier
	applied   exeq.Applied
	enclosure *exeq.Enclosure // the warden's word; nil: none holds it
	initFD    int             // pidfd of init
	command   int             // pid of the command and its process group
	commandFD int             // pidfd of it
	procFD    int             // the execution's own /proc
	mark      uint64          // of the execution's processes where they have no namespace
	stops     chan bool
	gone      chan struct{} // closed when nothing is alive
	term      terminal

	mu         sync.Mutex
	released   int64 // CLOCK_BOOTTIME, ns
	sequence   uint64
	challenge  string
	challenged int64
	heard      int64 // of the agent, last
	inspected  map[inspectedKey]inspected
	deadline   int64
	outOfTime  *exeq.QuotaError // the deadline is the end of the wall time, not of the lease
	suspended  bool
	output     output            // of one tick after the other
	mounts     []mountLine       // that count, at the start
	exit       *exeq.Exit        // of the command, once known
	host       map[uint64]string // lines of the host's mounts, by id, at the start
	killed     string            // the reason given to Kill
	lapsed     error
}

func newRunning(s *launching, store *programs.Store) *running {
	r := &running{launching: s, store: store, initFD: -1, procFD: -1, commandFD: -1, stops: make(chan bool), gone: make(chan struct{})}
	r.binds = &binds{agent: s.agent, who: s.who, byID: map[uint64]bound{}, exec: -1, runs: r.runs}
	ctx, cancel := context.WithCancel(context.Background())
	r.notify = &notifier{
		fd: -1, gate: s.launch.Gate, warden: s.opt.Warden, rights: s.launch.Rights, store: store, approver: r.binds, who: s.who,
		sockets: &socketTable{diag: -1}, log: s.opt.Logger, ctx: ctx, cancel: cancel, out: s.opt.Messages,
		waiting: map[uint64]uint32{}, rulings: map[rulingKey]bool{}, vouched: map[vouched]vouchers{}, chained: map[programs.Identity]bool{}, mapped: map[programs.Identity]bool{}, free: map[programs.Identity]exeq.Resource{}, root: -1, began: coarseNow(), less: kernelLess(&s.report),
	}
	if s.launch.Observe {
		r.notify.observer = &observer{seen: map[told]bool{}}
	}
	return r
}

// enter follows init up to the point where the command has its descriptors and
// its filter, and takes the listener over.
func (s *launching) enter(r *running) error {
	var err error
	if r.initFD, err = unix.PidfdOpen(s.agent.InitPID(), 0); err != nil {
		return fmt.Errorf("pidfd of init: %w", err)
	}
	s.onUndo(func() { unix.Close(r.initFD) })
	for r.notify.fd < 0 {
		ev, err := r.receive()
		if err != nil {
			return err
		}
		switch ev.kind {
		case eventExecutable:
			r.binds.exec = ev.fds[0]
			s.onUndo(func() { unix.Close(r.binds.exec) })
		case eventLabelled:
			if r.notify.labels == nil {
				r.notify.labels = &labels{}
				s.onUndo(r.notify.labels.close)
			}
			if err := r.notify.labels.add(s.labelled[ev.datum], ev.fds[0]); err != nil {
				return err
			}
		case eventDiag:
			r.notify.sockets.diag = ev.fds[0]
			s.onUndo(func() { unix.Close(r.notify.sockets.diag) })
		case spawn.EventReady:
			if err := s.equip(r); err != nil {
				return err
			}
		case eventSeccomp:
			r.notify.fd = ev.fds[0]
		default:
			return fmt.Errorf("event %d while starting: %w", ev.kind, r.failure())
		}
	}
	return nil
}

// receive waits for an event or for the end of init.
func (r *running) receive() (event, error) {
	for {
		p := []unix.PollFd{{Fd: int32(r.agent.EventFD()), Events: unix.POLLIN}, {Fd: int32(r.initFD), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return event{}, err
		}
		if p[0].Revents&unix.POLLIN != 0 {
			return receive(r.agent.EventFD())
		}
		return event{}, r.failure()
	}
}

// failure says which step of init or of the command failed.
func (r *running) failure() error {
	for _, role := range []spawn.Role{spawn.RoleCommand, spawn.RoleInit} {
		if err := r.agent.Failure(role); err != nil {
			return err
		}
	}
	return errors.New("the execution ended before it was released")
}

// equip finishes the ruleset with what only the new mounts have, and sends the
// command what it waits for.
func (s *launching) equip(r *running) error {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", s.agent.PID), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root of the execution: %w", err)
	}
	r.notify.root = root
	s.onUndo(func() { unix.Close(root) })
	in := func(p string, flags int) (int, error) {
		return unix.Openat2(root, strings.TrimPrefix(p, "/"), &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	}
	if r.procFD, err = in("/proc", unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return fmt.Errorf("/proc of the execution: %w", err)
	}
	s.onUndo(func() { unix.Close(r.procFD) })
	if err := s.lateRules(in); err != nil {
		return err
	}
	tty := int(s.launch.Stdin.Fd())
	if s.tty != nil {
		tty = s.terminalFD()
	}
	rights := unix.UnixRights(s.ruleset, int(s.launch.Stdin.Fd()), int(s.launch.Stdout.Fd()), int(s.launch.Stderr.Fd()), tty)
	return unix.Sendmsg(s.agent.EventFD(), make([]byte, 8), rights, nil, unix.MSG_NOSIGNAL)
}

// start begins to watch, once the command is released.
func (r *running) start() {
	r.startTerminal() // before watch, which may be at its end at once
	r.notify.work()
	go r.watch()
	if r.launch.Egress != nil {
		go r.launch.Egress(r.egress)
	} else {
		r.egress.Close()
	}
}

// watch follows the command until init is gone, with which everything is.
func (r *running) watch() {
	for {
		p := []unix.PollFd{{Fd: int32(r.agent.EventFD()), Events: unix.POLLIN}, {Fd: int32(r.initFD), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			r.opt.Logger.Error("watch", "error", err)
		}
		if p[0].Revents&unix.POLLIN != 0 {
			if ev, err := receive(r.agent.EventFD()); err == nil && ev.kind == spawn.EventStatus {
				r.status(unix.WaitStatus(ev.datum))
				continue
			}
		}
		if p[1].Revents != 0 {
			r.finish()
			return
		}
	}
}

// status takes what became of the command.
func (r *running) status(ws unix.WaitStatus) {
	switch {
	case ws.Exited():
		r.setExit(exeq.Exit{Code: ws.ExitStatus()})
	case ws.Signaled():
		r.setExit(exeq.Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())})
	case ws.Stopped():
		r.stopped(ws.StopSignal())
	}
}

func (r *running) setExit(e exeq.Exit) {
	if r.agent.Failure(spawn.RoleCommand) != nil {
		e = exeq.Exit{Code: 126} // its execve was let through and failed
	}
	r.mu.Lock()
	r.exit = &e
	r.mu.Unlock()
}

// finish runs when nothing is alive any more.
func (r *running) finish() {
	r.mu.Lock()
	if r.exit == nil {
		r.exit = &exeq.Exit{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}
	}
	switch {
	case !r.agent.Lapsed():
	case r.outOfTime != nil:
		r.lapsed = r.outOfTime
	default:
		r.lapsed = errors.New("no renewal came within the lease")
	}
	r.mu.Unlock()
	r.over()
	r.stopTerminal()
	if r.tier == exeq.TierNested {
		r.egress.Close()
	} else {
		go r.egress.Close() // nobody lives who could connect; who still accepts is not waited for
	}
	r.notify.stop()
	if r.exit.Code != 0 {
		r.notify.sayRefused(r.plan.unprotected)
	}
	if r.tier == exeq.TierNested {
		r.agent.Close() // it kills what may be left
	} else {
		// Nothing lives inside any more. The kernel takes its time to clear an
		// agent's namespaces away, and nobody has to wait for that.
		go r.agent.Close()
	}
	for _, f := range r.cleanup {
		f()
	}
	close(r.gone)
}

// Applied implements exeq.Running.
func (r *running) Applied() exeq.Applied { return r.applied }

// Stops implements exeq.Running.
func (r *running) Stops() <-chan bool { return r.stops }

// Reload implements exeq.Running.
func (r *running) Reload(ctx context.Context) error { return r.notify.reload(ctx) }

// Exited implements exeq.Running.
func (r *running) Exited() { <-r.gone }

// Lapsed implements exeq.Running.
func (r *running) Lapsed() error {
	<-r.gone
	return r.lapsed
}

// Wait implements exeq.Running.
func (r *running) Wait() (exeq.Exit, error) {
	<-r.gone
	return *r.exit, nil
}

// Kill implements exeq.Running: process 1 dies, and with it the kernel kills
// whatever lives in its namespace, however it was made, before init's own end
// is seen.
func (r *running) Kill(reason string) error {
	r.mu.Lock()
	if r.killed == "" {
		r.killed = reason
	}
	r.mu.Unlock()
	select {
	case <-r.gone:
		return nil
	default:
	}
	if err := unix.PidfdSendSignal(r.initFD, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH && err != unix.EBADF {
		return fmt.Errorf("kill: %w", err)
	}
	<-r.gone
	return nil
}

func newChallenge() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// StoreDir is where copies of programs and their digests are kept in a Scratch
// directory.
func StoreDir(scratch string) string { return filepath.Join(scratch, "programs") }

func (s *launching) storeDir() string { return StoreDir(s.launch.Scratch) }

// runs reports whether a process inside executes the file.
func (r *running) runs(id programs.Identity) bool {
	pids, err := r.processes()
	if err != nil {
		return true
	}
	for _, pid := range pids {
		var st unix.Stat_t
		if r.executes(pid, &st) == nil && uint64(st.Dev) == id.Dev && st.Ino == id.Ino {
			return true
		}
	}
	return false
}
