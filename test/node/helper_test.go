//go:build linux

// Package node runs the real daemon and the real exeq against each other, each
// in places of its own: socket, key, trust, pins and cgroup.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
)

// inMachine names, in a machine of package vm, where the programs are.
const inMachine = "EXEQ_TEST_PROGRAMS"

// binaries builds the programs once.
var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(inMachine); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "exeq-node-test-")
	if err != nil {
		return "", err
	}
	for _, from := range []string{"../../cmd/exeq", "../../cmd/exeq-node", "./victim"} {
		name := filepath.Base(from)
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), from)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := binaries(); err == nil && os.Getenv(inMachine) == "" {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// scene is one node with one user of it.
type scene struct {
	t                          *testing.T
	bin, dir                   string
	socket, pins, cgroup, work string
	uid                        int
	tier                       exeq.Tier // that the node gives
	daemon                     *exec.Cmd
	log                        *journal
}

// journal is what the daemon says, while it says it.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// line waits for the first line with the words.
func (s *scene) line(words string) string {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(s.log.String()) {
			if strings.Contains(line, words) {
				return line
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("the daemon does not say %q\n%s", words, s.log)
		}
	}
}

// newScene installs a node that trusts the user's installation, and starts it.
func newScene(t *testing.T, uid int) *scene {
	t.Helper()
	return newSceneWith(t, uid, func(*scene) {})
}

// newSceneWith arranges things before anything of the node's is there.
func newSceneWith(t *testing.T, uid int, arrange func(*scene)) *scene {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "exeq-node-scene-")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, bin: bin, dir: dir, uid: uid, socket: filepath.Join(dir, "sock"), pins: filepath.Join(dir, "bpf", "gate"), work: filepath.Join(dir, "work")}
	s.cgroup = filepath.Join(cgroupRoot(t), filepath.Base(dir))
	t.Cleanup(func() { s.down() })
	for _, d := range []string{"bpf", "state", "trust", "work", "home"} {
		s.must(os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	s.must(os.Chmod(dir, 0o755))
	for _, d := range []string{"work", "home"} {
		s.must(os.Chown(filepath.Join(dir, d), uid, uid))
	}
	if err := unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount a bpf file system: %v", err)
	}
	arrange(s)
	if out, err := s.exeq("init").CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	out, err := s.exeq("trust", "export", "--node").Output()
	s.must(err)
	file := filepath.Join(dir, "trust.json")
	s.must(os.WriteFile(file, out, 0o600))
	if out, err := s.node("install", "-state", dir+"/state", "-trust", dir+"/trust", "-trust-file", file, "-unit", "").CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	s.start()
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) node(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(s.bin, "exeq-node"), args...)
}

// start starts the daemon and waits until it serves.
func (s *scene) start() {
	s.t.Helper()
	s.log = new(journal)
	s.daemon = s.node("serve", "-socket", s.socket, "-state", s.dir+"/state", "-trust", s.dir+"/trust", "-pins", s.pins, "-cgroup", s.cgroup)
	s.daemon.Stderr = s.log
	s.must(s.daemon.Start())
	ended := make(chan error, 1)
	go func(d *exec.Cmd) { ended <- d.Wait() }(s.daemon)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if id, _, err := client.Look(context.Background(), s.socket); err == nil {
			s.tier = id.Tier
			return
		}
		select {
		case err := <-ended:
			if strings.Contains(s.log.String(), "needs ") {
				s.t.Skip(s.log.String())
			}
			s.t.Fatalf("the daemon does not start: %v\n%s", err, s.log)
		default:
		}
		if time.Now().After(end) {
			s.t.Fatalf("the daemon does not serve\n%s", s.log)
		}
	}
}

func (s *scene) signal(sig syscall.Signal) {
	s.t.Helper()
	s.must(s.daemon.Process.Signal(sig))
}

// kill ends the daemon as a crash would.
func (s *scene) kill() {
	s.daemon.Process.Kill()
	for unix.Kill(s.daemon.Process.Pid, 0) == nil { // start waits for it
		time.Sleep(time.Millisecond)
	}
}

