//go:build linux

package node

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// TestSupervisorDies: with the supervisor gone, or silent, or unable to write,
// nothing lives beyond its lease that nobody governs; what was refused stays
// refused meanwhile; and the record says so, at the latest when the next run
// recovers. In the tiers that need no daemon, and in the node's, which lets go.
func TestSupervisorDies(t *testing.T) {
	s := newSceneWith(t, nobody, (*scene).smallHome)
	tiers := []exeq.Tier{s.tier, exeq.TierRootless, exeq.TierNested}
	if os.Getenv(inMachine) != "" { // the others are what they are outside
		tiers = tiers[:1]
	}
	for _, tier := range tiers {
		for _, how := range []string{"killed", "stopped", "out of memory", "disk full"} {
			many := sizes(1)
			if how == "killed" {
				many = sizes(100)
			}
			for _, n := range many {
				t.Run(fmt.Sprintf("%s, %s, %d", tier, how, n), func(t *testing.T) { s.with(t).supervisorDies(tier, how, n) })
			}
		}
	}
}

// smallHome puts the user's state on a file system that can be filled.
func (s *scene) smallHome() {
	s.t.Helper()
	home := filepath.Join(s.dir, "home")
	s.must(unix.Mount("home", home, "tmpfs", 0, fmt.Sprintf("size=96m,mode=0700,uid=%d,gid=%d", s.uid, s.uid)))
	s.t.Cleanup(func() { unix.Unmount(home, unix.MNT_DETACH) })
}

func (s *scene) supervisorDies(tier exeq.Tier, how string, n int) {
	t := s.t
	mark := "1000." + strconv.FormatInt(time.Now().UnixNano(), 10) // in the arguments of all that runs
	tried := filepath.Join(s.work, "tried-"+mark)
	attempts := s.denied(tried)
	script := fmt.Sprintf("./victim again %s %s & for i in $(seq %d); do sleep %s & done; wait", tried, strings.Join(attempts, " "), n, mark)
	cmd := s.exeq("run", "--tier", tier.String(), "--json", "--", "sh", "-c", script)
	said, err := os.Create(filepath.Join(s.dir, "said"))
	s.must(err)
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	s.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Process.Kill()
	}()
	text := func() string {
		b, _ := os.ReadFile(said.Name())
		return string(b)
	}
	before := ""
	s.until("it runs", 3*time.Minute, func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s\n%s", err, text(), s.log)
		default:
		}
		b, _ := os.ReadFile(tried)
		before = string(b)
		return s.living(mark) >= n+2 && strings.Count(before, "tried ") > 2 // with the shell and the victim
	})

	id := s.last().Execution
	died := boottime()
	gone := true // the supervisor
	within := exeq.DefaultLease
	switch how {
	case "killed":
		s.must(cmd.Process.Kill())
	case "stopped":
		s.must(cmd.Process.Signal(syscall.SIGSTOP))
		gone, within = false, 3*exeq.DefaultLease // the lease has to end first, and that be noticed
	case "out of memory":
		newMemory(t).starve(s, cmd.Process.Pid)
	case "disk full":
		s.fillAt(filepath.Join(s.dir, "home"))
		gone, within = false, time.Minute // it is governed for as long as there is room for what is small
	}
	s.until("nothing of it lives", within, func() bool { return s.living(mark) == 0 })
	t.Logf("dead after %s", (boottime() - died).Round(time.Millisecond))
	s.must(os.RemoveAll(filepath.Join(s.dir, "home", "full")))
	cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatalf("the supervisor does not end\n%s", text())
	}
	if r := text(); !gone && resultOf(t, r).Status == 0 {
		t.Errorf("%s", r)
	}
	after, err := os.ReadFile(tried)
	s.must(err)
	for line := range strings.Lines(string(after)) {
		if !strings.HasPrefix(line, "tried ") {
			t.Errorf("not refused: %s", line)
		}
	}
	t.Logf("while it was dying, from: %sto: %s", lastLine(before), lastLine(string(after)))

	s.left()
	next := time.Now().Truncate(time.Millisecond)
	out, err := s.exeq("run", "--tier", tier.String(), "--", "true").CombinedOutput()
	if err != nil {
		t.Errorf("the next run: %v\n%s", err, out)
	}
	// A drainer that the supervisor had started before may have found it lost,
	// which has nobody to say it to. Else it is the next run that says so.
	e := s.executionOf(id)
	if gone && !e.Ended.Before(next) && !strings.Contains(string(out), "recovered: ") {
		t.Errorf("the next run does not say what it found:\n%s", out)
	}
	want := []string{"lost"} // for nobody saw its end
	switch how {
	case "stopped":
		want = []string{"lapsed"}
	case "disk full": // or, with what room there was, as what became of it
		want = append(want, "lapsed", "record")
	}
	if e.State != "sealed" || !slices.Contains(want, e.Code) {
		t.Errorf("on record it is %+v, not %v", e, want)
	}
	s.until("the node lets go", 3*exeq.DefaultLease, func() bool { return len(s.held()) == 0 })
}

