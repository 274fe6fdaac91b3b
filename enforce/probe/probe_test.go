//go:build linux

package probe

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/internal/nobody"
)

// A peer is this test binary again, with some system calls taken away before
// it probes: what is missing must be found out.
const peerEnv = "EXEQ_PROBE_PEER"

func TestMain(m *testing.M) {
	spec, ok := os.LookupEnv(peerEnv)
	if !ok {
		os.Exit(m.Run())
	}
	if err := peer(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

func peer(spec string) error {
	if spec == "noexec" {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
			return err
		}
	} else if spec != "" {
		if err := without(strings.Fields(spec)); err != nil {
			return err
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(Full(Options{Scratch: dir}))
}

// without refuses system calls for good.
func without(calls []string) error {
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for _, c := range calls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(filter.Number(c)), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(filter.Errno(unix.EPERM))})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	_, err := filter.Install(prog, unix.SECCOMP_FILTER_FLAG_TSYNC)
	return err
}

func probeAs(t *testing.T, spec string) Facts {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{peerEnv + "=" + spec}
	cmd.Dir, cmd.Stderr = t.TempDir(), os.Stderr
	if spec == "noexec" {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var f Facts
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestWhatIsTakenAwayIsMissed: each fact is true here and false once the call
// that it depends on is refused; the tier follows.
func TestWhatIsTakenAwayIsMissed(t *testing.T) {
	whole := probeAs(t, "")
	for _, x := range whole.List {
		t.Logf("%v %s: %s", x.OK, x.Name, x.Detail)
		if !x.OK && x.Do == "" {
			t.Errorf("%s: nothing to do about it", x.Name)
		}
	}
	if tier, why := BestTier(whole); tier != exeq.TierRootless {
		t.Fatalf("tier %v here: %v", tier, why)
	}
	for _, c := range []struct {
		spec, fact string
		tier       exeq.Tier
	}{
		{"clone", Namespaces, exeq.TierNested},
		{"mount_setattr", Namespaces, exeq.TierNested},
		{"open_tree", Namespaces, exeq.TierNested},
		{"move_mount", Namespaces, exeq.TierNested},
		{"landlock_create_ruleset", Landlock, exeq.TierNone},
		{"landlock_restrict_self", Landlock, exeq.TierNone},
		{"seccomp", Notify, exeq.TierNone},
		{"noexec", StoreExec, exeq.TierNested},
		{"pidfd_getfd", PidfdGetfd, exeq.TierRootless},
		{"ptrace", Ptrace, exeq.TierRootless},
		{"bpf", BPFTracing, exeq.TierRootless},
		{"bpf", BPFLSM, exeq.TierRootless},
	} {
		f := probeAs(t, c.spec)
		x, ok := f.Get(c.fact)
		if !ok || x.OK || x.Detail == "" || x.Do == "" {
			t.Errorf("without %s: %s is %+v", c.spec, c.fact, x)
		}
		if tier, why := BestTier(f); tier != c.tier {
			t.Errorf("without %s: tier %v, want %v (%v)", c.spec, tier, c.tier, why)
		}
	}
}

// TestNothingStays: trials leave the process as it was.
func TestNothingStays(t *testing.T) {
	status := func() []string {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		var keep []string
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "NoNewPrivs") || strings.HasPrefix(line, "Seccomp") || strings.HasPrefix(line, "Cap") {
				keep = append(keep, line)
			}
		}
		return keep
	}
	files := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	dir := t.TempDir()
	Full(Options{Scratch: dir}) // opens what the runtime keeps
	before, n := status(), files()
	f := Full(Options{Scratch: dir})
	if after := status(); !slices.Equal(before, after) {
		t.Errorf("was %q, is %q", before, after)
	}
	if m := files(); m != n {
		t.Errorf("%d descriptors before, %d after", n, m)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("children are left: %v", err)
	}
	if fd, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Errorf("this process is restricted: %v", err)
	} else {
		unix.Close(fd)
	}
	if _, ok := f.Get(Landlock); !ok {
		t.Error("no fact about Landlock")
	}
}

func TestBTF(t *testing.T) {
	b, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip(err)
	}
	if id, err := btfID(b, btfFunc, "bpf_lsm_bprm_check_security"); err != nil || id == 0 {
		t.Error(id, err)
	}
	if _, err := btfID(b, btfFunc, "no_such_function_at_all"); err == nil {
		t.Error("a function that does not exist was found")
	}
	for n := range 64 { // cut off anywhere: an error, never a crash
		if _, err := btfID(b[:len(b)*n/64], btfFunc, "no_such_function_at_all"); err == nil {
			t.Error("found in a part")
		}
	}
}

func TestLimits(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range Limits() {
		if seen[l.ID] || l.ID == "" || len(l.Tiers) == 0 || !strings.HasSuffix(l.What, ".") || !strings.HasSuffix(l.Instead, ".") {
			t.Errorf("%+v", l)
		}
		seen[l.ID] = true
	}
}

func TestAsNobody(t *testing.T) { nobody.Rerun(t, "^Test[^A]") }
