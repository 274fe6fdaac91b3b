//go:build linux

package enforce

import (
	"context"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

func init() {
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	helpers["signal"] = func(a []string) error { return unix.Kill(number(a[0]), unix.Signal(number(a[1]))) }
	helpers["limit"] = func(a []string) error {
		return unix.Prlimit(number(a[0]), unix.RLIMIT_CPU, &unix.Rlimit{Cur: 1000, Max: 1 << 40}, nil)
	}
	helpers["readmemof"] = func(a []string) error {
		_, err := os.ReadFile("/proc/" + a[0] + "/environ")
		return err
	}
}

// testTier is the tier that boxes are made in.
var testTier = exeq.TierRootless

func inNested(t *testing.T) {
	t.Helper()
	testTier = exeq.TierNested
	t.Setenv("TIER", "nested")
	t.Cleanup(func() { testTier = exeq.TierRootless })
}

// What holds in tier rootless holds here, by other means.
func TestNestedAsRootless(t *testing.T) {
	inNested(t)
	for name, test := range map[string]func(*testing.T){
		"Commands": TestCommands, "GoBuildAndRun": TestGoBuildAndRun, "ForbiddenProgram": TestForbiddenProgram,
		"NoExecRight": TestNoExecRight, "HugeProgram": TestHugeProgram, "LoaderTricks": TestLoaderTricks, "PreloadIsDecided": TestPreloadIsDecided,
		"Shebang": TestShebang, "SwapRaces": TestSwapRaces, "Hidden": TestHidden, "HiddenByRenamedParent": TestHiddenByRenamedParent,
		"KillLeavesNothing": TestKillLeavesNothing, "EndOfCommandEndsItsDescendants": TestEndOfCommandEndsItsDescendants,
		"LeaseLapses": TestLeaseLapses, "RenewalsKeepItAlive": TestRenewalsKeepItAlive,
		"SupervisorKilled": TestSupervisorKilled, "SupervisorStopped": TestSupervisorStopped,
		"SignalsAreForwarded": TestSignalsAreForwarded, "Quotas": TestQuotas, "OutputIsCounted": TestOutputIsCounted,
		"FailedLaunchLeavesNothing": TestFailedLaunchLeavesNothing, "RootBecomesTheOwner": TestRootBecomesTheOwner, "JobControl": TestJobControl, "RebuildWhileRunning": TestRebuildWhileRunning,
	} {
		t.Run(name, test)
	}
}

// Forbids inside permitted trees: the rest of the tree works as before.
func TestNestedForbidsInside(t *testing.T) {
	inNested(t)
	b := newBox(t)
	b.write("open/a", "a", 0o644)
	b.write("closed/b", "b", 0o644)
	b.write("closed/again/c", "c", 0o644)
	b.write("fixed/d", "d", 0o644)
	b.write("secret", "s", 0o644)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("closed")+"=", b.path("closed/again")+"=r",
		b.path("fixed")+"=r", b.path("secret")+"=", b.path("later")+"=r")
	b.works("open", b.path("open/a"))
	b.works("write", b.path("open/a"))
	b.works("write", b.path("new"))
	b.works("open", b.path("new"))
	b.attack("open", b.path("closed/b"))
	b.attack("open", b.path("secret"))
	b.works("open", b.path("closed/again/c"))
	b.attack("write", b.path("closed/again/c"))
	b.works("open", b.path("fixed/d"))
	b.attack("write", b.path("fixed/d"))
	b.refused("write", b.path("later")) // what is made there goes through the supervisor
	b.want(0, "new made moved s\n", "sh", "-ec", `
		mkdir -p made/deep; echo made >made/deep/x; ln made/deep/x made/y; ln -s x made/deep/z
		mv made other; rm new; echo new >new; echo moved >m1; mv m1 m2; truncate -s 6 m2
		rm -r open; mkdir open
		echo $(cat new other/deep/z m2) s
		rm -r other m2`)
	for _, name := range []string{"fixed/d", "closed/again/c"} { // the controls wrote there
		b.write(name, path.Base(name), 0o644)
	}
	for _, try := range []string{
		"mv closed other", "mv fixed other", "rm -rf fixed/d", "ln secret visible && cat visible", "mv secret visible",
		"ln fixed/d writable", "mv new fixed/new", "mv new fixed/d", "mkdir fixed/x", "ln -sfn x fixed", "rm -f secret && test ! -e secret",
		"mkdir later", "mv new later", "ln new later", "cd fixed && mv ../new d", "echo x | tee fixed/d", "truncate -s 0 fixed/d",
		"cat closed/b", "cat secret", "cat /proc/self/cwd/secret", "ln -sf secret s && cat s",
	} {
		if code, out := b.run("sh", "-c", try); code == 0 {
			t.Errorf("%s succeeded: %s", try, out)
		}
	}
	for name, want := range map[string]string{"fixed/d": "d", "secret": "s", "closed/b": "b", "closed/again/c": "c"} {
		if got, err := os.ReadFile(b.path(name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// Processes of the same user that are not the execution's stay untouched by
// its end, and it cannot touch them.
func TestNestedBystanders(t *testing.T) {
	inNested(t)
	b := newBox(t)
	var bystanders []*exec.Cmd
	for range 3 {
		c := exec.Command("sleep", "1000")
		c.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		bystanders = append(bystanders, c)
	}
	pid := strconv.Itoa(bystanders[0].Process.Pid)
	b.attack("signal", pid, "0")
	b.refused("signal", pid, "9")
	b.refused("signal", strconv.Itoa(os.Getpid()), "9")
	b.attack("limit", pid)
	b.refused("limit", strconv.Itoa(os.Getpid()))
	b.attack("readmemof", pid)
	b.run("sh", "-c", "kill -9 -1; kill -STOP -1")
	a := newAlive(t)
	r := b.launchWith(a, b.helper("forkbomb", "100")...)
	a.line(t)
	if err := r.Kill("test"); err != nil {
		t.Fatal(err)
	}
	for _, c := range bystanders {
		if s, err := os.ReadFile("/proc/" + strconv.Itoa(c.Process.Pid) + "/stat"); err != nil || !strings.Contains(string(s), ") S ") {
			t.Errorf("a bystander is no longer well: %s %v", s, err)
		}
	}
}

// Init and agent outlive each other: whoever dies first, the other kills.
func TestNestedKeepersKilled(t *testing.T) {
	inNested(t)
	for _, keeper := range []string{"agent", "init"} {
		t.Run(keeper, func(t *testing.T) {
			b := newBox(t)
			a := newAlive(t)
			r := b.launchWith(a, b.helper("forkbomb", "50")...)
			a.line(t)
			inner := r.(*running)
			pid := inner.agent.PID
			if keeper == "init" {
				pid = inner.agent.InitPID()
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			a.wantEnd(t)
			r.Exited()
		})
	}
}

// What the execution may do to those that hold it: nothing.
func TestNestedKeepersOutOfReach(t *testing.T) {
	inNested(t)
	b := newBox(t)
	b.env = append(b.env, "SUPERVISOR="+strconv.Itoa(os.Getpid()))
	_, out := b.run("sh", "-c", `
		for p in $PPID $(awk '{print $4}' /proc/$PPID/stat) $SUPERVISOR; do
			for s in 0 STOP TERM KILL; do kill -$s $p 2>/dev/null && echo "signalled $p"; done
			for f in mem environ maps; do cat /proc/$p/$f 2>/dev/null | grep -q . && echo "read $f"; done
			ls -l /proc/$p/fd/ 2>/dev/null | grep -q '>' && echo "saw descriptors"
		done; echo done`)
	if out != "done\n" {
		t.Errorf("%s", out)
	}
	b.refused("userns")
	b.refused("mount")
	b.refused("iouring")
	b.refused("listen")
	b.want(0, "4\n", "sh", "-c", "grep -cE '^Cap(Inh|Prm|Eff|Amb):.0*$' /proc/self/status")
	b.refused("fds")
	b.refused("write", "/proc/sys/kernel/core_pattern")
}

func TestNestedNetwork(t *testing.T) {
	inNested(t)
	b := newBox(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.Listen("unix", b.path("host.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, s := range []net.Listener{l, u} {
		go greet(s)
	}
	b.attack("dial", "tcp", l.Addr().String())
	b.attack("dial", "unix", b.path("host.sock"))
	var proxy net.Listener
	b.setup = func(x *exeq.Launch) { x.Egress = func(l net.Listener) { proxy = l; greet(l) } }
	b.attack("dial", "tcp", l.Addr().String())
	own := b.helper()[0]
	code, out := b.run("sh", "-c", `a=${https_proxy#http://}; [ -z "$no_proxy" ] && `+own+` helper dial tcp "$a" && ! `+own+` helper dial tcp "127.0.0.2:${a#*:}" >/dev/null`)
	if code != 0 || out != "hello ok\n" {
		t.Errorf("the proxy was not reached: exit %d %s", code, out)
	}
	_ = proxy
}

func TestNestedEvidence(t *testing.T) {
	inNested(t)
	b := newBox(t)
	own := b.helper("busy")
	a := newAlive(t)
	r := b.launchWith(a, "sh", "-c", strings.Join(own, " ")+"; true")
	a.line(t)
	ev, err := r.Evidence(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(ev.Faults) > 0 || ev.Processes != 2 || len(ev.Programs) != 2 || !ev.Watchdog {
		t.Errorf("evidence %+v", ev)
	}
	for _, p := range ev.Programs {
		if !p.Intact || p.SHA256 != digestOfFile(t, p.Path) {
			t.Errorf("program %+v", p)
		}
	}
	if e := ev.Environment; e.Seccomp != "filter" || !e.NoNewPrivs || !maps.Equal(e.Namespaces, r.Applied().Environment.Namespaces) {
		t.Errorf("environment %+v", e)
	}
	if got := r.Applied(); got.Tier != exeq.TierNested || got.LandlockABI < nestedABI {
		t.Errorf("applied %+v", got)
	}
	if err := r.Hold(); err != nil {
		t.Fatal(err)
	}
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
}

// The trial that a doubtful machine is put to passes on this one.
func TestTryMounts(t *testing.T) {
	if os.Getenv(likeDocker) != "" {
		t.Skip("a container")
	}
	if err := tryMounts(); err != nil {
		t.Error(err)
	}
}

// A loader of one's own could be rewritten behind the decision on it.
func TestNestedOwnLoader(t *testing.T) {
	inNested(t)
	b := newBox(t)
	loader := b.copy("/lib64/ld-linux-x86-64.so.2", "loader")
	b.write("a.c", "int main(void) { return 0; }\n", 0o644)
	if out, err := exec.Command("gcc", "-Wl,--dynamic-linker="+loader, "-o", b.path("prog"), b.path("a.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	b.attack("exec", b.path("prog"))
	if !strings.Contains(b.msgs.String(), "its loader") {
		t.Errorf("messages %q", b.msgs.String())
	}
}
