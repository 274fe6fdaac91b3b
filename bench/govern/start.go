//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// start compares the whole life of one command that does nothing.
func (b *bench) start() error {
	const program = "/bin/true"
	bundle, err := b.bundle()
	if err != nil {
		return err
	}
	bwrap := func() *exec.Cmd {
		return b.plain("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
			"--bind", b.workspace, b.workspace, "--", program)
	}
	sides := []side{
		{"bwrap --unshare-all", func(int) (times, error) { return timed(bwrap()) }},
		{"exeq run", func(int) (times, error) { return timed(b.governed(program)) }},
		{"plain", func(int) (times, error) { return timed(b.plain(program)) }},
	}
	if bundle != "" {
		who, runc := "runc run", []string{"runc", "run", "--bundle", bundle}
		if realtime() { // the cpu controller takes no real-time process
			who, runc = "runc run, normal priority", append([]string{"chrt", "-o", "0"}, runc...)
		}
		sides = append(sides, side{who, func(round int) (times, error) {
			return timed(b.plain(append(runc[:len(runc):len(runc)], fmt.Sprintf("exeq-bench-%d-%d", os.Getpid(), round))...))
		}})
	}
	return b.turns("start", "true", b.rounds(40), sides...)
}

// realtime reports whether this process, and so what it starts, has real-time
// priority.
func realtime() bool {
	a, err := unix.SchedGetAttr(0, 0)
	return err == nil && (a.Policy == unix.SCHED_RR || a.Policy == unix.SCHED_FIFO)
}

// bundle makes an OCI bundle with one static program that does nothing.
// Without root there is none: rootless runc needs a delegated cgroup.
func (b *bench) bundle() (string, error) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "govern: runc is left out: it needs root")
		return "", nil
	}
	dir := filepath.Join(b.dir, "bundle")
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		return "", err
	}
	if err := os.Link(filepath.Join(b.workspace, "true"), filepath.Join(dir, "rootfs", "true")); err != nil && !os.IsExist(err) {
		return "", err
	}
	config := filepath.Join(dir, "config.json")
	if err := os.Remove(config); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	spec := b.plain("runc", "spec")
	spec.Dir = dir
	if err := run(spec); err != nil {
		return "", err
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		return "", err
	}
	process, ok := c["process"].(map[string]any)
	if !ok {
		return "", fmt.Errorf("%s has no process", config)
	}
	process["terminal"], process["args"] = false, []string{"/true"}
	if text, err = json.Marshal(c); err != nil {
		return "", err
	}
	return dir, os.WriteFile(config, text, 0o644)
}
