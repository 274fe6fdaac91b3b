//go:build linux

package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// Users of nobody's, and of no other test that runs at the same time: a scope
// over one touches nothing else on the machine.
var (
	governed = 1_000_000 + os.Getpid()*4
	person   = governed + 1
)

// scopeScene is a node with an ordinary user, over whom root's installation may
// declare scopes by a policy of its own.
type scopeScene struct {
	*scene
	policy, over string
	uncontained  bool // runc starts no containers here
}

func newScopeScene(t *testing.T) *scopeScene {
	t.Helper()
	s := &scopeScene{scene: newScene(t, governed), over: "uid:" + strconv.Itoa(governed)}
	s.policy = filepath.Join(s.dir, "policy")
	s.must(os.Mkdir(s.policy, 0o700))
	if out, err := s.root("init").CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	out, err := s.root("trust", "export", "--node").Output()
	s.must(err)
	file := filepath.Join(s.dir, "root.json")
	s.must(os.WriteFile(file, out, 0o600))
	if out, err := s.node("install", "-scopes", "-state", s.dir+"/state", "-trust", s.dir+"/trust", "-trust-file", file, "-unit", "").CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	s.lives("/usr/bin/echo", "/usr/bin/unshare")
	return s
}

// root makes a command of root's installation.
func (s *scopeScene) root(args ...string) *exec.Cmd {
	cmd := s.exeq(args...)
	cmd.Env = append(cmd.Env, "HOME="+s.dir, "EXEQ_STATE="+s.dir+"/root")
	cmd.Dir, cmd.SysProcAttr = "/", nil
	return cmd
}

// lives writes the policy: what the machine's life is, beside exeq itself.
func (s *scopeScene) lives(programs ...string) {
	s.t.Helper()
	var places []string
	for _, p := range programs {
		places = append(places, fmt.Sprintf("Exeq::Path::%q", p))
	}
	text := fmt.Sprintf(`@id("who-declares")
permit (principal == Exeq::Agent::"machine", action == Exeq::Action::"run", resource == Exeq::Program::%q);

@id("machine-life")
permit (principal == Exeq::Agent::"machine", action in [Exeq::Action::"exec", Exeq::Action::"read"], resource)
when { resource in [%s] };
`, filepath.Join(s.bin, "exeq"), strings.Join(places, ", "))
	s.must(os.WriteFile(filepath.Join(s.policy, "scope.cedar"), []byte(text), 0o600))
}

func (s *scopeScene) scope(args ...string) string {
	s.t.Helper()
	out, err := s.root(append([]string{"scope"}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("exeq scope %v: %v\n%s\n%s", args, err, out, s.log)
	}
	return string(out)
}

func (s *scopeScene) enforce(more ...string) string {
	s.t.Helper()
	return s.scope(append([]string{"declare", "--mode", "enforce", "--policy", s.policy, s.over}, more...)...)
}

// starters are others who start programs as a user: each gives a command that
// does it with one.
func (s *scopeScene) starters(uid int) map[string]func(program string, args ...string) *exec.Cmd {
	id := strconv.Itoa(uid)
	with := func(argv ...string) func(string, ...string) *exec.Cmd {
		return func(program string, args ...string) *exec.Cmd {
			c := exec.Command(argv[0], append(append(argv[1:len(argv):len(argv)], program), args...)...)
			c.Dir = "/"
			return c
		}
	}
	out := map[string]func(string, ...string) *exec.Cmd{
		"a service": func(program string, args ...string) *exec.Cmd {
			c := exec.Command(program, args...)
			c.Dir, c.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
			return c
		},
		"setpriv": with("setpriv", "--reuid", id, "--regid", id, "--clear-groups"),
		"chroot":  with("chroot", "--userspec="+id+":"+id, "/"),
		// As cron does: a daemon's grandchild in a session of its own, which
		// becomes the user last.
		"a cron": with("sh", "-c", `setsid sh -c 'setpriv --reuid `+id+` --regid `+id+` --clear-groups "$@"' job "$@" & wait $!`, "cron"),
		// A user namespace calls the user root.
		"a user namespace": with("setpriv", "--reuid", id, "--regid", id, "--clear-groups", "unshare", "-U", "-r"),
	}
	if _, err := exec.LookPath("runc"); err == nil && !s.uncontained {
		out["a container"] = func(program string, args ...string) *exec.Cmd { return s.container(uid, program, args...) }
	}
	return out
}

// container is a program in a container of runc's.
func (s *scopeScene) container(uid int, program string, args ...string) *exec.Cmd {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "container-")
	s.must(err)
	s.must(os.Mkdir(filepath.Join(dir, "root"), 0o755))
	mounts := []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}}
	for _, d := range []string{"/usr", "/bin", "/lib", "/lib64", s.bin} {
		if _, err := os.Stat(d); err == nil {
			mounts = append(mounts, map[string]any{"destination": d, "type": "bind", "source": d, "options": []string{"bind", "ro"}})
		}
	}
	var namespaces []any
	for _, n := range []string{"pid", "mount", "ipc", "uts"} {
		namespaces = append(namespaces, map[string]any{"type": n})
	}
	b, err := json.Marshal(map[string]any{"ociVersion": "1.0.2",
		"process": map[string]any{"user": map[string]any{"uid": uid, "gid": uid}, "args": append([]string{program}, args...), "cwd": "/", "env": []string{"PATH=/usr/bin:/bin"}, "noNewPrivileges": true},
		"root":    map[string]any{"path": "root", "readonly": true}, "mounts": mounts, "linux": map[string]any{"namespaces": namespaces}})
	s.must(err)
	s.must(os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600))
	return exec.Command("runc", "--root", filepath.Join(dir, "state"), "run", "-b", dir, filepath.Base(dir))
}

