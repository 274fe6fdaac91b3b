//go:build linux

package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// stillstand keeps one process from running, whatever signals it is sent, and
// gives what lets it go on.
func (s *scene) stillstand(p *os.Process) (goOn func()) {
	s.t.Helper()
	dir := filepath.Join(cgroupRoot(s.t), filepath.Base(s.dir)+"-still")
	s.must(os.Mkdir(dir, 0o755))
	// Back where the test is before the cgroup goes.
	own, err := os.ReadFile("/proc/self/cgroup")
	s.must(err)
	home := ""
	for line := range strings.Lines(string(own)) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			home = filepath.Join(cgroupRoot(s.t), at)
		}
	}
	s.must(os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(p.Pid)), 0))
	s.must(os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("1"), 0))
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		s.must(err)
		if strings.Contains(string(b), "frozen 1") {
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("process %d does not stand still: %s", p.Pid, b)
		}
	}
	gone := false
	goOn = func() {
		if gone {
			return
		}
		gone = true
		os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
		os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte(strconv.Itoa(p.Pid)), 0)
		for end := time.Now().Add(time.Minute); os.Remove(dir) != nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	s.t.Cleanup(goOn)
	return goOn
}

// TestRevokeWithoutSupervisor: a revocation reaches the node by itself, which
// ends an execution whose supervisor stands still, and not by the lease. The
// record says so once the supervisor goes on.
func TestRevokeWithoutSupervisor(t *testing.T) {
	t.Run("running", func(t *testing.T) {
		for try := 1; ; try++ { // the lease may end first on a machine that is busy
			why := revokeWithoutSupervisor(t, "for i in $(seq 100); do sleep 1000 & done; wait", "running")
			if strings.Contains(why, `why="taken back" revoked=true`) {
				return
			}
			if try == 5 || !strings.Contains(why, "within the lease") {
				t.Fatalf("the node ended it for another reason: %s", why)
			}
		}
	})
	t.Run("held", func(t *testing.T) { // no lease counts
		why := revokeWithoutSupervisor(t, stopLater, "held")
		if !strings.Contains(why, `why="taken back" revoked=true`) {
			t.Fatalf("the node ended it for another reason: %s", why)
		}
	})
}

// revokeWithoutSupervisor gives what the node said of the end.
func revokeWithoutSupervisor(t *testing.T, script, state string) string {
	s := newScene(t, nobody)
	defer s.down()
	cmd, h, outcome := s.running("sh", "-c", script)
	s.must(os.WriteFile(filepath.Join(s.work, "go"), nil, 0o644))
	s.until("it is "+state, time.Minute, func() bool { return s.held()[0].State == state })
	goOn := s.stillstand(cmd.Process)
	var said bytes.Buffer
	revoke := s.exeq("revoke", "--reason", "taken back", h.Permit)
	revoke.Stdout, revoke.Stderr = &said, &said
	s.must(revoke.Start())
	defer revoke.Process.Kill()
	why := s.line("msg=ended permit=" + h.Permit)
	s.emptyWithin(h.Permit, time.Minute)
	err := revoke.Wait()
	goOn()
	r := resultOf(t, outcome())
	if !strings.Contains(why, "revoked=true") {
		return why
	}
	if err != nil || !strings.Contains(said.String(), "the node ended execution "+h.Permit) {
		t.Errorf("revoke: %v: %s", err, said.String())
	}
	if r.Code != "revoked" || r.Status != 137 || r.State != "sealed" {
		t.Errorf("%+v", r)
	}
	out, err := s.exeq("log", h.Permit).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "revoke") {
		t.Errorf("the record does not say that it was revoked: %v\n%s", err, out)
	}
	return why
}

// TestRevokeBesideStoppedNode: a node that does not answer keeps no supervisor
// from ending what was revoked.
func TestRevokeBesideStoppedNode(t *testing.T) {
	s := newScene(t, nobody)
	_, h, outcome := s.running("sleep", "1000")
	s.signal(syscall.SIGSTOP)
	out, err := s.exeq("revoke", h.Permit).CombinedOutput()
	s.emptyWithin(h.Permit, 3*exeq.DefaultLease)
	s.signal(syscall.SIGCONT)
	if err != nil {
		t.Errorf("revoke: %v %s", err, out)
	}
	if r := resultOf(t, outcome()); r.Status != 137 || r.State != "sealed" {
		t.Errorf("%+v", r)
	}
}
