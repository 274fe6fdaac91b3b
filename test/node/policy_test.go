//go:build linux

package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPolicyPush: what a new policy set denies leaves the kernel's map of a
// running execution, so that it is not executed there by what passes the
// supervisor by, either. What it does not deny stays.
func TestPolicyPush(t *testing.T) {
	for name, uid := range map[string]int{"root": 0, "user": nobody} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, uid)
			program, err := os.ReadFile("/bin/true")
			s.must(err)
			for i, tool := range []string{"tool", "other"} { // of different bytes: the map knows files
				s.must(os.WriteFile(filepath.Join(s.work, tool), append(program, byte(i)), 0o755))
			}
			cmd, h, outcome := s.running("sh", "-c", "./tool && ./other && sleep 1000; true")
			dir, err := os.Open(filepath.Join(s.cgroup, h.Permit))
			s.must(err)
			defer dir.Close()
			// In the cgroup, and under no filter of the supervisor's: the files that
			// its processes see.
			root := s.rootOf(h.Permit)
			bypass := func(tool string) error {
				c := exec.Command(root + filepath.Join(s.work, tool))
				c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
				return c.Run()
			}
			for _, tool := range []string{"tool", "other"} {
				if err := bypass(tool); err != nil {
					t.Fatalf("an approved program does not run: %s: %v\n%s", tool, err, s.log)
				}
			}
			text := fmt.Sprintf("@id(\"taken-back\") forbid (principal, action == Exeq::Action::\"exec\", resource == Exeq::Program::%q) when { context.risk >= 0 };\n", filepath.Join(s.work, "tool"))
			policy := filepath.Join(s.dir, "home", "state", "policy", "taken-back.cedar")
			s.must(os.WriteFile(policy, []byte(text), 0o644))
			for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				err := bypass("tool")
				if s.stopped(err) {
					break
				}
				if err != nil || time.Now().After(end) {
					t.Fatalf("what the policy in force denies runs: %v\n%s", err, s.log)
				}
			}
			if err := bypass("other"); err != nil {
				t.Errorf("what it does not deny was taken back: %v", err)
			}
			if !s.populated(h.Permit) {
				t.Errorf("the execution does not live: %s", outcome())
			}
			s.must(cmd.Process.Signal(syscall.SIGTERM))
			outcome()

			out, err := s.exeq("run", "--", "sh", "-c", "./other && ./tool").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "taken-back") {
				t.Errorf("control: the policy does not deny it: %v %s", err, out)
			}
			s.must(os.Remove(policy))
			if out, err := s.exeq("run", "--", "sh", "-c", "./other && ./tool").CombinedOutput(); err != nil {
				t.Errorf("control: without the policy: %v %s", err, out)
			}
		})
	}
}

// rootOf gives the root that sleep has in the execution.
func (s *scene) rootOf(permit string) string {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(s.cgroup, permit, "cgroup.procs"))
		s.must(err)
		for _, pid := range strings.Fields(string(b)) {
			if name, _ := os.ReadFile("/proc/" + pid + "/comm"); strings.TrimSpace(string(name)) == "sleep" {
				return "/proc/" + pid + "/root"
			}
		}
	}
	s.t.Fatal("sleep does not run")
	return ""
}