// left waits until nobody has the user's record open.
func (s *scene) left() {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.dir, "home", "state", "store.lock"))
	s.must(err)
	defer f.Close()
	s.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
}

func lastLine(text string) string {
	at := strings.LastIndex(strings.TrimSuffix(text, "\n"), "\n")
	return text[at+1:]
}

// denied are attempts that policy refuses, in the victim's words. Each is first
// shown to succeed ungoverned, and to be told by the victim then.
func (s *scene) denied(tried string) (args []string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.bin, "victim"))
	s.must(err)
	elsewhere := filepath.Join(s.dir, "elsewhere")
	s.must(os.MkdirAll(elsewhere, 0o755))
	for at, mode := range map[string]os.FileMode{filepath.Join(s.work, "victim"): 0o755, filepath.Join(elsewhere, "program"): 0o755,
		filepath.Join(elsewhere, "file"): 0o666, filepath.Join(s.work, ".env"): 0o666} {
		s.must(os.WriteFile(at, b, mode))
		s.must(os.Chmod(at, mode))
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	s.must(err)
	sleep := s.as("/bin/sleep", "1000")
	s.must(sleep.Start())
	s.t.Cleanup(func() { l.Close(); sleep.Process.Kill(); sleep.Wait() })
	args = []string{
		"exec", filepath.Join(elsewhere, "program"),
		"read", filepath.Join(s.work, ".env"),
		"read", filepath.Join(elsewhere, "file"),
		"write", filepath.Join(elsewhere, "file"),
		"list", filepath.Join(s.dir, "home", "state"),
		"connect", l.Addr().String(),
		"signal", fmt.Sprint(sleep.Process.Pid),
	}
	control := s.as(filepath.Join(s.work, "victim"), append([]string{"again", tried}, args...)...)
	s.must(control.Start())
	s.until("the attempts succeed outside", time.Minute, func() bool {
		b, _ := os.ReadFile(tried)
		for i := 0; i < len(args); i += 2 {
			if !strings.Contains(string(b), args[i]+" "+args[i+1]+"\n") {
				return false
			}
		}
		return true
	})
	control.Process.Kill()
	control.Wait()
	s.must(os.Remove(tried))
	return args
}

// as makes a command of the user's.
func (s *scene) as(name string, args ...string) *exec.Cmd {
	cmd := s.exeq()
	cmd.Path, cmd.Args = name, append([]string{name}, args...)
	return cmd
}

// living counts the processes whose arguments have the mark, exeq's own apart.
func (s *scene) living(mark string) (n int) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	s.must(err)
	for _, at := range all {
		b, _ := os.ReadFile(at) // a process that is gone, or a zombie, has none
		if strings.Contains(string(b), mark) && !strings.HasPrefix(string(b), filepath.Join(s.bin, "exeq")+"\x00") {
			n++
		}
	}
	return n
}

type listed struct {
	Execution, State, Code string
	Ended                  time.Time
}

func (s *scene) executions() (all []listed) {
	s.t.Helper()
	out, err := s.exeq("ps", "--all", "--json").Output()
	s.must(err)
	s.must(json.Unmarshal(out, &all))
	return all
}

// last is the execution that was started last.
func (s *scene) last() listed {
	s.t.Helper()
	all := s.executions()
	if len(all) == 0 {
		s.t.Fatal("no execution is on record")
	}
	return all[0]
}

func (s *scene) executionOf(id string) listed {
	s.t.Helper()
	for _, e := range s.executions() {
		if e.Execution == id {
			return e
		}
	}
	s.t.Fatalf("execution %s is not on record", id)
	return listed{}
}

func boottime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
