//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIdentify: what is approved is one state of one file, and a file that can
// change without a sign is not approved at all.
func TestIdentify(t *testing.T) {
	g := newGate(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o755); err != nil {
		t.Fatal(err)
	}
	first := identify(t, g, path)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if first.Ino != st.Ino || first.Size != 4096 || first.CtimeSec != st.Ctim.Sec || int64(first.CtimeNsec) != st.Ctim.Nsec {
		t.Errorf("the kernel says %+v, stat %+v", first, st)
	}
	at := time.Unix(first.CtimeSec, int64(first.CtimeNsec))
	if first.Settled(at.Add(10*time.Millisecond)) || !first.Settled(at.Add(30*time.Millisecond)) || first.Settled(at.Add(-time.Hour)) {
		t.Error("settled at the wrong times")
	}
	// Two changes within one second (inodes of 128 bytes, FAT) look like one.
	coarse := File{CtimeSec: first.CtimeSec}
	if at := time.Unix(coarse.CtimeSec, 0); coarse.Settled(at.Add(2*time.Second)) || !coarse.Settled(at.Add(3*time.Second)) {
		t.Error("settled at the wrong times where the file system keeps whole seconds")
	}
	if again := identify(t, g, path); again != first {
		t.Errorf("unchanged: %+v, then %+v", first, again)
	}

	// What is written within the tick of the first times shows in none: that is
	// what Settled is for.
	for !first.Settled(time.Now()) {
		time.Sleep(time.Millisecond)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := g.Identify(r); !errors.Is(err, ErrWriters) {
		t.Errorf("open for writing: %v", err)
	}
	m, err := unix.Mmap(int(w.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	m[1] = 1 // dirty: later writes change no time
	if _, err := g.Identify(r); !errors.Is(err, ErrWriters) {
		t.Errorf("mapped for writing: %v", err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	if again, err := g.Identify(r); err != nil || again == first {
		t.Errorf("written through a mapping: %+v, %v", again, err)
	}

	for _, what := range []string{"/dev/null", t.TempDir()} {
		f, err := os.Open(what)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Identify(f); err == nil {
			t.Errorf("%s was taken for a program", what)
		}
		f.Close()
	}
	f, _ := os.Open(path)
	f.Close()
	if _, err := g.Identify(f); err == nil {
		t.Error("a closed descriptor was taken")
	}
}

// TestLimits shows what this package does not hold by itself, so that
// docs/kernel-tiers.md says no more and no less: when one of these fails, the
// page must change.
func TestLimits(t *testing.T) {
	g := newGate(t)
	dir, _ := governed(t, g, real(t, "sh"))
	tmp := t.TempDir()
	// A script is the business of its interpreter.
	script := filepath.Join(tmp, "script")
	if err := os.WriteFile(script, []byte("#!"+real(t, "sh")+"\necho text\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, dir, tmp, "./script"); got != "text\n" {
		t.Errorf("an unknown script of a known interpreter: %q", got)
	}
}

// sleeper starts a shell in the cgroup that waits for a line and then says so.
func sleeper(t *testing.T, cgroup string) (cmd *exec.Cmd, answers func() bool) {
	t.Helper()
	cmd = in(t, cgroup, real(t, "sh"), "-c", "echo here; read x; echo here")
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
	return cmd, func() bool {
		fmt.Fprintln(stdin)
		s, _ := r.ReadString('\n')
		return s == "here\n"
	}
}

// TestLeaving: what governs a task goes with it. Whoever moves out of the
// cgroup, or is moved, dies; inside it, and in hierarchies of version 1,
// moving is free.
func TestLeaving(t *testing.T) {
	g := newGate(t)
	sh := real(t, "sh")
	root := cgroupRoot(t)
	tmp := t.TempDir()
	prog := marker(t, filepath.Join(tmp, "prog"))
	dir, c := governed(t, g, sh)
	outside := newCgroup(t, root)
	procs := func(dir string) string { return filepath.Join(dir, "cgroup.procs") }
	move := func(pid int, to string) {
		t.Helper()
		if err := os.WriteFile(procs(to), fmt.Append(nil, pid), 0); err != nil {
			t.Fatal(err)
		}
	}

	err := in(t, dir, sh, "-c", "echo $$ >"+procs(root)+"; echo alive >"+tmp+"/alive").Run()
	if !killed(err) {
		t.Errorf("left by itself: %v", err)
	}
	// The subshell was forked and never executed anything.
	got := shell(t, dir, tmp, `( read p rest </proc/self/stat; echo $p >`+procs(outside)+`; echo alive >alive; ./prog >>out ) 2>/dev/null; echo $?`)
	if !strings.HasSuffix(got, "137\n") {
		t.Errorf("a forked shell left: %q", got)
	}
	for _, name := range []string{"alive", "out"} {
		if s, err := os.Stat(filepath.Join(tmp, name)); err == nil && (s.Size() > 0 || name == "alive") {
			t.Errorf("%s was written by what had left", name)
		}
	}
	// Moved by another, from inside and from outside: dead, or, before Linux
	// 6.13, told to be alive and held wherever it is.
	kills := killsOthers() == nil
	read := g.Events
	if !kills {
		read = g.Orders
	}
	events, err := read()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for name, out := range map[string]func(pid int){
		"from inside": func(pid int) { shell(t, dir, tmp, fmt.Sprintf("echo %d >%s", pid, procs(outside))) },
		"by the host": func(pid int) { move(pid, outside) },
	} {
		victim, answers := sleeper(t, dir)
		for err = nil; err == nil; { // what came before
			_, err = events.Next(time.Now().Add(-time.Second))
		}
		out(victim.Process.Pid)
		e, err := events.Next(time.Now().Add(10 * time.Second))
		if err != nil || e.Verb != "move" || e.Why != "left" || e.Cgroup != c || e.PID != victim.Process.Pid || e.Alive == kills {
			t.Errorf("moved out %s: %+v, %v", name, e, err)
		}
		if alive := answers(); alive == kills || kills && !killed(victim.Wait()) {
			t.Errorf("moved out %s: alive: %v", name, alive)
		}
	}
	// Made outside from inside.
	spawn := in(t, dir, self(t))
	spawn.Env = append(os.Environ(), "EXEQ_BPF_SPAWN="+outside+"\n"+prog)
	if err := g.Allow(c, identify(t, g, self(t))); err != nil {
		t.Fatal(err)
	}
	if out, err := spawn.CombinedOutput(); err != nil || !strings.Contains(string(out), "signal: killed") {
		t.Errorf("made outside: %v, %s", err, out)
	}
	spawn = in(t, "", self(t))
	spawn.Env = append(os.Environ(), "EXEQ_BPF_SPAWN="+outside+"\n"+prog)
	if out, err := spawn.CombinedOutput(); err != nil || !strings.Contains(string(out), "exit status 99") {
		t.Errorf("made outside by an ungoverned one: %v, %s", err, out)
	}

	// What is free.
	victim, answers := sleeper(t, dir)
	move(victim.Process.Pid, newCgroup(t, dir))
	if v1 := filepath.Join(filepath.Dir(root), "cpu"); filepath.Base(root) == "unified" {
		if sub, err := os.MkdirTemp(v1, "exeq-test-"); err == nil {
			move(victim.Process.Pid, sub)
			move(victim.Process.Pid, v1)
			os.Remove(sub)
		}
	}
	if !answers() {
		t.Error("moved inside, and dead")
	}
	victim.Wait()
	_, answers = sleeper(t, outside)
	if !answers() {
		t.Error("an ungoverned one is dead")
	}
	victim, answers = sleeper(t, dir)
	if err := g.Lift(c); err != nil {
		t.Fatal(err)
	}
	move(victim.Process.Pid, outside)
	if !answers() {
		t.Error("lifted and moved, and dead")
	}
}

// TestMovedIsHeld: a process that another moved out executes and reaches nothing
// more than before, nor do its threads and children, until it is dead.
func TestMovedIsHeld(t *testing.T) {
	g := newGate(t)
	outside, p, py := newCgroup(t, cgroupRoot(t)), newPeers(t), python(t)
	prog := marker(t, filepath.Join(t.TempDir(), "prog"))
	const calls = `
import os, socket, sys, threading
print("here", flush=True); sys.stdin.readline()
def reach():
    try: socket.socket().connect(("127.0.0.1", int(sys.argv[1]))); print("reached", flush=True)
    except PermissionError: pass
for i in range(100):
    reach()
t = threading.Thread(target=reach); t.start(); t.join()
if os.fork() == 0:
    reach()
    os.execv(sys.argv[2], [sys.argv[2]])
os.wait()
`
	run := func(cgroup string) string {
		t.Helper()
		cmd := in(t, cgroup, py, "-I", "-S", "-c", calls, fmt.Sprint(p.tcp.Port()), prog)
		stdin, _ := cmd.StdinPipe()
		stdout, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(stdout)
		if s, err := r.ReadString('\n'); s != "here\n" {
			t.Fatal(s, err)
		}
		if err := os.WriteFile(filepath.Join(outside, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(stdin)
		out, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		return string(out)
	}
	if got := run(""); !strings.HasPrefix(got, strings.Repeat("reached\n", 102)) || len(got) != 102*8+1 {
		t.Fatalf("ungoverned, it wrote %q", got)
	}
	dir, _ := governed(t, g, py)
	if got := run(dir); got != "" {
		t.Errorf("moved out, it wrote %q", got)
	}
	// Of processes that have ended, no mark is left.
	if err := waitEmpty(dir, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := waitEmpty(outside, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	var process uint64
	var m gateMark
	for it := g.maps[gateMapMarks].Iterate(); it.Next(&process, &m); {
		t.Errorf("a mark is left: %v", m)
	}
}

// TestNestedAtMost: what cannot be marked does not run.
func TestNestedAtMost(t *testing.T) {
	g := newGate(t)
	sh := real(t, "sh")
	dir := cgroupRoot(t)
	for n := 1; n <= 5; n++ {
		dir = newCgroup(t, dir)
		c, err := g.Govern(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Allow(c, identify(t, g, sh)); err != nil {
			t.Fatal(err)
		}
		err = in(t, dir, sh, "-c", ":").Run()
		if n <= 4 && err != nil || n > 4 && !killed(err) {
			t.Errorf("%d within one another: %v", n, err)
		}
	}
}
