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

	"github.com/exeq/exeq"
)

// nobody is a user without any rights of root's.
const nobody = 65534

// TestRun: an execution goes through the node, and its proof says so.
func TestRun(t *testing.T) {
	for name, uid := range map[string]int{"root": 0, "user": nobody} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, uid)
			proof := filepath.Join(s.work, "proof.json")
			cmd := s.exeq("run", "--proof", proof, "--", "sh", "-c", "echo governed; printf '#!/bin/sh\\necho script' > s; chmod +x s; ./s; ls > /dev/null")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "governed\nscript\n") {
				t.Fatalf("%v: %s\n%s", err, out, s.log)
			}
			trust, err := s.exeq("trust", "export").Output()
			s.must(err)
			file := filepath.Join(s.work, "trust.json")
			s.must(os.WriteFile(file, trust, 0o644))
			out, err = s.exeq("verify", "--trust", file, proof).CombinedOutput()
			if err != nil {
				t.Fatalf("verify: %v\n%s", err, out)
			}
			for _, want := range []string{"tier " + s.tier.String(), "the node signed that it closed the gate"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("the proof does not say %q:\n%s", want, out)
				}
			}
			if h := s.held(); len(h) != 0 {
				t.Errorf("the node still holds %v", h)
			}
		})
	}
}

// TestGate: what is not approved dies in the execution's cgroup, whoever starts
// it there, and what is approved runs.
func TestGate(t *testing.T) {
	s := newScene(t, 0)
	cmd, h, outcome := s.running("sleep", "1000")
	dir, err := os.Open(filepath.Join(s.cgroup, h.Permit))
	s.must(err)
	defer dir.Close()
	inside := func(program string) error {
		c := exec.Command(program, "0")
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		return c.Run()
	}
	if err := exec.Command("/bin/true", "0").Run(); err != nil {
		t.Fatal("the control does not run:", err)
	}
	if err := inside("/bin/true"); !s.stopped(err) {
		t.Errorf("a program that nobody approved ran in the execution: %v", err)
	}
	for end := time.Now().Add(5 * time.Second); s.held()[0].Denials == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the denial is not counted")
		}
	}
	s.must(cmd.Process.Signal(syscall.SIGTERM))
	outcome()
	s.emptyWithin(h.Permit, 5*time.Second)
	out, err := s.exeq("why", h.Permit).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ed by the kernel") {
		t.Errorf("what the kernel refused is not on record: %v\n%s", err, out)
	}
}

// TestRestart: a daemon that starts ends what an earlier one held before it
// serves, and says so.
func TestRestart(t *testing.T) {
	s := newScene(t, 0)
	cmd, h, outcome := s.running("sleep", "1000")
	s.kill()
	s.must(cmd.Process.Signal(syscall.SIGSTOP)) // the supervisor does not help
	if !s.populated(h.Permit) {
		t.Fatal("it died with the daemon")
	}
	s.start()
	if s.populated(h.Permit) {
		t.Error("it lives, and the daemon serves")
	}
	out, err := s.node("status", "-socket", s.socket).CombinedOutput()
	s.must(err)
	if !strings.Contains(string(out), "execution "+h.Permit+" of an earlier node: its lease could not be continued, it was ended") {
		t.Errorf("recovery does not say so:\n%s", out)
	}
	s.must(cmd.Process.Signal(syscall.SIGCONT))
	if r := resultOf(t, outcome()); r.Status != 137 {
		t.Errorf("%+v", r)
	}
}

// TestRevoke: a revocation ends it now.
func TestRevoke(t *testing.T) {
	s := newScene(t, nobody)
	_, h, outcome := s.running("sleep", "1000")
	if out, err := s.exeq("revoke", h.Permit).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	s.emptyWithin(h.Permit, exeq.DefaultLease)
	if r := resultOf(t, outcome()); r.Code != "revoked" || r.Status != 137 {
		t.Errorf("%+v", r)
	}
}

