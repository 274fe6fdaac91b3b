//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// TestMain: with EXEQ_BPF_LOADER the test binary is a loader that dies, with
// EXEQ_BPF_SPAWN something that starts a program in another cgroup, with
// EXEQ_BPF_TRY an attacker.
func TestMain(m *testing.M) {
	if at := os.Getenv("EXEQ_BPF_LOADER"); at != "" {
		if err := loader(strings.Split(at, "\n")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	if at := os.Getenv("EXEQ_BPF_SPAWN"); at != "" {
		fmt.Println(spawn(strings.Split(at, "\n")))
		os.Exit(0)
	}
	if at := os.Getenv("EXEQ_BPF_TRY"); at != "" {
		attack(at)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func spawn(a []string) error {
	f, err := openCgroup(a[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(a[1])
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	return cmd.Run()
}

// self is the test binary.
func self(t *testing.T) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func loader(a []string) error {
	g, err := Load(a[0], a[1])
	if err != nil {
		return err
	}
	c, err := g.Govern(a[2], false)
	if err != nil {
		return err
	}
	f, err := os.Open(a[3])
	if err != nil {
		return err
	}
	x, err := g.Identify(f)
	if err != nil {
		return err
	}
	return g.Allow(c, x)
}

// TestLoaderDies: what is pinned holds while nobody is there, and the next
// process takes it up.
func TestLoaderDies(t *testing.T) {
	at := filepath.Join(bpffs(t), "gate")
	sh, cgroup, tmp := real(t, "sh"), newCgroup(t, cgroupRoot(t)), t.TempDir()
	prog := marker(t, filepath.Join(tmp, "prog"))
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), "EXEQ_BPF_LOADER="+strings.Join([]string{at, cgroupRoot(t), cgroup, sh}, "\n"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if line != "ready\n" {
		if strings.Contains(line, "(needs ") {
			t.Skip(line)
		}
		t.Fatal(line)
	}

	run := func() string {
		t.Helper()
		return strings.TrimSpace(shell(t, cgroup, tmp, "./prog >/dev/null 2>&1; echo $?"))
	}
	if got := run(); got != "137" {
		t.Errorf("after the loader's death: %q", got)
	}
	g, err := Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { g.Close() }()
	all, err := g.Governed()
	if err != nil || len(all) != 1 || all[0].Revoked {
		t.Fatalf("governed: %+v, %v", all, err)
	}
	if c, err := CgroupOf(cgroup); err != nil || c != all[0].Cgroup {
		t.Errorf("governed: %+v; the cgroup is %d, %v", all, c, err)
	}
	if err := g.SelfTest(cgroup); err != nil {
		t.Error(err)
	}
	if err := g.Allow(all[0].Cgroup, identify(t, g, prog)); err != nil {
		t.Fatal(err)
	}
	if got := run(); got != "99" {
		t.Errorf("allowed by the next process: %q", got)
	}
	// Denials of the time when nobody read are still there.
	events, err := g.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	e, err := events.Next(time.Now().Add(10 * time.Second))
	if err != nil || e.Verb != "exec" || e.Why != "absent" || e.Alive || e.Cgroup != all[0].Cgroup || e.Ino != identify(t, g, prog).Ino {
		t.Errorf("the first event: %+v, %v", e, err)
	}

	if _, err := Load(at, cgroupRoot(t)); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second load: %v", err)
	}
	if err := g.Remove(); err == nil {
		t.Error("removed while a cgroup was governed")
	}
	if err := g.Forbid(all[0].Cgroup, identify(t, g, prog)); err != nil {
		t.Fatal(err)
	}
	if err := g.Lift(all[0].Cgroup); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := run(); got != "99" {
		t.Errorf("after the removal: %q", got)
	}
	if _, err := Open(at); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("open after the removal: %v", err)
	}
}

// TestOpenRefuses: pins that are not ours, or not whole, are not taken up.
func TestOpenRefuses(t *testing.T) {
	g := newGate(t)
	if err := g.maps[gateMapBuild].Put(uint32(0), [32]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(g.dir); !errors.Is(err, ErrOtherBuild) || !errors.Is(err, exeq.ErrEnforce) {
		t.Errorf("another build: %v", err)
	}
	g = newGate(t)
	without := func(name string) {
		t.Helper()
		pin, aside := filepath.Join(g.dir, name), filepath.Join(g.dir, "aside")
		if err := os.Rename(pin, aside); err != nil {
			t.Fatal(err)
		}
		if err := g.Check(); strings.HasPrefix(name, "link-") && !errors.Is(err, ErrBroken) {
			t.Errorf("check without %s: %v", name, err)
		}
		if _, err := Open(g.dir); !errors.Is(err, ErrBroken) {
			t.Errorf("open without %s: %v", name, err)
		}
		if err := os.Rename(aside, pin); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hooks {
		if g.links[h.name] != nil {
			without("link-" + h.name)
		} else if !h.optional {
			t.Errorf("%s is not attached", h.name)
		}
	}
	for _, m := range pinnedMaps {
		without("map-" + m)
	}
	whole, err := Open(g.dir)
	if err != nil {
		t.Fatalf("whole: %v", err)
	}
	if !slices.Equal(whole.Missing(), g.Missing()) {
		t.Errorf("missing at load %q, at open %q", g.Missing(), whole.Missing())
	}
	whole.Close()
}

// TestLoadNames: errors say what is lacking.
func TestLoadNames(t *testing.T) {
	dir := bpffs(t)
	var lacks *FeatureError
	if _, err := Load(filepath.Join(t.TempDir(), "gate"), cgroupRoot(t)); !errors.As(err, &lacks) || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("no bpf file system: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "gate"), t.TempDir()); !errors.As(err, &lacks) || !strings.Contains(err.Error(), "cgroup v2") {
		t.Errorf("no cgroup: %v", err)
	}
	// What a Load that died left is in nobody's way.
	if err := os.Mkdir(filepath.Join(dir, "gate-new"), 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := Load(filepath.Join(dir, "gate"), cgroupRoot(t))
	if errors.As(err, &lacks) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if _, err := g.Govern(t.TempDir(), false); err == nil {
		t.Error("a directory that is no cgroup was governed")
	}
}

// TestSelfTest passes where the gate bites, and fails for each reason for which
// it might not.
func TestSelfTest(t *testing.T) {
	g := newGate(t)
	for _, m := range g.Missing() {
		t.Log("missing:", m)
	}
	dir, c := governed(t, g)
	if err := g.SelfTest(dir); err != nil {
		t.Fatal(err)
	}
	if err := g.SelfTest(newCgroup(t, dir)); !errors.Is(err, ErrNotGoverned) {
		t.Errorf("not governed: %v", err)
	}
	fails := func(name, want string, g *Gate, dir string) {
		t.Helper()
		if err := g.SelfTest(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A hook that is gone without anybody having noticed.
	for name, want := range map[string]string{
		gateProgExec:     "a program that is not allowed ran",
		gateProgConnect4: "was not refused",
	} {
		g := newGate(t)
		dir, _ := governed(t, g)
		os.Remove(filepath.Join(g.dir, "link-"+name))
		g.links[name].Close()
		delete(g.links, name)
		fails(name, want, g, dir)
	}
	// Hooks attached beside the governed cgroup.
	beside, err := Load(filepath.Join(bpffs(t), "gate"), newCgroup(t, cgroupRoot(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	elsewhere, _ := governed(t, beside)
	fails("beside", "was not refused", beside, elsewhere)
	// An ancestor that allows nothing.
	inner := newCgroup(t, dir)
	if _, err := g.Govern(inner, false); err != nil {
		t.Fatal(err)
	}
	fails("ancestor", "is a cgroup above it governed too?", g, inner)

	if err := g.Revoke(c); err != nil {
		t.Fatal(err)
	}
	if err := g.SelfTest(dir); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if _, err := g.Govern(dir, false); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked cgroup governed again: %v", err)
	}
	if err := g.Revoke(c + 1<<40); !errors.Is(err, ErrNotGoverned) {
		t.Errorf("an unknown cgroup revoked: %v", err)
	}
}

// TestRevoke: flipped, everything that executes dies although it was allowed;
// ended, nothing is left.
func TestRevoke(t *testing.T) {
	for _, n := range []int{1, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := newGate(t)
			sh, sleep := real(t, "sh"), real(t, "sleep")
			dir, c := governed(t, g, sh, sleep)
			cmd := in(t, dir, sh, "-c", fmt.Sprintf(
				`i=0; while [ $i -lt %d ]; do sleep 300 & i=$((i+1)); done; echo ready; read x; `+sleep+` 0; echo alive`, n))
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(stdout)
			if s, err := r.ReadString('\n'); s != "ready\n" {
				t.Fatal(s, err)
			}
			if err := g.Revoke(c); err != nil {
				t.Fatal(err)
			}
			if all, err := g.Governed(); err != nil || len(all) != 1 || !all[0].Revoked {
				t.Errorf("governed: %+v, %v", all, err)
			}
			// The shell goes on, but what it starts dies: sleep 0 was allowed.
			events, err := g.Events()
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			fmt.Fprintln(stdin)
			e, err := events.Next(time.Now().Add(10 * time.Second))
			if err != nil || e.Verb != "exec" || e.Why != "revoked" {
				t.Errorf("the first event: %+v, %v", e, err)
			}
			begun := time.Now()
			if err := g.Revoke(c); err != nil {
				t.Fatal(err)
			}
			t.Logf("flip: %s", time.Since(begun))
			begun = time.Now()
			if err := g.End(dir, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			t.Logf("flip, kill and populated 0 with %d processes: %s", n, time.Since(begun))
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err != nil || len(b) != 0 {
				t.Errorf("left: %q, %v", b, err)
			}
			cmd.Wait()
			if err := g.End(dir, time.Second); err != nil {
				t.Errorf("ended again: %v", err)
			}
			if err := in(t, dir, sh, "-c", ":").Run(); !killed(err) {
				t.Errorf("a start in a revoked cgroup: %v", err)
			}
		})
	}
}
