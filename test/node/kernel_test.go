//go:build linux

package node

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/test/vm"
)

// TestMachine runs the tests that the tier kernel concerns where it can be had:
// under Debian's kernel, with the programs built here.
func TestMachine(t *testing.T) {
	if os.Getenv(inMachine) != "" {
		t.Skip("this is the machine")
	}
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	files := []string{bin}
	for _, name := range []string{"sh", "cat", "chmod", "ls", "seq", "sleep", "tail", "true", "touch"} {
		files = append(files, "/bin/"+name)
	}
	env := []string{inMachine + "=" + bin, "EXEQ_ROUNDS=" + os.Getenv("EXEQ_ROUNDS")}
	vm.Test(t, vm.Tests{Kernel: "6.12", Run: "^(TestKernel|TestDaemonDies|TestSupervisorDies)$", Files: files, Env: env, OwnTime: true, Timeout: 30 * time.Minute})
}

// attempt is one thing that the victim tries, and what it must be answered in
// an execution of the tier kernel, beside the whole execution's other walls and
// by the gate alone.
type attempt struct {
	name, arg string
	allowed   bool
}

// scenery is what attempts are about.
func (s *scene) scenery(victim string) (all []attempt) {
	s.t.Helper()
	must := s.must
	must(os.MkdirAll("/etc", 0o755))
	must(os.WriteFile("/etc/shadow", []byte("secret"), 0o644))
	must(os.WriteFile("/etc/exeq-test", []byte("system"), 0o666))
	must(os.WriteFile(filepath.Join(s.work, "own"), []byte("own"), 0o666))
	must(os.WriteFile(filepath.Join(s.work, ".env"), []byte("secret"), 0o666))
	must(os.Chmod(filepath.Join(s.work, "own"), 0o666))
	lib, err := os.ReadFile("/bin/true")
	must(err)
	must(os.WriteFile(filepath.Join(s.work, "library"), lib, 0o755))
	must(os.MkdirAll(filepath.Join(s.dir, "elsewhere"), 0o777))
	must(os.WriteFile(filepath.Join(s.dir, "elsewhere", "file"), []byte("other"), 0o666))
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(err)
	u, err := net.Listen("unix", filepath.Join(s.dir, "elsewhere", "server"))
	must(err)
	sleep := exec.Command("/bin/sleep", "1000")
	must(sleep.Start())
	s.t.Cleanup(func() { l.Close(); u.Close(); sleep.Process.Kill(); sleep.Wait() })
	pid := fmt.Sprint(sleep.Process.Pid)
	return []attempt{
		{"read", "/etc/exeq-test", true},
		{"read", filepath.Join(s.work, "own"), true},
		{"write", filepath.Join(s.work, "own"), true},
		{"write", filepath.Join(s.work, "new"), true},
		{"list", s.work, true},
		{"exec", victim, true},
		{"map", victim, true},
		{"exec", "/bin/true", false},
		{"exec", filepath.Join(s.work, "library"), false},
		{"map", filepath.Join(s.work, "library"), false},
		{"map", "/bin/true", false},
		{"read", "/etc/shadow", false},
		{"handle", "/etc/shadow", false},
		{"read", filepath.Join(s.work, ".env"), false},
		{"rename", filepath.Join(s.work, ".env"), false},
		{"write", filepath.Join(s.work, ".envrc"), false}, // which is not there
		{"read", filepath.Join(s.dir, "elsewhere", "file"), false},
		{"list", s.dir, false},
		{"list", filepath.Join(s.dir, "home", "state"), false},
		{"write", "/etc/exeq-test", false},
		{"write", "/etc/new", false},
		{"list", s.pins, false},
		{"write", filepath.Join(s.cgroup, "cgroup.procs"), false},
		{"connect", l.Addr().String(), false},
		{"unix", u.Addr().String(), false},
		{"unix", s.socket, false},
		{"packet", "-", false},
		{"ptrace", pid, false},
		{"signal", pid, false},
		{"mount", filepath.Join(s.dir, "elsewhere"), false},
		{"userns", "-", false},
		{"bpf", "-", false},
		{"perf", "-", false},
		{"uring", "-", false},
	}
}

func arguments(all []attempt) (args []string) {
	for _, a := range all {
		args = append(args, a.name, a.arg)
	}
	return args
}

// answers reads what the victim said.
func answers(t *testing.T, out []byte, err error) map[string]string {
	t.Helper()
	if err != nil {
		t.Fatalf("the victim: %v\n%s", err, out)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if what, answer, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			all[what] = answer
		}
	}
	return all
}

// floor: policy demands the tier, and a machine without the node does not give
// it.
func (s *scene) floor(t *testing.T) {
	t.Helper()
	policy := filepath.Join(s.dir, "home", "state", "policy", "floor.cedar")
	s.must(os.WriteFile(policy, []byte(`@id("floor") forbid (principal, action == Exeq::Action::"run", resource) when { context.tier < 40 };`), 0o644))
	cmd := s.exeq("run", "--json", "--", "/bin/true")
	cmd.Env = append(cmd.Env, "EXEQ_NODE="+s.dir+"/nothing")
	out, _ := cmd.CombinedOutput()
	if r := resultOf(t, string(out)); r.Status != 126 || !strings.Contains(r.Error, "floor") {
		t.Errorf("below policy's floor: %+v", r)
	}
	if out, err := s.exeq("run", "--", "/bin/sh", "-c", "ls /etc > listed && cat listed").CombinedOutput(); err != nil || !strings.Contains(string(out), "exeq-test") {
		t.Errorf("at policy's floor: %v %s", err, out)
	}
}