// TestRefusedIsRecorded: a permit that the node refuses is a denial on record,
// and nothing ran.
func TestRefusedIsRecorded(t *testing.T) {
	s := newScene(t, nobody)
	// The user is served, and this installation of theirs is not trusted.
	env := "EXEQ_STATE=" + s.dir + "/home/other"
	cmd := s.exeq("run", "--tier", s.tier.String(), "--json", "--", "touch", "made")
	cmd.Env = append(cmd.Env, env)
	out, _ := cmd.CombinedOutput()
	if r := resultOf(t, string(out)); r.Status != 125 || !strings.Contains(r.Error, "not trusted for this user") {
		t.Errorf("%+v in %s", r, out)
	}
	if _, err := os.Stat(filepath.Join(s.work, "made")); err == nil {
		t.Error("it ran")
	}
	cmd = s.exeq("log", "--json")
	cmd.Env = append(cmd.Env, env)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "denial") || !strings.Contains(string(out), `"permit"`) {
		t.Errorf("the refusal is not on record: %v\n%s", err, out)
	}
	if h := s.held(); len(h) != 0 {
		t.Errorf("the node holds %v", h)
	}
}

// TestTier: what is asked for is held, and policy's floor too.
func TestTier(t *testing.T) {
	s := newScene(t, nobody)
	lower := func(tier string) string {
		cmd := s.exeq("run", "--tier", tier, "--json", "--", "true")
		cmd.Env = append(cmd.Env, "EXEQ_NODE="+s.dir+"/nothing")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if r := resultOf(t, lower(s.tier.String())); r.Status != 125 || !strings.Contains(r.Error, "exeq-node does not run here") {
		t.Errorf("without a node: %+v", r)
	}
	if r := resultOf(t, lower("auto")); r.Status != 0 {
		t.Errorf("auto without a node: %+v", r)
	}
	other := exeq.TierKernel
	if s.tier == other {
		other = exeq.TierKernelLite
	}
	out, _ := s.exeq("run", "--tier", other.String(), "--json", "--", "true").CombinedOutput()
	if r := resultOf(t, string(out)); r.Status != 125 || !strings.Contains(r.Error, "the warden gives tier "+s.tier.String()+", not "+other.String()) {
		t.Errorf("a tier that this node does not give: %+v", r)
	}
	policy := filepath.Join(s.dir, "home", "state", "policy", "floor.cedar")
	s.must(os.WriteFile(policy, []byte(`@id("floor") forbid (principal, action == Exeq::Action::"run", resource) when { context.tier < `+fmt.Sprint(int(s.tier))+` };`), 0o644))
	if r := resultOf(t, lower("auto")); r.Status != 126 || !strings.Contains(r.Error, "floor") {
		t.Errorf("below policy's floor: %+v", r)
	}
	if out, err := s.exeq("run", "--", "true").CombinedOutput(); err != nil {
		t.Errorf("at policy's floor: %v %s", err, out)
	}
}

// TestHeld: what stops itself (^Z) is frozen by the node, longer than any lease,
// and goes on when its supervisor does.
func TestHeld(t *testing.T) {
	s := newScene(t, nobody)
	cmd, h, outcome := s.running("sh", "-c", stopLater+"; echo went on")
	s.must(os.WriteFile(filepath.Join(s.work, "go"), nil, 0o644))
	s.until("it is held", 20*time.Second, func() bool {
		x := s.held()
		return len(x) == 1 && x[0].State == "held"
	})
	time.Sleep(exeq.DefaultLease + exeq.DefaultTick)
	b, err := os.ReadFile(filepath.Join(s.cgroup, h.Permit, "cgroup.events"))
	s.must(err)
	if !strings.Contains(string(b), "frozen 1") {
		t.Errorf("it is held and not frozen: %s", b)
	}
	s.must(cmd.Process.Signal(syscall.SIGCONT))
	out := outcome()
	if r := resultOf(t, out[strings.Index(out, "{"):]); r.Status != 0 || !strings.Contains(out, "went on") {
		t.Errorf("%+v in %s\n%s", r, out, s.log)
	}
}
