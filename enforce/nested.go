//go:build linux

package enforce

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/landlock"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/enforce/spawn"
)

// The tier `nested` needs no namespace, so it works inside a plain container.
// What the mounts and namespaces of `rootless` do there is done here by
//
//   - Landlock in two layers: A and B are in one that scopes signals, so that
//     their kill(-1) reaches the execution and nothing else; C is in a second
//     one that holds its rights, so that it reaches neither A, B nor S;
//   - a look at each program at its exec stop, before its first instruction
//     (nested_exec.go);
//   - descriptors of store copies for what is mapped executable from where the
//     execution may write (nested_map.go);
//   - a supervisor that makes connections and, where a forbid lies inside a
//     permitted tree, opens and renames on behalf (nested_net.go,
//     nested_files.go), and that changes the attributes of files, which
//     Landlock does not govern (nested_attributes.go).

// nested is what the notify loop has beside it in this tier.
type nested struct {
	store  string // directory of copies
	proxy  *net.TCPAddr
	native *exeq.Rights     // what Landlock grants
	inodes map[string]inode // to what, where it is one entry of a directory
	// Writes and reads are supervised in directories without a grant.
	writes, reads bool
	spares        *spares
	shared        shared
	umask         uint32 // the supervisor's
	// writing is held for reading while a descriptor open for writing is
	// handed over, since what we still hold does not run.
	writing sync.RWMutex
	net     *gatedListener
}

// nestedABI is the Landlock ABI that scopes signals.
const nestedABI = 6

// prepareNested clones the agent and has it confine itself.
func prepareNested(o Options, who identity) (*Enforcer, error) {
	abi, err := landlock.ABI()
	if err != nil {
		return nil, err
	}
	if abi < nestedABI {
		return nil, fmt.Errorf("Landlock ABI %d, and only %d keeps signals inside (Linux 6.12)", abi, nestedABI)
	}
	if err := who.lookable(); err != nil {
		return nil, err
	}
	e := &Enforcer{opt: o, who: who, tier: exeq.TierNested, was: raise()}
	e.ready.Do(func() {})
	if e.agent, err = spawn.StartTree(func(g *spawn.Agent, l *spawn.List) { g.Confine(l) }); err != nil {
		return nil, err
	}
	err = e.agent.Wait()
	if err == nil {
		err = traceable(e.agent.PID)
	}
	if err == nil {
		e.egress, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		e.agent.Close()
		return nil, err
	}
	return e, nil
}

// runNested is run for this tier.
func (s *launching) runNested() (*running, error) {
	l := *s.launch
	s.launch = &l
	if l.Rights.TierFloor > exeq.TierNested {
		return nil, fmt.Errorf("rights ask for tier %s", l.Rights.TierFloor)
	}
	if l.Gate == nil || l.CheckRenewal == nil || l.Lease <= 0 {
		return nil, errors.New("a launch needs a gate, a check of renewals and a lease")
	}
	n := &nested{store: s.storeDir(), proxy: s.egress.Addr().(*net.TCPAddr), umask: umaskOf("self")}
	if err := s.nestedRights(n); err != nil {
		return nil, err
	}
	store, err := programs.OpenStore(s.storeDir())
	if err != nil {
		return nil, err
	}
	s.onUndo(func() { store.Close() })
	s.openTerminal()
	r := newRunning(s, store)
	s.running = r
	r.plan = &plan{}
	r.notify.approver = inPlace{}
	r.notify.nested = n
	n.shared.members = r.processes
	if s.tty != nil {
		n.shared.terminal = s.terminalPath()
	}
	n.net = &gatedListener{Listener: s.egress}
	s.egress = n.net
	var mark [8]byte
	rand.Read(mark[:])
	r.mark = 1<<62 | binary.NativeEndian.Uint64(mark[:])>>2
	if err := s.nestedBuild(r, n); err != nil {
		return nil, err
	}
	if err := s.nestedEnter(r); err != nil {
		return nil, err
	}
	if err := r.notify.release(s); err != nil {
		for role, name := range map[spawn.Role]string{spawn.RoleCommand: "command", spawn.RoleInit: "init"} {
			if f := s.agent.Failure(role); f != nil {
				err = fmt.Errorf("%w (%s: %w)", err, name, f)
			}
		}
		return nil, err
	}
	r.start()
	return r, nil
}

