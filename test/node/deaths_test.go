//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/test/house"
)

// TestDaemonDies: without the node's answer to a renewal nothing lives beyond
// its lease, and the gate holds meanwhile; what starts next says what it found.
func TestDaemonDies(t *testing.T) {
	s := newSceneWith(t, nobody, (*scene).small)
	few, many := sizes(1, 100), sizes(100, 1000)
	if os.Getenv(inMachine) != "" { // where all takes longer
		few, many = sizes(1), sizes(100)
	}
	for _, d := range []struct {
		how  string
		many []int // processes that run then
		die  func(*scene)
	}{
		{"killed", many, func(s *scene) { s.signal(syscall.SIGKILL) }},
		{"stopped", few, func(s *scene) { s.signal(syscall.SIGSTOP) }},
		{"out of memory", few, (*scene).starve},
		{"killed, disk full", few, func(s *scene) { s.fill(); s.signal(syscall.SIGKILL) }},
	} {
		for _, n := range d.many {
			t.Run(fmt.Sprintf("%s, %d", d.how, n), func(t *testing.T) { s.with(t).daemonDies(d.how, n, d.die) })
		}
	}
}

// sizes are the numbers of processes in CI, or with more rounds all that the
// issue asks for; in the machine, which is emulated, 1,000 take three.
func sizes(ci ...int) []int {
	switch rounds := house.Rounds(1); {
	case rounds < 2:
		return ci
	case rounds < 3 && os.Getenv(inMachine) != "":
		return []int{1, 100}
	}
	return []int{1, 100, 1000}
}

// with gives the scene to a subtest, and takes back what that leaves.
func (s *scene) with(t *testing.T) *scene {
	c := *s
	c.t = t
	t.Cleanup(func() { s.daemon, s.log = c.daemon, c.log })
	return &c
}

func (s *scene) daemonDies(how string, n int, die func(*scene)) {
	t := s.t
	_, h, outcome := s.running("sh", "-c", fmt.Sprintf("for i in $(seq %d); do sleep 1000 & done; wait", n))
	procs := filepath.Join(s.cgroup, h.Permit, "cgroup.procs")
	s.until("all of them run", 3*time.Minute, func() bool {
		b, err := os.ReadFile(procs)
		s.must(err)
		return strings.Count(string(b), "\n") > n
	})
	dir, err := os.Open(filepath.Join(s.cgroup, h.Permit))
	s.must(err)
	defer dir.Close()
	die(s)
	for tried, end := false, time.Now().Add(time.Minute); !tried || s.populated(h.Permit); tried = true {
		c := exec.Command("/bin/true")
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		if err := c.Run(); !s.stopped(err) {
			t.Fatalf("without its daemon the gate is open: %v", err)
		}
		if time.Now().After(end) { // a bound of the test's: that it was the lease is in the record
			t.Fatalf("it still lives\n%s", s.log)
		}
	}
	r := resultOf(t, outcome())
	if r.Status != 137 || r.State != "sealed" {
		t.Errorf("%+v", r)
	}
	if how == "stopped" {
		s.signal(syscall.SIGCONT)
	} else {
		s.kill()
		s.start()
		s.found(h.Permit)
	}
	out, err := s.exeq("log", h.Permit).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "revoke") {
		t.Errorf("the record does not say that trust ended: %v\n%s", err, out)
	}
	if out, err := s.exeq("run", "--tier", s.tier.String(), "--", "true").CombinedOutput(); err != nil {
		t.Errorf("after it: %v %s", err, out)
	}
	os.Remove(filepath.Join(s.dir, "state", "full"))
}

// found: recovery says that it ended the execution.
func (s *scene) found(permit string) {
	s.t.Helper()
	out, err := s.node("status", "-socket", s.socket).CombinedOutput()
	s.must(err)
	if !strings.Contains(string(out), "execution "+permit+" of an earlier node: its lease could not be continued, it was ended") {
		s.t.Errorf("recovery does not say so:\n%s", out)
	}
}

// small puts the daemon's state on a file system that is soon full.
func (s *scene) small() {
	s.t.Helper()
	state := filepath.Join(s.dir, "state")
	s.must(unix.Mount("small", state, "tmpfs", 0, "size=64k,mode=0700"))
	s.t.Cleanup(func() { unix.Unmount(state, unix.MNT_DETACH) })
}

// fill leaves no room there.
func (s *scene) fill() { s.fillAt(filepath.Join(s.dir, "state")) }

func (s *scene) fillAt(dir string) {
	s.t.Helper()
	f, err := os.Create(filepath.Join(dir, "full"))
	s.must(err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		s.t.Fatalf("the disk is not full: %v", err)
	}
}

// TestDiskFull: a node whose disk is full does not start without its key, and
// with it goes on, starts, admits and recovers: it writes nothing then.
func TestDiskFull(t *testing.T) {
	s := newSceneWith(t, nobody, (*scene).small)
	run := func(when string) {
		t.Helper()
		if out, err := s.exeq("run", "--tier", s.tier.String(), "--", "true").CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", when, err, out)
		}
	}
	s.fill()
	run("at admission")
	cmd, h, outcome := s.running("sleep", "1000")
	s.kill()
	s.must(cmd.Process.Signal(syscall.SIGSTOP)) // the supervisor does not help
	s.start()
	if s.populated(h.Permit) {
		t.Error("it lives, and the daemon serves")
	}
	s.found(h.Permit)
	s.must(cmd.Process.Signal(syscall.SIGCONT))
	if r := resultOf(t, outcome()); r.Status != 137 {
		t.Errorf("%+v", r)
	}
	run("after recovery")
	s.kill()
	key := filepath.Join(s.dir, "state", "node.key")
	s.must(os.Remove(key))
	s.fill() // what the key took
	d := s.node("serve", "-socket", s.socket, "-state", s.dir+"/state", "-trust", s.dir+"/trust", "-pins", s.pins, "-cgroup", s.cgroup)
	if out, err := d.CombinedOutput(); err == nil || !strings.Contains(string(out), "no space left on device") {
		t.Errorf("a node without room for its key: %v %s", err, out)
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "state", "new-key-*")); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