// rewrites: scripts and programs that ran can be written anew, also while they
// run, and what then stands there is looked at and runs: copies are what is
// approved, never what may be written.
func (s *scene) rewrites(t *testing.T) {
	t.Helper()
	const script = `set -e
printf '#!/bin/sh\necho first\n' > s; chmod +x s; ./s
printf 'echo second\n' >> s; ./s
cat /usr/local/bin/victim > v; chmod +x v; ./v read own
./v wait - > out & until [ -s out ]; do sleep 0.1; done
cat s > v; ./v
kill $!`
	out, err := s.exeq("run", "--tier", "kernel", "--", "/bin/sh", "-c", script).Output()
	if want := "first\nfirst\nsecond\nread own: 0\nfirst\nsecond\n"; err != nil || string(out) != want {
		t.Errorf("files that are written after they ran: %v\n%s", err, out)
		if e, ok := err.(*exec.ExitError); ok {
			t.Logf("%s", e.Stderr)
		}
	}
}

// TestKernel: what the rights give goes on, and nothing else, beside the walls of
// the tier rootless and by the kernel's gate alone, uid 0 included; also without
// the daemon.
func TestKernel(t *testing.T) {
	for name, uid := range map[string]int{"root": 0, "user": nobody} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, uid)
			if s.tier != exeq.TierKernel {
				t.Skip("this node gives tier " + s.tier.String())
			}
			const victim = "/usr/local/bin/victim"
			program, err := os.ReadFile(filepath.Join(s.bin, "victim"))
			s.must(err)
			s.must(os.MkdirAll(filepath.Dir(victim), 0o755))
			s.must(os.WriteFile(victim, program, 0o755))
			all := s.scenery(victim)

			out, err := exec.Command(victim, arguments(all)...).CombinedOutput()
			control := answers(t, out, err)
			for _, a := range all {
				if got := control[a.name+" "+a.arg]; got != "0" {
					t.Errorf("control: %s %s: %q", a.name, a.arg, got)
				}
			}

			clean := func() { // what one makes is not there for the next
				for _, made := range []string{filepath.Join(s.work, "new"), filepath.Join(s.work, ".envrc"), "/etc/new"} {
					os.Remove(made)
				}
			}
			clean()
			_, h, outcome := s.running(victim, "wait", "-")
			dir, err := os.Open(filepath.Join(s.cgroup, h.Permit))
			s.must(err)
			defer dir.Close()
			alone := func(when string) {
				t.Helper()
				c := exec.Command(victim, arguments(all)...)
				c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
				out, err := c.CombinedOutput()
				got := answers(t, out, err)
				for _, a := range all {
					answer, want := got[a.name+" "+a.arg], "EPERM"
					if a.allowed {
						want = "0"
					}
					if answer != want && !(a.name == "perf" && answer == "EACCES") { // a capability that is withheld
						t.Errorf("%s: %s %s: %q, not %s", when, a.name, a.arg, answer, want)
					}
				}
			}
			alone("the gate alone")
			s.signal(syscall.SIGKILL)
			alone("the gate without its daemon")
			s.emptyWithin(h.Permit, 3*exeq.DefaultLease)
			if r := resultOf(t, outcome()); r.Status != 137 || r.State != "sealed" {
				t.Errorf("%+v", r)
			}
			s.kill()
			s.start()
			clean()

			// Beside all walls: whatever refuses first.
			proof := filepath.Join(s.work, "proof.json")
			cmd := s.exeq(append([]string{"run", "--tier", "kernel", "--proof", proof, "--", victim}, arguments(all)...)...)
			cmd.Stderr = io.Discard
			out, err = cmd.Output()
			got := answers(t, out, err)
			for _, a := range all {
				answer, told := got[a.name+" "+a.arg]
				// What is decided on and allowed is no unknown program.
				allowed := a.allowed || a.name == "exec" || a.name == "map"
				if !told || (answer == "0") != allowed {
					t.Errorf("in an execution: %s %s: %q", a.name, a.arg, answer)
				}
			}
			trust, err := s.exeq("trust", "export").Output()
			s.must(err)
			file := filepath.Join(s.work, "trust.json")
			s.must(os.WriteFile(file, trust, 0o644))
			verdict, err := s.exeq("verify", "--trust", file, proof).CombinedOutput()
			if err != nil {
				t.Errorf("verify: %v", err)
			}
			for _, want := range []string{"tier kernel", "the node signed that it closed the gate", "an open of its pins"} {
				if !strings.Contains(string(verdict), want) {
					t.Errorf("the proof does not say %q:\n%s", want, verdict)
				}
			}

			_, h, outcome = s.running(victim, "wait", "-")
			if out, err := s.exeq("revoke", h.Permit).CombinedOutput(); err != nil {
				t.Errorf("revoke: %v %s", err, out)
			}
			s.emptyWithin(h.Permit, exeq.DefaultLease)
			if r := resultOf(t, outcome()); r.Code != "revoked" || r.Status != 137 {
				t.Errorf("%+v", r)
			}
			s.rewrites(t)
			s.floor(t)
		})
	}
}
