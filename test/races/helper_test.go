//go:build linux

// Package races executes programs while others put forbidden ones in their
// place, in every tier, inside and from outside, and counts who reached their
// first system call.
package races

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/policy"
)

// world is what all tests share: a directory that no policy opens, with what was
// built once.
var world string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("/var/tmp", "exeq-races-")
	if err == nil {
		world = dir
		if err = os.Chmod(dir, 0o755); err == nil {
			err = build(dir)
		}
	}
	code := 1
	if err != nil {
		log.Print(err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// build compiles the adversary, what it executes, and both commands.
func build(dir string) error {
	gcc := func(out string, args ...string) []string {
		return append([]string{"gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, out)}, args...)
	}
	bare := []string{"-nostdlib", "-ffreestanding", "-fno-stack-protector", "-Wl,--build-id=none", "testdata/mark.c"}
	lines := [][]string{
		gcc("racer", "-static", "-pthread", "testdata/racer.c", "testdata/swap.c", "testdata/storm.c"),
		{"go", "build", "-o", filepath.Join(dir, "exeq"), "../../cmd/exeq"},
		{"go", "build", "-o", filepath.Join(dir, "exeq-node"), "../../cmd/exeq-node"},
	}
	for name, mark := range map[string]string{"good": "G", "bad": "B"} {
		mark = "-DMARK='" + mark + "'"
		lines = append(lines,
			gcc(name, append([]string{mark, "-static", "-Wl,-z,noseparate-code"}, bare...)...),
			gcc(name+".so", append([]string{mark, "-DLIBRARY", "-shared", "-fPIC", "-Wl,-soname,libmark.so"}, bare...)...))
	}
	lines = append(lines, gcc("host", "testdata/host.c", "-Wl,--no-as-needed,-rpath,$ORIGIN", filepath.Join(dir, "good.so")))
	for _, l := range lines {
		cmd := exec.Command(l[0], l[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(l, " "), err, out)
		}
	}
	return nil
}

// rounds scales a loop: n in CI, n × EXEQ_ROUNDS when that is set.
func rounds(n int) int {
	if f, err := strconv.Atoi(os.Getenv("EXEQ_ROUNDS")); err == nil && f > 0 {
		return n * f
	}
	return n
}

// users are those whom this process can be.
func users() map[string]int {
	if os.Getuid() == 0 {
		return map[string]int{"root": 0, "user": 65534}
	}
	return map[string]int{"user": os.Getuid()}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// house is one installation of one user's, in one tier.
type house struct {
	t      *testing.T
	uid    int
	tier   exeq.Tier
	dir    string
	socket string // of the node, if the tier needs one
}

func newHouse(t *testing.T, uid int, tier exeq.Tier) *house {
	t.Helper()
	dir, err := os.MkdirTemp(world, "h")
	must(t, err)
	h := &house{t: t, uid: uid, tier: tier, dir: dir, socket: filepath.Join(dir, "sock")}
	t.Cleanup(func() { // what drains the last run's record may still write there
		for end := time.Now().Add(30 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
	})
	must(t, os.Chmod(dir, 0o755))
	h.mkdir("home")
	if out, err := h.exeq("init").CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	if tier == exeq.TierKernelLite {
		h.node()
	}
	return h
}

func (h *house) mkdir(name string) string {
	h.t.Helper()
	p := filepath.Join(h.dir, name)
	must(h.t, os.Mkdir(p, 0o755))
	must(h.t, os.Chown(p, h.uid, h.uid))
	return p
}

// as makes a command of the user's.
func (h *house) as(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = h.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + h.dir + "/home", "EXEQ_STATE=" + h.dir + "/home/state", wire.Variable + "=" + h.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}
	}
	return cmd
}

func (h *house) exeq(args ...string) *exec.Cmd { return h.as(filepath.Join(world, "exeq"), args...) }

// node installs and starts a node that trusts this user.
func (h *house) node() {
	h.t.Helper()
	if os.Getuid() != 0 {
		h.t.Skip("a node needs root")
	}
	node := func(args ...string) *exec.Cmd { return exec.Command(filepath.Join(world, "exeq-node"), args...) }
	pins, cgroup := filepath.Join(h.dir, "bpf"), filepath.Join(cgroupRoot(h.t), "exeq-races-"+filepath.Base(h.dir))
	must(h.t, os.Mkdir(pins, 0o700))
	must(h.t, unix.Mount("bpf", pins, "bpf", 0, "mode=0700"))
	h.t.Cleanup(func() { unix.Unmount(pins, unix.MNT_DETACH) })
	trust, err := h.exeq("trust", "export", "--node").Output()
	must(h.t, err)
	file := filepath.Join(h.dir, "trust.json")
	must(h.t, os.WriteFile(file, trust, 0o600))
	if out, err := node("install", "-state", h.dir+"/node", "-trust", h.dir+"/trust", "-trust-file", file, "-unit", "").CombinedOutput(); err != nil {
		h.t.Fatalf("install: %v\n%s", err, out)
	}
	said, err := os.Create(filepath.Join(h.dir, "node.log"))
	must(h.t, err)
	defer said.Close()
	daemon := node("serve", "-socket", h.socket, "-state", h.dir+"/node", "-trust", h.dir+"/trust", "-pins", pins+"/gate", "-cgroup", cgroup)
	daemon.Stderr = said
	must(h.t, daemon.Start())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	h.t.Cleanup(func() {
		daemon.Process.Kill()
		<-ended
		dirs, _ := filepath.Glob(filepath.Join(cgroup, "*-*"))
		for _, d := range append(dirs, cgroup) {
			os.WriteFile(filepath.Join(d, "cgroup.kill"), []byte("1"), 0)
			for end := time.Now().Add(10 * time.Second); os.Remove(d) != nil && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, _, err := client.Look(context.Background(), h.socket); err == nil {
			return
		}
		log, _ := os.ReadFile(said.Name())
		select {
		case err := <-ended:
			ended <- err
			if strings.Contains(string(log), "needs ") {
				h.t.Skipf("%s", log)
			}
			h.t.Fatalf("the node does not start: %v\n%s", err, log)
		default:
		}
		if time.Now().After(end) {
			h.t.Fatalf("the node does not serve\n%s", log)
		}
	}
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			return f[4]
		}
	}
	t.Skip("no cgroup v2 hierarchy is mounted")
	return ""
}

// arena is a workspace with the adversary and what it executes in it.
func (h *house) arena(name string) string {
	h.t.Helper()
	ws := h.mkdir(name)
	for _, f := range []string{"racer", "good", "bad", "good.so", "bad.so", "host"} {
		b, err := os.ReadFile(filepath.Join(world, f))
		must(h.t, err)
		to := filepath.Join(ws, f)
		syscall.ForkLock.RLock() // no child inherits a program that is open for writing
		err = os.WriteFile(to, b, 0o755)
		syscall.ForkLock.RUnlock()
		must(h.t, err)
		must(h.t, os.Chown(to, h.uid, h.uid))
	}
	return ws
}

// only writes a policy: the starter's, but that in the workspace these files
// alone may be executed or mapped, by their bytes.
func (h *house) only(ws string, allowed ...string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, filepath.Base(ws)+".policy")
	must(h.t, os.Mkdir(dir, 0o755))
	files := policy.Starter().Files
	var settings map[string]any
	must(h.t, json.Unmarshal([]byte(files[policy.SettingsFile]), &settings))
	delete(settings, "quotas") // thousands of denials are what is asked for
	b, err := json.Marshal(settings)
	must(h.t, err)
	files[policy.SettingsFile] = string(b)
	var digests []string
	for _, f := range allowed {
		b, err := os.ReadFile(filepath.Join(ws, f))
		if os.IsNotExist(err) {
			continue
		}
		must(h.t, err)
		sum := sha256.Sum256(b)
		digests = append(digests, strconv.Quote(hex.EncodeToString(sum[:])))
	}
	files["only.cedar"] = `
@id("only-these")
forbid (principal, action in [Exeq::Action::"run", Exeq::Action::"exec"], resource in Exeq::Workspace::".")
unless { [` + strings.Join(digests, ", ") + `].contains(resource.sha256) };
`
	for name, text := range files {
		must(h.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}
