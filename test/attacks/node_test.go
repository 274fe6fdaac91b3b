//go:build linux

package attacks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node"
	"github.com/exeq/exeq/node/client"
)

// daemon is the exeq-node that the rows of kernel-lite go through: one for all
// of them, as on a machine.
type daemon struct {
	dir, cgroup, socket, trust string
	cmd                        *exec.Cmd
	log                        locked
	lacks                      error     // why this machine can have none; nothing else is set then
	tier                       exeq.Tier // that it gives
}

// nodePath is the daemon, built on first use.
var nodePath = sync.OnceValues(func() (string, error) { return built("exeq-node") })

// without says why the node does not give a tier.
func (d *daemon) without(tier exeq.Tier) error {
	if d.lacks == nil && d.tier != tier {
		return fmt.Errorf("the node gives tier %s", d.tier)
	}
	return d.lacks
}

// theNode starts the node on first use.
var theNode = sync.OnceValues(func() (*daemon, error) {
	d := &daemon{dir: filepath.Join(world.dir, "node")}
	world.node = d // whose end is TestMain's
	return d, d.start()
})

func (d *daemon) start() error {
	if os.Getuid() != 0 {
		d.lacks = errors.New("only root can start a node")
		return nil
	}
	top, err := node.DefaultCgroup()
	if err != nil {
		d.lacks = err
		return nil
	}
	d.cgroup = filepath.Join(filepath.Dir(top), filepath.Base(world.dir))
	d.socket, d.trust = d.dir+"/sock", d.dir+"/trust"
	for _, dir := range []string{"", "/bpf", "/state", "/trust"} {
		if err := os.Mkdir(d.dir+dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("bpf", d.dir+"/bpf", "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount a bpf file system: %w", err)
	}
	// What the kernel lacks is found by loading the gate, not by what the daemon
	// says of it.
	g, err := bpf.Load(d.dir+"/bpf/probe", filepath.Dir(top))
	var lacks *bpf.FeatureError
	if errors.As(err, &lacks) {
		d.lacks = lacks
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.Remove(); err != nil {
		return err
	}
	if err := d.serveAll(); err != nil {
		return err
	}
	program, err := nodePath()
	if err != nil {
		return err
	}
	d.cmd = exec.Command(program, "serve", "-socket", d.socket, "-state", d.dir+"/state", "-trust", d.trust,
		"-pins", d.dir+"/bpf/gate", "-cgroup", d.cgroup)
	d.cmd.Stderr = &d.log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.cmd.Wait() }()
	for {
		if id, _, err := client.Look(context.Background(), d.socket); err == nil {
			d.tier = id.Tier
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the node does not start: %w\n%s", err, d.log.bytes())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// serveAll trusts an installation that never asks, so that both users are served
// from the beginning: the node looks for new users once a second.
func (d *daemon) serveAll() error {
	program, err := exeqPath()
	if err != nil {
		return err
	}
	if err := command(program, "init", "--state", d.dir+"/nobody"); err != nil {
		return err
	}
	b, err := exec.Command(program, "trust", "export", "--node", "--state", d.dir+"/nobody").Output()
	if err != nil {
		return err
	}
	t, err := node.DecodeTrust(b)
	if err != nil {
		return err
	}
	t.UIDs = slices.Collect(maps.Values(users()))
	if b, err = json.Marshal(t); err != nil {
		return err
	}
	return os.WriteFile(d.trust+"/nobody.json", b, 0o600)
}

// stop ends the node and whatever a failed row left to it.
func (d *daemon) stop() {
	if d.cmd != nil {
		d.cmd.Process.Kill()
	}
	if d.cgroup != "" {
		dirs, _ := filepath.Glob(d.cgroup + "/*-*")
		for _, c := range dirs {
			os.WriteFile(c+"/cgroup.kill", []byte("1"), 0)
			for end := time.Now().Add(5 * time.Second); os.Remove(c) != nil && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
		os.Remove(d.cgroup)
	}
	unix.Unmount(d.dir+"/bpf", unix.MNT_DETACH)
}

// trustNode has the node trust the scene's installation until the scene ends.
func (s *scene) trustNode() {
	s.t.Helper()
	d, err := theNode()
	must(s.t, err)
	b, err := s.as(exec.Command(exeqBinary(s.t), "trust", "export", "--node", "--state", s.places["state"])).Output()
	must(s.t, err)
	tmp, name := filepath.Join(d.trust, filepath.Base(s.dir)+".new"), filepath.Join(d.trust, filepath.Base(s.dir)+".json")
	syscall.ForkLock.RLock()
	err = os.WriteFile(tmp, b, 0o600)
	syscall.ForkLock.RUnlock()
	must(s.t, err)
	must(s.t, os.Rename(tmp, name)) // whole, or not there
	s.t.Cleanup(func() { os.Remove(name) })
}

// healthy: whatever the rows did, the node serves.
func (d *daemon) healthy(t *testing.T) {
	if d.cmd == nil {
		return
	}
	if _, _, err := client.Look(context.Background(), d.socket); err != nil {
		t.Errorf("the node does not serve any more: %v\n%s", err, clean(d.log.bytes()))
	}
}
