//go:build linux

package enforce

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

func digestOfFile(t *testing.T, p string) exeq.Digest {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// alive holds the reading end of a pipe that every process of an execution
// inherits: its end of file is the end of the last of them.
type alive struct {
	*bufio.Reader
	r, w *os.File
}

func newAlive(t *testing.T) *alive {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return &alive{bufio.NewReader(r), r, w}
}

func (a *alive) line(t *testing.T) string {
	t.Helper()
	s, err := a.ReadString('\n')
	if err != nil {
		t.Fatalf("no line: %v (%q)", err, s)
	}
	return s
}

func (a *alive) wantEnd(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, a); err != nil {
		t.Fatal(err)
	}
}

// launchWith starts argv with stdout and stderr on a.
func (b *box) launchWith(a *alive, argv ...string) exeq.Running {
	b.t.Helper()
	b.setup = func(l *exeq.Launch) { l.Stdout, l.Stderr = a.w, a.w }
	r, err := b.start(argv...)
	a.w.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func TestKillLeavesNothing(t *testing.T) {
	for _, n := range []string{"1", "100", "1000"} {
		t.Run(n, func(t *testing.T) {
			b := newBox(t)
			a := newAlive(t)
			r := b.launchWith(a, b.helper("forkbomb", n)...)
			if got := a.line(t); got != "forked\n" {
				t.Fatal(got)
			}
			if err := r.Kill("test"); err != nil {
				t.Fatal(err)
			}
			// Kill returned, so the end must be there without a wait.
			raw, err := a.r.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Read(func(fd uintptr) bool {
				if n, err := unix.Read(int(fd), make([]byte, 1)); n != 0 || err != nil {
					t.Errorf("something holds the pipe: %v", err)
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if exit, _ := r.Wait(); exit.Code != 137 {
				t.Errorf("exit %+v", exit)
			}
		})
	}
}

func TestEndOfCommandEndsItsDescendants(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	r := b.launchWith(a, "sh", "-c", "setsid sleep 1000 & echo started; exit 5")
	a.wantEnd(t)
	if exit, _ := r.Wait(); exit.Code != 5 {
		t.Errorf("exit %+v", exit)
	}
}

func TestLeaseLapses(t *testing.T) {
	b := newBox(t)
	b.lease = 300 * time.Millisecond
	a := newAlive(t)
	r := b.launchWith(a, b.helper("forkbomb", "20")...)
	a.wantEnd(t)
	if r.Lapsed() == nil {
		t.Error("nothing says that the lease lapsed")
	}
	if exit, _ := r.Wait(); exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
	if _, err := r.Evidence(context.Background()); !errors.Is(err, exeq.ErrGone) {
		t.Errorf("evidence of the dead: %v", err)
	}
}

func TestRenewalsKeepItAlive(t *testing.T) {
	b := newBox(t)
	b.lease = 1500 * time.Millisecond
	a := newAlive(t)
	r := b.launchWith(a, b.helper("busy")...)
	a.line(t)
	began := time.Now()
	for time.Since(began) < 2*b.lease {
		ev, err := r.Evidence(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(ev.Faults) > 0 || !ev.Watchdog || !ev.Supervisor {
			t.Fatalf("evidence: %+v", ev)
		}
		n := exeq.Renewal{Permit: "test", Challenge: ev.Challenge, Millis: b.lease.Milliseconds()}
		for name, bad := range map[string]func(*exeq.Renewal){
			"another challenge": func(n *exeq.Renewal) { n.Challenge = strings.Repeat("0", 32) },
			"another permit":    func(n *exeq.Renewal) { n.Permit = "other" },
			"a longer lease":    func(n *exeq.Renewal) { n.Millis++ },
		} {
			m := n
			bad(&m)
			if err := r.Renew(m); err == nil {
				t.Fatalf("renewed with %s", name)
			}
		}
		if err := r.Renew(n); err != nil {
			t.Fatal(err)
		}
		if err := r.Renew(n); err == nil {
			t.Fatal("a challenge was answered twice")
		}
	}
	r.Kill("done")
	if err := r.Lapsed(); err != nil {
		t.Errorf("lapsed: %v", err)
	}
}

func TestEvidence(t *testing.T) {
	b := newBox(t)
	own := b.helper("busy")
	a := newAlive(t)
	r := b.launchWith(a, "sh", "-c", strings.Join(own, " ")+"; true")
	a.line(t)
	ev, err := r.Evidence(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(ev.Faults) > 0 {
		t.Error(ev.Faults)
	}
	sh, _ := filepath.EvalSymlinks("/bin/sh")
	want := []exeq.Program{{Path: own[0], SHA256: digestOfFile(t, own[0]), Intact: true}, {Path: sh, SHA256: digestOfFile(t, sh), Intact: true}}
	slices.SortFunc(want, func(a, b exeq.Program) int { return strings.Compare(a.Path, b.Path) })
	if !slices.Equal(ev.Programs, want) || ev.Processes != 2 {
		t.Errorf("programs %+v of %d processes, want %+v of 2", ev.Programs, ev.Processes, want)
	}
	start := r.Applied().Environment
	if e := ev.Environment; e.Mounts != start.Mounts || e.BootID != start.BootID || e.UID != start.UID || e.Seccomp != "filter" || !e.NoNewPrivs || e.Landlock == 0 {
		t.Errorf("environment %+v, at the start %+v", e, start)
	}
	for name, id := range start.Namespaces {
		if ev.Environment.Namespaces[name] != id {
			t.Errorf("namespace %s: %s, at the start %s", name, ev.Environment.Namespaces[name], id)
		}
		if out, _ := os.Readlink("/proc/self/ns/" + name); out == id && name != "cgroup" {
			t.Errorf("namespace %s is that of the host", name)
		}
	}
}

// supervise is a supervisor in a process of its own, to be killed.
func supervise(args []string) {
	tier, _ := exeq.ParseTier(os.Getenv("TIER"))
	e, err := Prepare(Options{Tier: tier, Workspace: args[0]})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	c, err := programs.LookPath(args[1], "/usr/bin:/bin", args[0], "")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	lease, err := time.ParseDuration(os.Getenv("LEASE"))
	if err != nil {
		lease = time.Minute
	}
	scratch := filepath.Join(filepath.Dir(args[0]), "state")
	if s := os.Getenv("SCRATCH"); s != "" {
		scratch = s
	}
	os.MkdirAll(scratch, 0o700)
	rights := rightsOf("/=r", "/usr=rX", "/dev=rw", args[0]+"=rwx")
	r, err := e.Launch(context.Background(), &exeq.Launch{
		ID: "test", Rights: rights, Program: c.File, Argv: args[1:], Env: os.Environ(), Dir: args[0],
		Request: &exeq.Request{Resource: exeq.Resource{Type: "Program", ID: exeq.EncodeBytes(c.Path), SHA256: c.SHA256}},
		Stdin:   os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Lease: lease, Gate: &testGate{},
		CheckRenewal: func(exeq.Renewal) error { return nil }, Scratch: scratch, Hidden: []string{scratch},
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(125)
	}
	go func() {
		for s := range r.Stops() {
			fmt.Fprintln(os.Stderr, "stops", s)
			if !s {
				if err := r.Resume(); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}
	}()
	exit, err := r.Wait()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(exit.Code)
}

func (b *box) supervised(a *alive, argv ...string) *exec.Cmd {
	b.t.Helper()
	c := exec.Command(os.Args[0], append([]string{"helper", "supervise", b.dir}, argv...)...)
	c.Stdout, c.Stderr = a.w, a.w
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	a.w.Close()
	return c
}

func TestSupervisorKilled(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	c := b.supervised(a, b.helper("forkbomb", "50")...)
	if got := a.line(t); got != "forked\n" {
		t.Fatal(got)
	}
	c.Process.Kill()
	a.wantEnd(t)
	c.Wait()
}

// A supervisor that stands still does not keep its execution alive.
func TestSupervisorStopped(t *testing.T) {
	t.Setenv("LEASE", "500ms")
	b := newBox(t)
	r, w, err := os.Pipe() // held by the governed side alone, once the supervisor is killed
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a := &alive{bufio.NewReader(r), r, w}
	c := b.supervised(a, b.helper("forkbomb", "5")...)
	if got := a.line(t); got != "forked\n" {
		t.Fatal(got)
	}
	agent := childOf(t, c.Process.Pid)
	init := childOf(t, agent)
	fd, err := unix.PidfdOpen(init, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c.Process.Signal(unix.SIGSTOP)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			t.Errorf("init outlives the lease: %v", err)
		}
		break
	}
	c.Process.Kill()
	c.Wait()
	a.wantEnd(t)
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		var child int
		if n, _ := fmt.Sscan(string(b), &child); n == 1 {
			return child
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

func TestSignalsAreForwarded(t *testing.T) {
	for name, sig := range map[string]unix.Signal{"TERM": unix.SIGTERM, "HUP": unix.SIGHUP, "INT": unix.SIGINT, "QUIT": unix.SIGQUIT} {
		if signal.Ignored(sig) { // as under nohup: then no shell can trap it
			continue
		}
		b := newBox(t)
		a := newAlive(t)
		c := b.supervised(a, "bash", "-c", "trap 'echo got "+name+"; exit 9' "+name+"; echo armed; while :; do sleep 0.05; done")
		if got := a.line(t); got != "armed\n" {
			t.Fatal(got)
		}
		c.Process.Signal(sig)
		if got := a.line(t); got != "got "+name+"\n" {
			t.Errorf("%s: %q", name, got)
		}
		c.Wait()
		if c.ProcessState.ExitCode() != 9 {
			t.Errorf("%s: exit %d", name, c.ProcessState.ExitCode())
		}
	}
}

func TestQuotas(t *testing.T) {
	b := newBox(t)
	b.rights.Quotas = exeq.Quotas{Execs: 3, FileBytes: 1000}
	code, out := b.run("sh", "-c", "/bin/true && /bin/true && /bin/true && echo too many")
	if code == 0 || strings.Contains(out, "too many") {
		t.Errorf("exit %d %s", code, out)
	}
	b.rights.Quotas = exeq.Quotas{WallSeconds: 1}
	r, err := b.start("sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if exit, _ := r.Wait(); exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
	if err := r.Lapsed(); err == nil || err.Error() != "quota wallSeconds: 1 of 1" {
		t.Errorf("the time was up, and it says %v", err)
	}
}

func TestFailedLaunchLeavesNothing(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	b.setup = func(l *exeq.Launch) {
		l.Stdout, l.Stderr = a.w, a.w
		l.Ready = func(exeq.Applied) error { return errors.New("not on record") }
	}
	_, err := b.start("sh", "-c", "echo ran")
	a.w.Close()
	if !errors.Is(err, exeq.ErrEnforce) || !strings.Contains(err.Error(), "not on record") {
		t.Errorf("launch: %v", err)
	}
	if out, _ := io.ReadAll(a); len(out) > 0 {
		t.Errorf("something ran: %s", out)
	}
	// The bytes are those of the request or nothing runs.
	b.setup = func(l *exeq.Launch) { l.Request.Resource.SHA256[0] ^= 1 }
	if _, err := b.start("true"); !errors.Is(err, exeq.ErrEnforce) {
		t.Errorf("launch of other bytes: %v", err)
	}
	es, err := os.ReadDir(filepath.Join(filepath.Dir(b.dir), "state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), "execution-") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// What was staged waits: nothing of the governed side runs and the gate hears
// nothing before the launch, and without one nothing is left.
func TestStagedWaits(t *testing.T) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, launched := range []bool{true, false} {
		b := newBox(t)
		marker := b.path("ran")
		init := -1 // pidfd
		b.setup = func(l *exeq.Launch) {
			b.enforcer.Stage(context.Background(), l)
			s := b.enforcer.staged
			<-s.built
			if s.stageErr != nil {
				t.Fatal(s.stageErr)
			}
			if init, err = unix.Dup(s.running.initFD); err != nil {
				t.Fatal(err)
			}
			// Long enough for a command that does not wait.
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.running.initFD), Events: unix.POLLIN}}, 200); n != 0 || err != nil {
				t.Errorf("init did not wait: %d, %v", n, err)
			}
			pids, err := s.running.processes()
			if err != nil || len(pids) != 1 {
				t.Fatalf("processes %v, %v", pids, err)
			}
			var exe unix.Stat_t
			if err := s.running.executes(pids[0], &exe); err != nil || exe.Ino != self.Sys().(*syscall.Stat_t).Ino {
				t.Errorf("the command executes something already (%v)", err)
			}
			if _, err := os.Lstat(marker); err == nil || len(b.gate.asks)+len(b.gate.seen) > 0 {
				t.Errorf("before the launch: marker %v, gate %v %v", err, b.gate.asks, b.gate.seen)
			}
			if !launched {
				b.enforcer.Close()
			}
		}
		r, err := b.start("touch", marker)
		defer unix.Close(init)
		if !launched {
			if !errors.Is(err, exeq.ErrEnforce) {
				t.Errorf("launched after the end: %v", err)
			}
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(init), Events: unix.POLLIN}}, 10_000); n != 1 || err != nil {
				t.Errorf("init is alive (%v)", err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(b.dir), "state", "execution-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		} else if err != nil {
			t.Fatal(err)
		} else if exit, err := r.Wait(); err != nil || exit.Code != 0 {
			t.Errorf("exit %+v, %v", exit, err)
		}
		if _, err := os.Lstat(marker); (err == nil) != launched {
			t.Errorf("launched %v, the command ran: %v", launched, err == nil)
		}
	}
}

// Held, every process stands still and the lease does not run; resumed, both
// go on.
func TestHold(t *testing.T) {
	b := newBox(t)
	b.lease = time.Second
	a := newAlive(t)
	r := b.launchWith(a, "bash", "-c", "setsid "+strings.Join(b.helper("busy"), " ")+" & while :; do /bin/true; done")
	a.line(t)
	if err := r.Hold(); err != nil {
		t.Fatal(err)
	}
	ev, err := r.Evidence(context.Background())
	if err != nil || !ev.Stopped || len(ev.Faults) > 0 {
		t.Fatalf("held: %+v, %v", ev, err)
	}
	run := r.(*running)
	before := cpuTime(t, run)
	until := time.Now().Add(3 * b.lease)
	for time.Now().Before(until) {
		unix.Poll(nil, 50)
	}
	if after := cpuTime(t, run); after != before {
		t.Errorf("used %d ticks while held", after-before)
	}
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
	for cpuTime(t, run) == before {
		if r.(*running).isGone() {
			t.Fatal("it did not survive the hold")
		}
	}
	a.wantEnd(t) // no renewal comes any more
	if r.Lapsed() == nil {
		t.Error("the lease did not run after the hold")
	}
}

// cpuTime sums the clock ticks that the processes inside have used.
func cpuTime(t *testing.T, r *running) (sum int) {
	t.Helper()
	pids, err := r.processes()
	if err != nil {
		return -1 // gone
	}
	for _, pid := range pids {
		stat, err := r.readProc(fmt.Sprintf("%d/stat", pid))
		if err != nil {
			continue
		}
		f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		var user, system int
		fmt.Sscan(f[11], &user)
		fmt.Sscan(f[12], &system)
		sum += user + system
	}
	return sum
}