// nestedRights turns the rights into a ruleset. What is hidden has no rights.
func (s *launching) nestedRights(n *nested) error {
	l := s.launch
	if err := s.makeScratch(); err != nil {
		return err
	}
	rights := *l.Rights
	rights.Cells = slices.Clone(rights.Cells)
	hidden, err := hiddenPaths(l)
	if err != nil {
		return err
	}
	for _, h := range hidden {
		hide(&rights, h)
	}
	l.Rights = &rights
	o := landlock.Options{Gated: true, Scope: true, Net: true, MinABI: nestedABI}
	if l.Egress != nil {
		o.Connect = []uint16{uint16(n.proxy.Port)}
	}
	grant, err := s.carve(&rights)
	if err != nil {
		return err
	}
	if s.ruleset, s.report, err = landlock.Build(grant.rights, o); err != nil {
		return err
	}
	s.onUndo(func() { unix.Close(s.ruleset) })
	if len(s.report.Masks) > 0 {
		m := s.report.Masks[0]
		return fmt.Errorf("a forbid inside a permitted tree cannot be held here: %s (%s)", exeq.EncodeBytes(m.Path), m.Over)
	}
	n.inodes = grant.inodes
	n.native, n.writes, n.reads = grant.rights, grant.writes, s.readsSupervised(grant)
	if err := grant.list(s.ruleset); err != nil {
		return err
	}
	if err := s.spare(n, grant); err != nil {
		return err
	}
	if err := s.share(n, grant); err != nil {
		return err
	}
	for _, m := range s.report.Missing {
		if m.Over&landlock.Write != 0 {
			s.downgrade = append(s.downgrade, exeq.EncodeBytes(m.Path)+": does not exist yet, so nothing keeps it from being made")
		}
	}
	if l.Rights.Quotas.Processes > 0 {
		s.downgrade = append(s.downgrade, "quota processes: counted at each tick, since a limit of the kernel's would count the user's other processes")
	}
	return nil
}

// hide takes every right at and below a raw path.
func hide(r *exeq.Rights, raw string) {
	p := exeq.EncodeBytes(raw)
	r.Cells = slices.DeleteFunc(r.Cells, func(c exeq.Cell) bool { return c.Path == p || within(c.Path, p) })
	i, _ := slices.BinarySearchFunc(r.Cells, p, func(c exeq.Cell, s string) int {
		if c.Path < s {
			return -1
		}
		return 1
	})
	r.Cells = slices.Insert(r.Cells, i, exeq.Cell{Path: p})
}

// nestedFilter says which system calls are refused and which are put to us.
func (s *launching) nestedFilter() filter.Options {
	o := filter.Options{
		Notify: filter.Exec | filter.Map | filter.Protect | filter.Connect | filter.Memfd | filter.Attributes,
		Shared: true, Inet: s.launch.Egress != nil,
	}
	n := s.running.notify.nested
	if n.writes {
		o.Notify |= filter.OpenWrite | filter.OpenNew | filter.Remove | filter.Link | filter.Make | filter.MakeDir
	}
	if n.reads {
		o.Notify |= filter.OpenRead | filter.OpenWrite | filter.OpenNew
	}
	return o
}

// nestedBuild has the agent fork init, which forks the command.
func (s *launching) nestedBuild(r *running, n *nested) error {
	env := s.environment()
	size := 0
	for _, x := range [][]string{s.launch.Argv, env} {
		for _, a := range x {
			size += len(a) + 32
		}
	}
	if size > 8<<20 {
		return fmt.Errorf("%d bytes of arguments are over the limit", size)
	}
	prog, err := filter.Assemble(s.nestedFilter())
	if err != nil {
		return err
	}
	return s.agent.Keep(func(l *spawn.List) {
		_, canary := mounter{l: l}.open(s.canaryPath())
		s.agent.ForkInit(l, 0, s.nestedInit(r, canary, prog, env))
		s.apart(l)
	})
}

// nestedInit is B up to its loop.
func (s *launching) nestedInit(r *running, canary spawn.Ref, prog []unix.SockFilter, env []string) *spawn.List {
	l := s.agent.NewList()
	l.Do("close", unix.SYS_CLOSE, s.agent.Control())
	l.Do("close", unix.SYS_CLOSE, s.agent.Timer())
	l.Do("setpgid", unix.SYS_SETPGID, v(0), v(0))
	s.dropPrivileges(l)
	s.agent.WatchAgent(l) // a change of credentials clears its PDEATHSIG
	s.agent.ForkCommand(l, unix.CLONE_CLEAR_SIGHAND, s.nestedCommand(r, canary, prog, env))
	l.Do("not dumpable", unix.SYS_PRCTL, v(unix.PR_SET_DUMPABLE), v(0), v(0), v(0), v(0))
	return l
}