func (s *scene) down() {
	if s.daemon != nil {
		s.daemon.Process.Signal(syscall.SIGCONT)
		s.daemon.Process.Signal(syscall.SIGKILL)
	}
	dirs, _ := filepath.Glob(filepath.Join(s.cgroup, "*-*"))
	for _, d := range dirs {
		os.WriteFile(filepath.Join(d, "cgroup.kill"), []byte("1"), 0)
		for end := time.Now().Add(5 * time.Second); os.Remove(d) != nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	os.Remove(s.cgroup)
	unix.Unmount(filepath.Join(s.dir, "bpf"), unix.MNT_DETACH)
	// What drains the last run's record may still write there.
	for end := time.Now().Add(10 * time.Second); os.RemoveAll(s.dir) != nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

// exeq makes a command of the user's, who finds the node.
func (s *scene) exeq(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, "exeq"), args...)
	cmd.Dir = s.work
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir + "/home", "EXEQ_STATE=" + s.dir + "/home/state", wire.Variable + "=" + s.socket}
	if s.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}}
	}
	return cmd
}

// held gives what the node holds.
func (s *scene) held() []wire.Held {
	s.t.Helper()
	_, st, err := client.Look(context.Background(), s.socket)
	s.must(err)
	var out []wire.Held
	for _, h := range st.Executions {
		if h.State != "ended" {
			out = append(out, h)
		}
	}
	return out
}

// running starts an execution and waits until its lease was renewed once.
func (s *scene) running(args ...string) (cmd *exec.Cmd, held wire.Held, outcome func() string) {
	s.t.Helper()
	cmd = s.exeq(append([]string{"run", "--tier", s.tier.String(), "--json", "--"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	s.must(cmd.Start())
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	left := int64(-1)
	defer func() {
		if s.t.Failed() {
			s.t.Logf("it said: %s", out.String())
		}
	}()
	s.until("it runs", 20*time.Second, func() bool {
		h := s.held()
		if len(h) != 1 || h[0].State != "running" {
			return false
		}
		before := left
		held, left = h[0], h[0].LeaseMillis
		return before >= 0 && left > before
	})
	return cmd, held, func() string { cmd.Wait(); return out.String() }
}

// stopLater is a script that stops itself once there is a file go in the
// workspace.
const stopLater = "until [ -e go ]; do sleep 0.1; done; kill -STOP $$"

// stopped says whether the gate kept a program from running as it does in the
// node's tier: kernel refuses, kernel-lite kills before the first instruction.
func (s *scene) stopped(err error) bool {
	if s.tier == exeq.TierKernel {
		return errors.Is(err, unix.EPERM)
	}
	return err != nil && strings.Contains(err.Error(), "killed")
}

// populated reports whether anything lives in the execution's cgroup.
func (s *scene) populated(permit string) bool {
	b, err := os.ReadFile(filepath.Join(s.cgroup, permit, "cgroup.events"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false
	}
	s.must(err)
	return !strings.Contains(string(b), "populated 0")
}

// emptyWithin waits until nothing of the execution lives.
func (s *scene) emptyWithin(permit string, d time.Duration) {
	s.t.Helper()
	s.until("nothing of it lives", d, func() bool { return !s.populated(permit) })
}

// until waits for what the kernel or another process brings about, and tells
// nobody of.
func (s *scene) until(what string, within time.Duration, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within %s: %s\n%s", within, what, s.log)
		}
	}
}

type result struct {
	State  string
	Code   string
	Status int
	Error  string
}

// resultOf reads what run --json said.
func resultOf(t *testing.T, text string) (r result) {
	t.Helper()
	i := strings.Index(text, "{")
	if i < 0 {
		t.Fatalf("no outcome in %q", text)
	}
	if err := json.Unmarshal([]byte(text[i:]), &r); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return r
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			return f[4]
		}
	}
	t.Skip("no cgroup v2 hierarchy is mounted")
	return ""
}
