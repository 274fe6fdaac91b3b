//go:build linux

package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/landlock"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/enforce/spawn"
)

// Launch implements exeq.Enforcer. It serves once.
func (e *Enforcer) Launch(ctx context.Context, l *exeq.Launch) (exeq.Running, error) {
	if e.launched {
		return nil, fmt.Errorf("%w: an enforcer launches once", exeq.ErrEnforce)
	}
	e.launched = true
	s := &launching{Enforcer: e, launch: l, ctx: ctx, built: make(chan struct{})}
	run := s.run
	switch {
	case e.tier == exeq.TierNested:
		run = s.runNested
	case e.staged != nil && e.staged.launch == l:
		s = e.staged
		run = s.run
	default:
		s.stage()
	}
	r, err := run()
	if err != nil {
		s.undo()
		return nil, fmt.Errorf("%w: %s: %w", exeq.ErrEnforce, e.tier, err)
	}
	return r, nil
}

// Stage implements exeq.Stager.
func (e *Enforcer) Stage(ctx context.Context, l *exeq.Launch) {
	if e.tier == exeq.TierNested || e.launched || e.staged != nil {
		return
	}
	e.staged = &launching{Enforcer: e, launch: l, ctx: ctx, built: make(chan struct{})}
	go e.staged.stage()
}

// launching is a launch under way.
type launching struct {
	*Enforcer
	built    chan struct{} // closed when stage has returned
	stageErr error
	launch   *exeq.Launch
	ctx      context.Context

	props     string // directories in Scratch; see scratch.go
	own       string
	plan      *plan
	ruleset   int
	report    landlock.Report
	tty       *os.File // our controlling terminal
	front     bool     // we are its foreground group
	running   *running
	cleanup   []func()
	hidden    []string
	labelled  []string // paths
	downgrade []string
}

func (s *launching) onUndo(f func()) { s.cleanup = append(s.cleanup, f) }

// undo leaves nothing alive and nothing behind.
func (s *launching) undo() {
	if s.egress != nil {
		s.egress.Close()
	}
	s.agent.Close()
	if s.running != nil {
		s.running.notify.stop()
	}
	for _, f := range slices.Backward(s.cleanup) {
		f()
	}
}

// stage takes the launch to where the command waits for the answer to its first
// canary: nothing of the governed side has run, and the gate was not asked.
func (s *launching) stage() {
	defer close(s.built)
	s.stageErr = func() error {
		if l := s.launch; l.Rights.TierFloor > s.achieved() {
			return fmt.Errorf("rights ask for tier %s", l.Rights.TierFloor)
		}
		if err := s.prepareRights(); err != nil {
			return err
		}
		store, err := programs.OpenStore(s.storeDir())
		if err != nil {
			return err
		}
		s.onUndo(func() { store.Close() })
		if err := s.await(); err != nil {
			return err
		}
		s.openTerminal()
		s.running = newRunning(s, store)
		if err := s.build(s.running); err != nil {
			return err
		}
		return s.enter(s.running)
	}()
}

func (s *launching) run() (*running, error) {
	<-s.built
	if s.stageErr != nil {
		return nil, s.stageErr
	}
	r, l := s.running, s.launch
	if l.Gate == nil || l.CheckRenewal == nil || l.Lease <= 0 {
		return nil, errors.New("a launch needs a gate, a check of renewals and a lease")
	}
	if err := r.notify.release(s); err != nil {
		if f := s.agent.Failure(spawn.RoleCommand); f != nil {
			err = fmt.Errorf("%w (command: %w)", err, f)
		}
		if f := s.agent.Failure(spawn.RoleInit); f != nil {
			err = fmt.Errorf("%w (init: %w)", err, f)
		}
		return nil, err
	}
	r.start()
	return r, nil
}

// prepareRights turns the rights into a ruleset and a plan.
func (s *launching) prepareRights() error {
	l := s.launch
	if replaced(l.Dir) {
		return fmt.Errorf("the working directory %s lies where an execution has a file system of its own (%s): work in another, or use tier nested",
			l.Dir, strings.Join(ownFileSystems, ", "))
	}
	if err := s.makeScratch(); err != nil {
		return err
	}
	var err error
	if s.hidden, err = hiddenPaths(l); err != nil {
		return err
	}
	abi, err := landlock.ABI()
	if err != nil {
		return err
	}
	scope := abi >= 6
	if !scope {
		s.downgrade = append(s.downgrade, "signals to processes outside and abstract unix sockets: kept apart by namespaces alone (Landlock ABI below 6)")
	}
	if s.ruleset, s.report, err = landlock.Build(l.Rights, landlock.Options{
		Gated: true, Replaced: ownFileSystems, Scope: scope}); err != nil {
		return err
	}
	s.onUndo(func() { unix.Close(s.ruleset) })
	if s.plan, err = newPlan(l.Rights, s.report.Pins, s.hidden); err != nil {
		return err
	}
	if s.labelled, err = labelled(l.Rights); err != nil {
		return err
	}
	return nil
}

