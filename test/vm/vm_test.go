//go:build linux

package vm

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestRun: each kernel boots, runs a job as root and tells what it wrote and how
// it ended.
func TestRun(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	for _, k := range Kernels() {
		t.Run(k, func(t *testing.T) {
			r, err := Run(t.Context(), Job{
				Kernel: k, Args: []string{sh, "-c", `id -u; echo "$X"; pwd; cat /proc/version >&2; grep -o bpf /sys/kernel/security/lsm; kill -9 $$`},
				Env: []string{"PATH=/usr/bin:/bin", "X=a\rb"}, Dir: "/sys/fs/cgroup", Files: []string{"/usr/bin/id", "/bin/cat", "/bin/grep"},
				Timeout: 2 * time.Minute,
			})
			if errors.Is(err, ErrUnavailable) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: boot %s, job %s", r.Release, r.Boot.Round(time.Second/10), r.Ran.Round(time.Second/10))
			if !strings.HasPrefix(r.Release, k+".") || r.Status != 128+9 {
				t.Errorf("Linux %s, status %d", r.Release, r.Status)
			}
			lines := strings.Split(string(r.Output), "\n")
			if len(lines) < 5 || lines[0] != "0" || lines[1] != "a\rb" || lines[2] != "/sys/fs/cgroup" || !strings.Contains(lines[3], r.Release) || lines[4] != "bpf" {
				t.Errorf("it wrote %q", r.Output)
			}
		})
	}
}