// dropPrivileges leaves the execution's user without capabilities.
func (s *launching) dropPrivileges(l *spawn.List) {
	if os.Geteuid() == 0 {
		dropBoundingSet(l)
	}
	if s.who.change {
		s.changeUser(l)
	}
	dropCapabilities(l)
}

// nestedCanaries is what Applied.Canary says.
const nestedCanaries = "signals to init and to the supervisor, exec and open of a hidden path, bpf, exec of an unapproved program"

// nestedCommand is the command up to its execve.
func (s *launching) nestedCommand(r *running, canary spawn.Ref, prog []unix.SockFilter, env []string) *spawn.List {
	l := s.agent.NewList()
	m := mounter{l: l}
	empty := v(l.Arena.Strs(nil))
	ruleset := s.receive(l)
	l.Do("chdir "+s.launch.Dir, unix.SYS_CHDIR, m.str(s.launch.Dir))
	s.limits(l)
	s.was.lower(l)
	s.umask(l)
	mark := unix.Rlimit{Cur: r.mark, Max: r.mark}
	l.Do("setrlimit mark", unix.SYS_PRLIMIT64, v(0), v(filter.Mark), v(l.Arena.Struct(unsafe.Pointer(&mark), unsafe.Sizeof(mark))), v(0))
	init := l.Result(l.Do("getppid", unix.SYS_GETPPID))
	l.Do("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, load(ruleset), v(0))
	l.Do("canary: exec without a right", unix.SYS_EXECVEAT, load(canary), m.str(""), empty, empty, v(unix.AT_EMPTY_PATH)).Want = int32(unix.EACCES)
	l.Do("canary: signal to init", unix.SYS_KILL, load(init), v(0)).Want = int32(unix.EPERM)
	l.Do("canary: signal to the supervisor", unix.SYS_KILL, v(unix.Getpid()), v(0)).Want = int32(unix.EPERM)
	s.seccomp(l, prog)
	l.Do("canary: hidden path", unix.SYS_OPENAT, atCWD, m.str(s.canaryPath()), v(unix.O_RDONLY|unix.O_CLOEXEC)).Flags = spawn.Refused
	s.execute(l, canary, env)
	return l
}

// nestedEnter is enter for this tier: nothing has to be waited for before the
// descriptors are sent.
func (s *launching) nestedEnter(r *running) error {
	var err error
	if r.initFD, err = unix.PidfdOpen(s.agent.InitPID(), 0); err != nil {
		return fmt.Errorf("pidfd of init: %w", err)
	}
	s.onUndo(func() { unix.Close(r.initFD) })
	if r.procFD, err = unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	s.onUndo(func() { unix.Close(r.procFD) })
	if r.notify.root, err = unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	s.onUndo(func() { unix.Close(r.notify.root) })
	tty := int(s.launch.Stdin.Fd())
	if s.tty != nil {
		tty = s.terminalFD()
	}
	fds := unix.UnixRights(s.ruleset, int(s.launch.Stdin.Fd()), int(s.launch.Stdout.Fd()), int(s.launch.Stderr.Fd()), tty)
	if err := unix.Sendmsg(s.agent.EventFD(), make([]byte, 8), fds, nil, unix.MSG_NOSIGNAL); err != nil {
		return err
	}
	for r.notify.fd < 0 {
		ev, err := r.receive()
		if err != nil {
			return err
		}
		if ev.kind != eventSeccomp || len(ev.fds) != 1 {
			return fmt.Errorf("event %d while starting: %w", ev.kind, r.failure())
		}
		r.notify.fd = ev.fds[0]
	}
	return nil
}

// inPlace is the approver: an approved program is executed where it lies, and
// looked at when it is.
type inPlace struct{}

func (inPlace) Approve(programs.Process, *programs.File, *programs.Copy) error {
	return unix.EACCES // it lies on a noexec mount
}

func (inPlace) Executable(c *programs.Copy) (int, error) {
	return unix.Open(c.Path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (inPlace) Vacate(*programs.File) error { return nil }
func (inPlace) Occupied() bool              { return false }
func (inPlace) Owns(uint64) bool            { return false }
