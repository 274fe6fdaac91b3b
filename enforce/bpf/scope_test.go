//go:build linux

package bpf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Users of nobody's, and of no other test that runs at the same time: scopes
// over one touch nothing else on the machine.
var (
	madeUp = 1_000_000 + os.Getpid()*4
	other  = madeUp + 1
)

func newScopes(t *testing.T, g *Gate) *Scopes {
	t.Helper()
	s, err := OpenScopes(ScopesDir(g.dir), g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func setScope(t *testing.T, s *Scopes, of Scope, r Rule) {
	t.Helper()
	if err := s.Set(of, r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Lift(of) })
}

// as makes a command of a user's.
func as(t *testing.T, uid int, cgroup, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := in(t, cgroup, name, args...)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	cmd.Dir = "/"
	return cmd
}

// attempt waits for the next one.
func nextAttempt(t *testing.T, a *Attempts) Attempt {
	t.Helper()
	x, err := a.Next(time.Now().Add(20 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// openDir makes a directory that the made-up users can reach.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "exeq-scope-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestScopeUID: whatever the user executes without a permit dies before its
// first instruction, but for what the scope lives by.
func TestScopeUID(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	dir := openDir(t)
	prog := marker(t, filepath.Join(dir, "prog"))
	alive := marker(t, filepath.Join(dir, "alive"))
	run := func(uid int, name string) ([]byte, error) { return as(t, uid, "", name).Output() }

	if out, err := run(madeUp, prog); len(out) == 0 {
		t.Fatalf("without a scope: %q, %v", out, err)
	}
	of := Scope{ScopeUID, uint64(madeUp)}
	if err := s.SetLife(of, []File{identify(t, g, alive)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.SelfTest(of, "", true); err == nil {
		t.Error("a scope that is not in force passed its self-test")
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	if err := s.SelfTest(of, "", true); err != nil {
		t.Error(err)
	}
	a, err := s.Attempts()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	nextAttempt(t, a)
	if out, err := run(madeUp, prog); len(out) != 0 || !killed(err) {
		t.Errorf("in the scope: %q, %v", out, err)
	}
	x := nextAttempt(t, a)
	if x.Scope != of || x.Verdict != ScopeDenied || x.Why != "absent" || x.Alive || x.UID != madeUp || x.Name != prog || x.File != identify(t, g, prog) || x.Parent != os.Getpid() {
		t.Errorf("told: %+v", x)
	}
	if out, err := run(other, prog); len(out) == 0 {
		t.Errorf("another user: %q, %v", out, err)
	}
	if out, err := run(madeUp, alive); len(out) == 0 {
		t.Errorf("what the scope lives by: %q, %v", out, err)
	}
	// Another state of the file is another file.
	for at := identify(t, g, alive); !at.Settled(time.Now()); {
		time.Sleep(time.Millisecond)
	}
	if err := os.Chmod(alive, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := run(madeUp, alive); len(out) != 0 || !killed(err) {
		t.Errorf("changed: %q, %v", out, err)
	}
	if x := nextAttempt(t, a); x.Why != "changed" {
		t.Errorf("told: %+v", x)
	}
	if err := s.Lift(of); err != nil {
		t.Fatal(err)
	}
	if out, err := run(madeUp, prog); len(out) == 0 {
		t.Errorf("lifted: %q, %v", out, err)
	}
}

// TestScopeWays: other ways to have a file executed, and what is no file of the
// scope's business: when one of the latter fails, docs/scopes.md must change.
func TestScopeWays(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	dir := openDir(t)
	py, sh, loader := python(t), real(t, "sh"), loaderPath(t)
	prog := marker(t, filepath.Join(dir, "prog"))
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!"+sh+"\necho text\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	byMemory := "import os, sys\nf = os.memfd_create('x', 0)\nos.write(f, open(sys.argv[1], 'rb').read())\nos.execve('/proc/self/fd/%d' % f, ['x'], {})"
	byDescriptor := "import os, sys\nos.execve(os.open(sys.argv[1], os.O_RDONLY), ['x'], {})"
	byThread := "import os, sys, threading\nt = threading.Thread(target=lambda: os.execv(sys.argv[1], ['x']))\nt.start()\nt.join()"
	ways := map[string][]string{
		"by its path":         {prog},
		"by a link of /proc":  {"/proc/self/root" + prog},
		"by an interpreter":   {sh, "-c", "exec " + prog},
		"in memory":           {py, "-I", "-S", "-c", byMemory, prog},
		"by a descriptor":     {py, "-I", "-S", "-c", byDescriptor, prog},
		"by another thread":   {py, "-I", "-S", "-c", byThread, prog},
		"as another session":  {sh, "-c", "trap '' HUP; (" + prog + ") & wait"},
		"a copy":              {sh, "-c", "exec " + copyProgram(t, prog, filepath.Join(dir, "copy"))},
		"interpreters' files": {script},
		"loaders' files":      {loader, real(t, "true")},
	}
	left := map[string]bool{"interpreters' files": true, "loaders' files": true}
	run := func(argv []string) ([]byte, error) { return as(t, madeUp, "", argv[0], argv[1:]...).Output() }
	for name, argv := range ways {
		if out, err := run(argv); len(out) == 0 && err != nil {
			t.Fatalf("%s, without a scope: %v", name, err)
		}
	}
	of := Scope{ScopeUID, uint64(madeUp)}
	if err := s.SetLife(of, []File{identify(t, g, py), identify(t, g, sh), identify(t, g, loader)}, nil); err != nil {
		t.Fatal(err)
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	for name, argv := range ways {
		out, err := run(argv)
		if left[name] && err != nil {
			t.Errorf("%s is a limit no more: %q, %v", name, out, err)
		}
		if !left[name] && len(out) > 0 {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestScopeDescent: who came from a scope stays in it, also as another user and
// in another cgroup; that somebody else does the same by himself is his matter.
func TestScopeDescent(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	py := python(t)
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	becomes := fmt.Sprintf("import os\nos.setresuid(0, 0, 0)\nos.execv(%q, [\"prog\"])", prog)
	from := func(uid int, then string) *exec.Cmd {
		// Its saved user is root, so that it can go back.
		return in(t, "", py, "-I", "-S", "-c", fmt.Sprintf("import os, sys\nos.setresuid(%d, 0, 0)\nos.execv(%q, [%[2]q, '-I', '-S', '-c', sys.argv[1]])", uid, py), then)
	}
	forks := strings.Replace(becomes, "os.execv", "if os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]) + 100)\nos.setsid()\nif os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]) + 100)\nos.execv", 1)
	for _, then := range []string{becomes, forks} {
		if out, err := from(madeUp, then).Output(); len(out) == 0 {
			t.Fatalf("without a scope: %q, %v", out, err)
		}
	}
	of := Scope{ScopeUID, uint64(madeUp)}
	if err := s.SetLife(of, []File{identify(t, g, py)}, nil); err != nil {
		t.Fatal(err)
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	if out, err := from(madeUp, becomes).Output(); len(out) != 0 || !killed(err) {
		t.Errorf("from the scope, as root: %q, %v", out, err)
	}
	if out, err := from(madeUp, forks).Output(); len(out) != 0 {
		t.Errorf("from the scope, by two forks, as root: %q, %v", out, err)
	}
	// Any of its users counts, not the real one alone.
	effective := in(t, "", py, "-I", "-S", "-c", fmt.Sprintf("import os\nos.setresuid(0, %d, 0)\nos.execv(%q, ['prog'])", madeUp, prog))
	if out, err := effective.Output(); len(out) != 0 || !killed(err) {
		t.Errorf("by its effective user: %q, %v", out, err)
	}
	if out, err := from(other, becomes).Output(); len(out) == 0 {
		t.Errorf("not from the scope: %q, %v", out, err)
	}
}

// TestScopeCgroup: what is in the cgroup or below it, was in it when it was
// declared, was put into it, or was made by one that was.
func TestScopeCgroup(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	dir := newCgroup(t, cgroupRoot(t))
	below := newCgroup(t, dir)
	outside := newCgroup(t, cgroupRoot(t))
	sh := real(t, "sh")
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	c, err := CgroupOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	// One that waits to execute, where it will then be.
	waits := func(at string) (pid int, goes func() string) {
		cmd := in(t, at, sh, "-c", "echo here; read x; exec "+prog)
		stdin, _ := cmd.StdinPipe()
		stdout, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		r := bufio.NewReader(stdout)
		if s, err := r.ReadString('\n'); s != "here\n" {
			t.Fatal(s, err)
		}
		return cmd.Process.Pid, func() string {
			fmt.Fprintln(stdin)
			out, _ := io.ReadAll(r)
			return string(out)
		}
	}
	move := func(pid int, to string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, goes := waits(dir); goes() == "" {
		t.Fatal("without a scope it does not run")
	}
	before, leaves := waits(dir)
	inside, stays := waits(below)
	enters, entered := waits(outside)
	beside, free := waits(outside)
	of := Scope{ScopeCgroup, uint64(c)}
	if err := s.SetLife(of, []File{identify(t, g, sh)}, nil); err != nil {
		t.Fatal(err)
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	move(before, outside)
	move(enters, below)
	move(enters, outside)
	for pid, want := range map[int][]Scope{before: {of}, inside: {of}, enters: {of}, beside: nil, os.Getpid(): nil, -1: nil} {
		if at, err := s.Where(pid); err != nil || !slices.Equal(at, want) {
			t.Errorf("process %d (%d, %d, %d, beside %d) is in %v, want %v: %v", pid, before, inside, enters, beside, at, want, err)
		}
	}
	for what, goes := range map[string]func() string{"there before, then taken out": leaves, "there before, and below": stays, "put in, then taken out": entered} {
		if out := goes(); out != "" {
			t.Errorf("%s: %q", what, out)
		}
	}
	if free() == "" {
		t.Error("one beside it does not run")
	}
	for _, at := range []string{dir, below} {
		if out, err := in(t, at, prog).Output(); len(out) != 0 || !killed(err) {
			t.Errorf("in the cgroup: %q, %v", out, err)
		}
	}
}

// TestScopeTree: below a directory of the scope's life counts what is root's
// alone to change, now; moved, linked or made elsewhere it does not.
func TestScopeTree(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	dir := openDir(t)
	tree := filepath.Join(dir, "tree")
	deep := filepath.Join(tree, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{tree, filepath.Dir(deep), deep} { // whatever the umask is
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	prog, beside := marker(t, filepath.Join(deep, "prog")), marker(t, filepath.Join(dir, "prog"))
	d, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	root, err := g.IdentifyTree(d)
	if err != nil {
		t.Fatal(err)
	}
	of := Scope{ScopeUID, uint64(madeUp)}
	if err := s.SetLife(of, nil, []Tree{root}); err != nil {
		t.Fatal(err)
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true})
	runs := func(name string) bool {
		out, err := as(t, madeUp, "", name).Output()
		if len(out) == 0 && !killed(err) {
			t.Errorf("%s: %v", name, err)
		}
		return len(out) > 0
	}
	if !runs(prog) {
		t.Error("below the tree")
	}
	if runs(beside) {
		t.Error("beside the tree")
	}
	marker(t, filepath.Join(deep, "new"))
	if !runs(filepath.Join(deep, "new")) {
		t.Error("a new one below the tree")
	}
	// Each fault alone, and put right again.
	for what, fault := range map[string][2]func() error{
		"another owner":             {func() error { return os.Chown(prog, other, 0) }, func() error { return os.Chown(prog, 0, 0) }},
		"others write the file":     {func() error { return os.Chmod(prog, 0o757) }, func() error { return os.Chmod(prog, 0o755) }},
		"a group writes the file":   {func() error { return os.Chmod(prog, 0o775) }, func() error { return os.Chmod(prog, 0o755) }},
		"others write a directory":  {func() error { return os.Chmod(filepath.Dir(deep), 0o777) }, func() error { return os.Chmod(filepath.Dir(deep), 0o755) }},
		"a directory's other owner": {func() error { return os.Chown(deep, madeUp, 0) }, func() error { return os.Chown(deep, 0, 0) }},
		"others write the tree":     {func() error { return os.Chmod(tree, 0o777) }, func() error { return os.Chmod(tree, 0o755) }},
		"moved out":                 {func() error { return os.Rename(filepath.Dir(deep), filepath.Join(dir, "a")) }, func() error { return os.Rename(filepath.Join(dir, "a"), filepath.Dir(deep)) }},
	} {
		if err := fault[0](); err != nil {
			t.Fatal(err)
		}
		name := prog
		if what == "moved out" {
			name = filepath.Join(dir, "a", "b", "prog")
		}
		if runs(name) {
			t.Errorf("%s, and it runs", what)
		}
		if err := fault[1](); err != nil {
			t.Fatal(err)
		}
		if !runs(prog) {
			t.Errorf("%s, put right, and it does not run", what)
		}
	}
	// What is mounted over a directory is another file system's.
	if err := unix.Mount("none", deep, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(deep, unix.MNT_DETACH)
	if marker(t, prog); runs(prog) {
		t.Error("mounted over, and it runs")
	}
}

// TestScopeRehearsal: it tells and denies nothing.
func TestScopeRehearsal(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	a, err := s.Attempts()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	of := Scope{ScopeUID, uint64(madeUp)}
	setScope(t, s, of, Rule{Serial: 1})
	if out, err := as(t, madeUp, "", prog).Output(); len(out) == 0 {
		t.Errorf("%q, %v", out, err)
	}
	if x := nextAttempt(t, a); x.Verdict != ScopeWould || x.Scope != of || x.File != identify(t, g, prog) {
		t.Errorf("told: %+v", x)
	}
	rules, err := s.Rules()
	if err != nil || len(rules) != 1 || rules[of] != (Rule{Serial: 1}) {
		t.Errorf("in force: %v, %v", rules, err)
	}
}

// TestScopeOpen: break-glass ends by itself, with nobody there to end it, and
// an opening that is over opens nothing.
func TestScopeOpen(t *testing.T) {
	g := newGate(t)
	s := newScopes(t, g)
	prog := marker(t, filepath.Join(openDir(t), "prog"))
	a, err := s.Attempts()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	of := Scope{ScopeUID, uint64(madeUp)}
	now := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ts.Nano())
	}
	setScope(t, s, of, Rule{Serial: 1, Enforce: true, OpenUntil: now() - time.Second})
	if out, err := as(t, madeUp, "", prog).Output(); len(out) != 0 || !killed(err) {
		t.Errorf("open until a second ago: %q, %v", out, err)
	}
	nextAttempt(t, a)
	until := now() + time.Hour
	if err := s.Set(of, Rule{Serial: 1, Enforce: true, OpenUntil: until}); err != nil {
		t.Fatal(err)
	}
	if out, err := as(t, madeUp, "", prog).Output(); len(out) == 0 {
		t.Errorf("open: %q, %v", out, err)
	}
	if x := nextAttempt(t, a); x.Verdict != ScopeOpened {
		t.Errorf("told: %+v", x)
	}
	// It closes at its time: never late, however slow this machine is.
	until = now() + 300*time.Millisecond
	if err := s.Set(of, Rule{Serial: 1, Enforce: true, OpenUntil: until}); err != nil {
		t.Fatal(err)
	}
	for now() < until {
		time.Sleep(10 * time.Millisecond)
	}
	if out, err := as(t, madeUp, "", prog).Output(); len(out) != 0 || !killed(err) {
		t.Errorf("its time is over: %q, %v", out, err)
	}
}