// says runs a command and gives what it wrote to standard output.
func says(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var e *exec.ExitError
	if errors.As(err, &e) {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	return string(out), err
}

// TestScope: whoever starts it as the governed user, it does not run without a
// permit; under one it does; what the machine lives by does; and all of that is
// on record.
func TestScope(t *testing.T) {
	s := newScopeScene(t)
	printf := "/usr/bin/printf" // no part of the machine's life
	for name, start := range s.starters(governed) {
		if out, err := says(start(printf, "alive")); out != "alive" {
			if name == "a container" {
				t.Logf("not tried: runc starts no containers here: %v", err)
				s.uncontained = true
				continue
			}
			t.Fatalf("%s, without a scope: %q, %v", name, out, err)
		}
	}
	var e *exec.ExitError
	out, err := s.exeq("scope", "declare", s.over).CombinedOutput()
	if !errors.As(err, &e) || e.ExitCode() != 126 {
		t.Errorf("by the user's own policy: %v\n%s", err, out)
	}
	s.enforce()
	for name, start := range s.starters(governed) {
		if out, err := says(start(printf, "alive")); strings.Contains(out, "alive") || err == nil {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if out, err := says(start("/usr/bin/echo", "alive")); out != "alive\n" {
			t.Errorf("%s, what the machine lives by: %q, %v", name, out, err)
		}
	}
	for name, start := range s.starters(person) {
		if out, err := says(start(printf, "alive")); out != "alive" {
			t.Errorf("%s, another user: %q, %v", name, out, err)
		}
	}
	if out, err := says(s.exeq("run", "--", "sh", "-c", "printf '%s' governed; ls / > /dev/null")); out != "governed" {
		t.Errorf("under a permit: %q, %v\n%s", out, err, s.log)
	}
	// Who supervises itself holds no permit of the node's.
	if out, err := says(s.exeq("run", "--tier", "rootless", "--", "printf", "alive")); out != "" || err == nil {
		t.Errorf("in a tier that the kernel does not hold: %q, %v", out, err)
	}
	s.kill()
	if out, err := says(s.starters(governed)["a cron"](printf, "alive")); out != "" || err == nil {
		t.Errorf("without the daemon: %q, %v", out, err)
	}
	s.start()
	if list := s.scope("list"); !strings.Contains(list, s.over) || !strings.Contains(list, "enforce") {
		t.Errorf("listed: %s", list)
	}
	// By the governed user's own issuer nothing is lifted, whatever his policy says.
	s.must(os.Mkdir(s.dir+"/home/policy", 0o755))
	b, err := os.ReadFile(filepath.Join(s.policy, "scope.cedar"))
	s.must(err)
	s.must(os.WriteFile(s.dir+"/home/policy/scope.cedar", b, 0o644))
	if out, err := s.exeq("scope", "lift", "--policy", s.dir+"/home/policy", s.over).CombinedOutput(); err == nil || !strings.Contains(string(out), "may not declare") {
		t.Errorf("lifted by the user's own issuer: %v\n%s", err, out)
	}
	s.scope("lift", "--policy", s.policy, s.over)
	for name, start := range s.starters(governed) {
		if out, err := says(start(printf, "alive")); out != "alive" {
			t.Errorf("%s, lifted: %q, %v", name, out, err)
		}
	}
	record, err := says(s.root("log"))
	s.must(err)
	for _, event := range []string{"enforce", "lift"} {
		if n := count(record, "scope", event, "who-declares"); n != 1 {
			t.Errorf("%d leaves of %q:\n%s", n, event, record)
		}
	}
	if out, err := s.root("monitor").CombinedOutput(); err != nil {
		t.Errorf("the monitor: %v\n%s", err, out)
	}
}

// count counts the lines that hold all of the words.
func count(text string, words ...string) (n int) {
lines:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

// report waits until the scope's report has an attempt on the program.
func (s *scopeScene) report(program, verdict string, atLeast int) *exeq.ScopeReport {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var r exeq.ScopeReport
		out, err := says(s.root("scope", "report", "--json", s.over))
		s.must(err)
		s.must(json.Unmarshal([]byte(out), &r))
		for _, a := range r.Attempts {
			if (a.Path == program || a.Path == "" && a.Name == program) && a.Verdict == verdict && a.Count >= atLeast {
				return &r
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("not reported: %s\n%s", fmt.Sprint(r), s.log)
		}
	}
}

// TestScopeRehearsed: it reports what would die, and nothing does; the report
// outlives the daemon.
func TestScopeRehearsed(t *testing.T) {
	s := newScopeScene(t)
	s.scope("declare", "--policy", s.policy, s.over)
	start := s.starters(governed)["a cron"]
	for range 3 {
		if out, err := says(start("/usr/bin/printf", "alive")); out != "alive" {
			t.Fatalf("rehearsed: %q, %v", out, err)
		}
	}
	if out, err := says(start("/usr/bin/echo", "alive")); out != "alive\n" {
		t.Errorf("%q, %v", out, err)
	}
	check := func(r *exeq.ScopeReport, want int) {
		t.Helper()
		for _, a := range r.Attempts {
			switch a.Path {
			case "/usr/bin/printf":
				if a.Count != want || a.UID != governed || a.SHA256.IsZero() || a.Last.Before(a.First.Time) {
					t.Errorf("reported: %+v", a)
				}
			case "/usr/bin/echo":
				t.Errorf("the machine's life: %+v", a)
			}
		}
		if r.Missed != 0 || r.More != 0 || r.Mode != exeq.ScopeRehearse {
			t.Errorf("%+v", r)
		}
	}
	r := s.report("/usr/bin/printf", "would be denied", 3)
	check(r, 3)
	if r.RehearsedMillis <= 0 {
		t.Errorf("rehearsed for %d ms", r.RehearsedMillis)
	}
	// What happens while no daemon runs is read by the next, and counts.
	s.signal(syscall.SIGTERM)
	for syscall.Kill(s.daemon.Process.Pid, 0) == nil {
		time.Sleep(time.Millisecond)
	}
	if out, err := says(start("/usr/bin/printf", "alive")); out != "alive" {
		t.Errorf("rehearsed: %q, %v", out, err)
	}
	s.start()
	again := s.report("/usr/bin/printf", "would be denied", 4)
	check(again, 4)
	if again.RehearsedMillis <= r.RehearsedMillis {
		t.Errorf("rehearsed for %d ms, then %d", r.RehearsedMillis, again.RehearsedMillis)
	}
	if record, err := says(s.root("log")); err != nil || count(record, "scope", "report") == 0 {
		t.Errorf("no report on record: %v\n%s", err, record)
	}
}

// TestScopeBreakGlass: a person whom the statement names opens it, recorded
// first; it closes by itself, with nobody there to close it.
func TestScopeBreakGlass(t *testing.T) {
	s := newScopeScene(t)
	s.enforce("--break-glass", strconv.Itoa(person), "--break-glass-max", "1m")
	runs := func() bool {
		t.Helper()
		out, err := says(s.starters(governed)["a service"]("/usr/bin/printf", "alive"))
		if out != "alive" && err == nil {
			t.Error("nothing came, and no error")
		}
		return out == "alive"
	}
	open := func(uid int, args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(s.bin, "exeq-node"), append([]string{"scope", "-json", "-socket", s.socket}, args...)...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		var both bytes.Buffer
		cmd.Stdout, cmd.Stderr = &both, &both
		err := cmd.Run()
		return both.String(), err
	}
	if runs() {
		t.Fatal("the scope does not hold")
	}
	for name, c := range map[string]struct {
		uid  int
		want string
		args []string
	}{
		"the governed user":      {governed, "may not open", []string{"-reason", "x", "open", s.over}},
		"root, who is not named": {0, "may not open", []string{"-reason", "x", "open", s.over}},
		"somebody else":          {person + 1, "not served", []string{"-reason", "x", "open", s.over}},
		"no reason":              {person, "without a reason", []string{"open", s.over}},
		"for too long":           {person, "for at most", []string{"-reason", "x", "-for", "2m", "open", s.over}},
		"another scope":          {person, "no such scope", []string{"-reason", "x", "open", "host"}},
	} {
		out, err := open(c.uid, c.args...)
		if err == nil || !strings.Contains(out+err.Error(), c.want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if runs() {
			t.Fatalf("%s: and it is open", name)
		}
	}
	out, err := open(person, "-reason", "the disk is full", "-for", "1m", "open", s.over)
	var o exeq.Opening
	if err != nil || json.Unmarshal([]byte(out), &o) != nil || o.UID != person || o.Millis != 60000 || o.Reason != "the disk is full" {
		t.Fatalf("%v\n%s", err, out)
	}
	if !runs() {
		t.Error("opened, and it is shut")
	}
	if out, err := open(person, "close", s.over); err != nil || runs() {
		t.Errorf("closed: %v\n%s", err, out)
	}
	// By itself, while the daemon is dead; and the next one opens nothing again.
	began := time.Now()
	if out, err := open(person, "-reason", "again", "-for", "4s", "open", s.over); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	opened := time.Now() // or a little before
	s.kill()
	if open := runs(); !open && time.Since(began) < 3*time.Second {
		t.Error("opened, the daemon killed, and it is shut")
	}
	for time.Since(opened) < 4*time.Second+100*time.Millisecond {
		time.Sleep(50 * time.Millisecond)
	}
	if runs() {
		t.Error("its time is over, and it is open")
	}
	s.start()
	if runs() {
		t.Error("its time is over, the daemon is back, and it is open")
	}
	s.report("/usr/bin/printf", "opened", 1)
	// On record with the issuer's next word to the node, once.
	s.scope("list")
	record, err := says(s.root("log"))
	if err != nil || count(record, "scope", "opened") != 3 {
		t.Errorf("on record: %v\n%s", err, record)
	}
}

// becomes is a process of root's that takes on one user, forks, and as the child
// takes on another and executes a program: nobody but what it descends from tells
// that it was ever the first.
const becomes = `
import os, sys
first, then = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(then, then, then)
if first:
    os.setresuid(first, first, 0)
pid = os.fork()
if pid == 0:
    if first:
        os.setresuid(0, 0, 0)
    os.setresuid(then, then, then)
    os.execv(sys.argv[3], sys.argv[3:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

// TestScopeBreakGlassFromWithin: whoever is held does not open what holds him, also
// as a user whom the statement names.
func TestScopeBreakGlassFromWithin(t *testing.T) {
	s := newScopeScene(t)
	s.enforce("--break-glass", strconv.Itoa(person), "--break-glass-max", "1m")
	open := func(first int) (string, error) {
		cmd := exec.Command("python3", "-c", becomes, strconv.Itoa(first), strconv.Itoa(person),
			filepath.Join(s.bin, "exeq-node"), "scope", "-json", "-socket", s.socket, "-reason", "from within", "-for", "30s", "open", s.over)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := open(governed); err == nil || !strings.Contains(out, "what you descend from") {
		t.Errorf("who descends from the governed user: %v\n%s", err, out)
	}
	if out, err := says(s.starters(governed)["a service"]("/usr/bin/printf", "alive")); out == "alive" {
		t.Errorf("and it is open: %v", err)
	}
	if out, err := open(0); err != nil {
		t.Errorf("the same process without the governed user before it: %v\n%s", err, out)
	}
	if out, err := says(s.starters(governed)["a service"]("/usr/bin/printf", "alive")); out != "alive" {
		t.Errorf("opened, and it is shut: %v", err)
	}
}
