//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/landlock"
	"github.com/exeq/exeq/enforce/programs"
)

// lateRules adds the rules for what lies on file systems that only the
// execution has.
func (s *launching) lateRules(in func(path string, flags int) (int, error)) error {
	for _, rule := range s.report.Late {
		fd, err := in(rule.Path, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", rule.Path, err)
		}
		err = landlock.AddPath(s.ruleset, fd, rule.Bits)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", rule.Path, err)
		}
	}
	return nil
}

// release answers the command's notifications up to its first execve: the
// canary is refused, the program is the one of the request, the start is on
// record, the lease begins. Any other course is an error and the end.
func (n *notifier) release(s *launching) error {
	r := s.running
	id, err := fileIdentity(s.canaryPath())
	if err != nil {
		return err
	}
	n.canary = id
	flags := uint64(syncWakeUp)
	n.ioctl(ioctlSetFlags, unsafe.Pointer(&flags)) // faster where the kernel has it
	canary := false
	for {
		q, err := n.first(r)
		if err != nil {
			return err
		}
		switch {
		case q.nr == sysExecveat && !canary:
			f, err := (programs.Process{PID: int(q.pid)}).Resolve(int(int32(q.args[0])), "", programs.FollowLast)
			if err != nil {
				return err
			}
			canary = f.ID == n.canary
			f.Close()
			n.fail(q, unix.EPERM)
		case q.nr == sysExecve && canary:
			return n.start(s, q)
		case q.nr == sysExecve, q.nr == sysExecveat:
			return errors.New("canary: the notification of exec was passed by")
		default:
			n.handle(q)
		}
	}
}

// first is next, for as long as the launch may take.
func (n *notifier) first(r *running) (*notification, error) {
	for {
		p := []unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}, {Fd: int32(r.initFD), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 200); err == unix.EINTR {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		if p[1].Revents != 0 {
			return nil, r.failure()
		}
		if p[0].Revents&unix.POLLIN != 0 {
			q, err := n.next()
			if err == io.EOF {
				err = r.failure()
			}
			return q, err
		}
	}
}

// start rules on the program itself: the permit is for these bytes.
func (n *notifier) start(s *launching, q *notification) error {
	r, l := s.running, s.launch
	r.command = int(q.pid)
	var err error
	if r.commandFD, err = unix.PidfdOpen(r.command, 0); err != nil {
		return err
	}
	s.onUndo(func() { unix.Close(r.commandFD) })
	if err := s.enclose(r); err != nil {
		return err
	}
	p := programs.Process{PID: int(q.pid)}
	f, err := p.Resolve(unix.AT_FDCWD, s.programPath(), programs.FollowLast)
	if err != nil {
		return err
	}
	defer f.Close()
	var want unix.Stat_t
	if err := unix.Fstat(int(l.Program.Fd()), &want); err != nil {
		return err
	}
	if f.ID.Dev != uint64(want.Dev) || f.ID.Ino != want.Ino {
		return fmt.Errorf("%s is no longer the file that was decided on", s.programPath())
	}
	if e := n.runnable(f); e != 0 {
		return fmt.Errorf("%s: %w", s.programPath(), e)
	}
	n.run = &l.Request.Resource
	err = n.admitChain(p, q, f, func() ([]string, error) { return n.argv(q, q.args[1]) })
	n.run = nil
	if err != nil {
		return fmt.Errorf("%s: %w", s.programPath(), err)
	}
	if err := r.apply(); err != nil {
		return err
	}
	if l.Ready != nil {
		if err := l.Ready(r.applied); err != nil {
			return err
		}
	}
	if err := r.begin(); err != nil {
		return err
	}
	n.execs.Add(1)
	n.proceed(q)
	return nil
}

// apply measures what was achieved.
func (r *running) apply() error {
	a := exeq.Applied{
		Tier: r.achieved(), LandlockABI: r.report.ABI, Canary: canaryNames,
		Seen: map[string]string{"exec": "all", "map": "all", "read": "none", "write": "none", "connect": "all"},
	}
	for _, p := range r.labelled {
		a.Downgrades = append(a.Downgrades, fmt.Sprintf("%s: reads set labels, so nothing there can be written from inside", exeq.EncodeBytes(p)))
	}
	for _, u := range r.plan.unshadowed {
		a.Downgrades = append(a.Downgrades, u+", so only opening shows what is there")
	}
	for _, d := range r.report.Narrowed {
		a.Downgrades = append(a.Downgrades, fmt.Sprintf("%s %s: narrowed: %s", exeq.EncodeBytes(d.Path), d.Access, d.Reason))
	}
	for _, d := range r.report.Widened {
		a.Downgrades = append(a.Downgrades, fmt.Sprintf("%s %s: %s", exeq.EncodeBytes(d.Path), d.Access, d.Reason))
	}
	for _, p := range r.plan.unprotected {
		if st, err := os.Stat(filepath.Dir(p)); err == nil && st.IsDir() && r.achieved() >= exeq.TierKernel {
			continue // the gate holds the name
		}
		a.Downgrades = append(a.Downgrades, fmt.Sprintf("%s: does not exist yet, so nothing keeps it from being made", exeq.EncodeBytes(p)))
	}
	q := r.launch.Rights.Quotas
	if q.Processes > 0 && r.who.uid == 0 {
		a.Downgrades = append(a.Downgrades, "quota processes: counted at each tick, since the kernel exempts root from RLIMIT_NPROC")
	}
	if q.OutputBytes > 0 {
		limit := outputLimit
		if !outputKnown() {
			limit = "quota outputBytes: this kernel does not count what processes write, so only what leaves through the proxy is"
		}
		a.Downgrades = append(a.Downgrades, limit)
	}
	a.Downgrades = append(a.Downgrades, r.downgrade...)
	slices.Sort(a.Downgrades)
	a.Downgrades = slices.Compact(a.Downgrades)
	if r.tier == exeq.TierNested {
		a.Canary = nestedCanaries
	}
	env, faults := r.environmentNow()
	if len(faults) > 0 {
		return fmt.Errorf("cannot measure: %v", faults)
	}
	a.Environment = env
	if a.Enclosure = r.enclosure; a.Enclosure != nil {
		a.Canary += ", " + a.Enclosure.Canary
		a.Downgrades = append(a.Downgrades, a.Enclosure.Downgrades()...)
		slices.Sort(a.Downgrades)
	}
	r.applied = a
	return nil
}

func fileIdentity(path string) (programs.Identity, error) {
	f, err := (programs.Process{PID: unix.Getpid()}).Resolve(unix.AT_FDCWD, path, programs.NoFollow)
	if err != nil {
		return programs.Identity{}, err
	}
	defer f.Close()
	return f.ID, nil
}