// hiddenPaths are what must not exist inside, as it stands in the file system,
// parents first and nothing below another.
func hiddenPaths(l *exeq.Launch) ([]string, error) {
	var out []string
	for _, h := range append([]string{l.Scratch}, l.Hidden...) {
		real, err := filepath.EvalSymlinks(h)
		if err != nil {
			return nil, fmt.Errorf("hidden path: %w", err)
		}
		if real == "/" {
			return nil, errors.New("hidden path: the root cannot be hidden")
		}
		out = append(out, real)
	}
	slices.SortFunc(out, comparePaths)
	return slices.CompactFunc(out, func(a, b string) bool { return within(b, a) }), nil
}

// canaryProgram is a whole ELF program that exits with 99: what the canary
// would run if nothing stopped it.
func canaryProgram() []byte {
	code := canaryCode
	const base, head = 0x10000, 64 + 56
	b := make([]byte, head, head+len(code))
	copy(b, "\x7fELF\x02\x01\x01")
	put := func(at int, v uint64, n int) {
		for i := range n {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	put(16, 2, 2) // ET_EXEC
	put(18, canaryMachine, 2)
	put(20, 1, 4)
	put(24, base+head, 8) // entry
	put(32, 64, 8)        // program headers
	put(52, 64, 2)
	put(54, 56, 2)
	put(56, 1, 2)
	put(64, 1, 4) // PT_LOAD
	put(68, 5, 4) // r-x
	put(80, base, 8)
	put(88, base, 8)
	put(96, uint64(head+len(code)), 8)
	put(104, uint64(head+len(code)), 8)
	put(112, 0x1000, 8)
	return append(b, code...)
}

// build has the agent make the mounts and fork init, which forks the command;
// the command waits for its descriptors.
func (s *launching) build(r *running) error {
	c := coverOf(s.coversPath())
	var err error
	if c.skeletons, err = s.plan.makeSkeletons(s.ownScratch); err != nil {
		return err
	}
	env := s.environment()
	size := 0
	for _, x := range [][]string{s.launch.Argv, env} {
		for _, a := range x {
			size += len(a) + 32
		}
	}
	if size > 8<<20 || len(s.plan.ops) > 20_000 {
		return fmt.Errorf("%d bytes of arguments and %d mounts are over the limit", size, len(s.plan.ops))
	}
	prog, err := filter.Assemble(s.filterOptions())
	if err != nil {
		return err
	}
	return s.agent.Keep(func(l *spawn.List) {
		m := mounter{l: l}
		// Taken before anything covers them.
		_, canary := m.open(s.canaryPath())
		_, r.binds.store = m.open(s.storeDir())
		m.detach(s.labelled, s.agent.Events())
		m.base(s.plan.root)
		m.covers(s.coversPath())
		_, r.binds.grave = m.open(filepath.Dir(s.slotPath()))
		_, r.binds.slot = m.open(s.slotPath())
		m.take(s.plan, c)
		m.regions(s.plan, c)
		m.readonly("/sys")
		if exe, err := os.Readlink("/proc/self/exe"); err == nil {
			m.over(exe, exe, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID, 0)
		}
		m.dev(s.plan.devices, s.terminalPath())
		for _, h := range s.hidden {
			cover := c.file
			if dir, err := kindOf(h); err != nil || dir {
				cover = c.dir
			}
			m.over(h, cover, maskFlags, 0)
		}
		r.binds.prepare(m)
		diag := l.Do("socket diagnosis", unix.SYS_SOCKET, v(unix.AF_NETLINK), v(unix.SOCK_RAW|unix.SOCK_CLOEXEC), v(unix.NETLINK_INET_DIAG))
		diag.Out = l.Send("send it", s.agent.Events(), eventDiag, 0)
		m.close(diag.Out)
		s.agent.ForkInit(l, unix.CLONE_NEWPID, s.initList(canary, prog, env))
		s.apart(l)
	})
}

// filterOptions says which system calls are refused and which are put to us.
func (s *launching) filterOptions() filter.Options {
	o := filter.Options{
		Notify: filter.Exec | filter.Map | filter.OpenWrite | filter.Remove | filter.Connect | filter.Memfd | filter.Access |
			filter.Link | filter.Make | filter.Chmod, // to tell of what the kernel refuses, and nothing else
		PrivateNet: true, Inet: true, Unix: true,
	}
	if len(s.labelled) > 0 {
		o.Notify |= filter.OpenRead
	}
	if s.launch.Observe {
		o.Notify |= filter.OpenRead | filter.OpenNew | filter.MakeDir
	}
	return o
}

// secureBits: root has no capabilities by being root, for good.
const secureBits = 0xef

// initList is process 1 up to its loop.
func (s *launching) initList(canary spawn.Ref, prog []unix.SockFilter, env []string) *spawn.List {
	l := s.agent.NewList()
	m := mounter{l: l}
	death := func() {
		l.Do("PDEATHSIG", unix.SYS_PRCTL, v(unix.PR_SET_PDEATHSIG), v(int(unix.SIGKILL)))
	}
	death()
	l.Do("close", unix.SYS_CLOSE, s.agent.Control())
	l.Do("close", unix.SYS_CLOSE, s.agent.Timer())
	l.Do("setpgid", unix.SYS_SETPGID, v(0), v(0))
	m.proc()
	l.Tell("tell that /proc stands", s.agent.Events(), spawn.EventReady, 0)
	dropBoundingSet(l)
	if s.who.change {
		s.changeUser(l)
		death() // a change of credentials clears it
	}
	dropCapabilities(l)
	s.agent.ForkCommand(l, unix.CLONE_CLEAR_SIGHAND, s.commandList(canary, prog, env))
	l.Do("not dumpable", unix.SYS_PRCTL, v(unix.PR_SET_DUMPABLE), v(0), v(0), v(0), v(0))
	return l
}

// commandList is the command up to its execve. Of the canaries in it, each
// must be refused by what it is for, or the list ends.
func (s *launching) commandList(canary spawn.Ref, prog []unix.SockFilter, env []string) *spawn.List {
	l := s.agent.NewList()
	m := mounter{l: l}
	empty := v(l.Arena.Strs(nil))
	ruleset := s.receive(l)
	s.was.lower(l)
	s.umask(l)
	l.Do("chdir "+s.launch.Dir, unix.SYS_CHDIR, m.str(s.launch.Dir))
	s.limits(l)
	if !s.plan.root.exec {
		op := l.Do("canary: noexec mount", unix.SYS_EXECVEAT, load(canary), m.str(""), empty, empty, v(unix.AT_EMPTY_PATH))
		op.Want = int32(unix.EACCES)
	}
	l.Do("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, load(ruleset), v(0))
	s.seccomp(l, prog)
	l.Do("canary: hidden path", unix.SYS_OPENAT, atCWD, m.str(s.canaryPath()), v(unix.O_PATH|unix.O_CLOEXEC)).Flags = spawn.Refused
	s.execute(l, canary, env)
	return l
}

// canaryNames is what Applied.Canary says.
const canaryNames = "exec on a noexec mount, open of a hidden path, bpf, exec of an unapproved program"

// What brings descriptors out while an execution starts.
const (
	eventSeccomp    = eventListener + 1 + iota // the seccomp listener
	eventExecutable                            // an executable mount of the store, attached nowhere
	eventLabelled                              // a detached mount of a labelled path
	eventDiag                                  // NETLINK_SOCK_DIAG of the network namespace
)

// limits appends the limits that rights set for each process. Core dumps would
// be handed to a program of the host.
func (s *launching) limits(l *spawn.List) {
	set := func(name string, resource int, n uint64) {
		var have unix.Rlimit // what is lower already stays so
		if unix.Prlimit(0, resource, nil, &have) == nil {
			n = min(n, have.Max)
		}
		r := unix.Rlimit{Cur: min(n, have.Cur), Max: n}
		l.Do("setrlimit "+name, unix.SYS_PRLIMIT64, v(0), v(resource), v(l.Arena.Struct(unsafe.Pointer(&r), unsafe.Sizeof(r))), v(0))
	}
	set("core", unix.RLIMIT_CORE, 0)
	q := s.launch.Rights.Quotas
	if q.MemoryBytes > 0 {
		set("data", unix.RLIMIT_DATA, uint64(q.MemoryBytes))
	}
	if q.FileBytes > 0 {
		set("fsize", unix.RLIMIT_FSIZE, uint64(q.FileBytes))
	}
	if q.Processes > 0 && s.who.uid != 0 && s.tier == exeq.TierRootless {
		// Counted within the user namespace; agent and init are two more.
		set("nproc", unix.RLIMIT_NPROC, uint64(q.Processes)+2)
	}
}

// programPath is the path that the program is executed by: its own. The
// supervisor sees to it that what is executed is the inode of Launch.Program.
func (s *launching) programPath() string { return s.launch.Program.Name() }

// environment adds the proxy's variables.
func (s *launching) environment() []string {
	if s.launch.Egress == nil {
		return s.launch.Env
	}
	url := "http://" + s.egress.Addr().(*net.TCPAddr).String()
	env := slices.Clone(s.launch.Env)
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"} {
		value := url
		if name == "no_proxy" {
			value = ""
		}
		for _, n := range []string{name, strings.ToUpper(name)} {
			env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, n+"=") })
			env = append(env, n+"="+value)
		}
	}
	return env
}

// removeAll removes a directory of ours, parts of which nobody may write.
func removeAll(dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}
