//go:build linux

package house

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/node/wire"
)

// Tiers are those that can be chosen, strongest first.
var Tiers = []exeq.Tier{exeq.TierKernelLite, exeq.TierRootless, exeq.TierNested}

// Users are those whom this process can be.
func Users() map[string]int {
	if os.Getuid() == 0 {
		return map[string]int{"root": 0, "user": 65534}
	}
	return map[string]int{"user": os.Getuid()}
}

// Build makes a directory that no policy opens and puts both commands in it. The
// caller removes it.
func Build() (dir string, err error) {
	if dir, err = os.MkdirTemp("/var/tmp", "exeq-house-"); err != nil {
		return "", err
	}
	for _, name := range []string{"exeq", "exeq-node"} {
		if err := Command("go", "build", "-o", filepath.Join(dir, name), "../../cmd/"+name); err != nil {
			return dir, err
		}
	}
	return dir, os.Chmod(dir, 0o755)
}

// Command runs one that builds something.
func Command(line ...string) error {
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(line, " "), err, out)
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// House is one installation of one user's, in one tier.
type House struct {
	T      *testing.T
	UID    int
	Tier   exeq.Tier
	Dir    string // anybody may look
	built  string
	socket string // of the node, if the tier needs one
}

// New installs exeq for a user; what is in built is what Build made.
func New(t *testing.T, built string, uid int, tier exeq.Tier) *House {
	t.Helper()
	dir, err := os.MkdirTemp(built, "h")
	must(t, err)
	h := &House{T: t, UID: uid, Tier: tier, Dir: dir, built: built, socket: filepath.Join(dir, "sock")}
	t.Cleanup(func() { // what drains the last run's record may still write there
		for end := time.Now().Add(30 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
	})
	must(t, os.Chmod(dir, 0o755))
	h.Mkdir("home")
	if out, err := h.Exeq("init").CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	if tier == exeq.TierKernelLite {
		h.node()
	}
	return h
}

// Mkdir makes a directory of the user's.
func (h *House) Mkdir(name string) string {
	h.T.Helper()
	p := filepath.Join(h.Dir, name)
	must(h.T, os.Mkdir(p, 0o755))
	must(h.T, os.Chown(p, h.UID, h.UID))
	return p
}

// As makes a command of the user's.
func (h *House) As(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = h.Dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + h.Dir + "/home", "EXEQ_STATE=" + h.Dir + "/home/state", wire.Variable + "=" + h.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.UID), Gid: uint32(h.UID)}
	}
	return cmd
}

// Exeq makes a command of exeq.
func (h *House) Exeq(args ...string) *exec.Cmd { return h.As(filepath.Join(h.built, "exeq"), args...) }

// Lapsed reports whether an execution ended because the machine was too busy to
// renew its lease: no result of what it did, and none of its rules either.
func Lapsed(said []byte) bool {
	return bytes.Contains(said, []byte("lease lapsed: the renewal came late"))
}

// For gives the house to a subtest.
func (h *House) For(t *testing.T) *House {
	c := *h
	c.T = t
	return &c
}

// node installs and starts a node that trusts this user.
func (h *House) node() {
	h.T.Helper()
	if os.Getuid() != 0 {
		h.T.Skip("a node needs root")
	}
	node := func(args ...string) *exec.Cmd { return exec.Command(filepath.Join(h.built, "exeq-node"), args...) }
	pins, cgroup := filepath.Join(h.Dir, "bpf"), filepath.Join(cgroupRoot(h.T), "exeq-house-"+filepath.Base(h.Dir))
	must(h.T, os.Mkdir(pins, 0o700))
	must(h.T, unix.Mount("bpf", pins, "bpf", 0, "mode=0700"))
	h.T.Cleanup(func() { unix.Unmount(pins, unix.MNT_DETACH) })
	trust, err := h.Exeq("trust", "export", "--node").Output()
	must(h.T, err)
	file := filepath.Join(h.Dir, "trust.json")
	must(h.T, os.WriteFile(file, trust, 0o600))
	if out, err := node("install", "-state", h.Dir+"/node", "-trust", h.Dir+"/trust", "-trust-file", file, "-unit", "").CombinedOutput(); err != nil {
		h.T.Fatalf("install: %v\n%s", err, out)
	}
	said, err := os.Create(filepath.Join(h.Dir, "node.log"))
	must(h.T, err)
	defer said.Close()
	daemon := node("serve", "-socket", h.socket, "-state", h.Dir+"/node", "-trust", h.Dir+"/trust", "-pins", pins+"/gate", "-cgroup", cgroup)
	daemon.Stderr = said
	must(h.T, daemon.Start())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	h.T.Cleanup(func() {
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
				h.T.Skipf("%s", log)
			}
			h.T.Fatalf("the node does not start: %v\n%s", err, log)
		default:
		}
		if time.Now().After(end) {
			h.T.Fatalf("the node does not serve\n%s", log)
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
