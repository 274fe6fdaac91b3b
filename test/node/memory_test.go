//go:build linux

package node

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq/node/wire"
)

// memory is a cgroup of the memory controller, in whichever hierarchy has it.
type memory struct {
	dir, limit, usage, events string
}

// newMemory makes one.
func newMemory(t *testing.T) *memory {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(inMachine) != "" { // it gives none by itself
		os.WriteFile(filepath.Join(cgroupRoot(t), "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	var m memory
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		at, how, _ := strings.Cut(line, " - ")
		switch given, _ := os.ReadFile(filepath.Join(strings.Fields(at)[4], "cgroup.subtree_control")); {
		case strings.HasPrefix(how, "cgroup2 ") && strings.Contains(string(given), "memory"):
			m = memory{f[4], "memory.max", "memory.current", "memory.events"}
		case strings.HasPrefix(how, "cgroup ") && strings.HasSuffix(strings.TrimSpace(how), ",memory"):
			m = memory{f[4], "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"}
		}
	}
	if m.dir == "" {
		t.Skip("no hierarchy gives the memory controller to its cgroups")
	}
	if m.dir, err = os.MkdirTemp(m.dir, "exeq-node-memory-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the scene's own, which ends the daemon
		for end := time.Now().Add(time.Minute); os.Remove(m.dir) != nil && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	})
	return &m
}

// holds has the command start there: what it took before would not count.
func (m *memory) holds(c *exec.Cmd) {
	c.Args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(m.dir, "cgroup.procs")}, c.Args...)
	c.Path = "/bin/sh"
}

func (m *memory) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// killed is how many processes of it the kernel has killed.
func (m *memory) killed(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(m.read(t, m.events)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(n)
		}
	}
	t.Fatalf("nobody counts in %s", m.events)
	return ""
}

// bounds has a process take what memory it takes from now on there, and no more
// than so many bytes.
func (m *memory) bounds(s *scene, pid, most int) {
	s.t.Helper()
	s.must(os.WriteFile(filepath.Join(m.dir, "cgroup.procs"), fmt.Append(nil, pid), 0))
	os.WriteFile(filepath.Join(m.dir, "memory.swap.max"), []byte("0"), 0) // where there is swap
	s.must(os.WriteFile(filepath.Join(m.dir, m.limit), fmt.Append(nil, most), 0))
}

// starve leaves the daemon little memory and asks it for more, until the kernel
// kills it.
func (s *scene) starve() {
	s.t.Helper()
	m := newMemory(s.t)
	m.bounds(s, s.daemon.Process.Pid, 1<<20)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	message := append(binary.BigEndian.AppendUint32(nil, wire.MaxSmall), make([]byte, wire.MaxSmall-1)...)
	for end := time.Now().Add(time.Minute); ; {
		if m.killed(s.t) != "0" {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("it does not run out of memory: %s of %s", m.read(s.t, m.usage), m.read(s.t, m.limit))
		}
		c, err := net.DialTimeout("unix", s.socket, time.Second)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		open = append(open, c)
		c.SetDeadline(time.Now().Add(time.Second))
		c.Write(message) // all but its end: the daemon keeps it and waits
	}
}

// starve has the kernel kill a process for want of memory: it shares the cgroup
// with one that asks for ever more, and is told to be the one to go.
func (m *memory) starve(s *scene, pid int) {
	s.t.Helper()
	s.must(os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0))
	m.bounds(s, pid, 64<<20)
	eater := exec.Command("tail", "/dev/zero")
	m.holds(eater)
	s.must(eater.Start())
	s.t.Cleanup(func() { eater.Process.Kill(); eater.Wait() })
	s.until("it runs out of memory", time.Minute, func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // of one that was killed there is none
		return len(b) == 0
	})
	if m.killed(s.t) == "0" {
		s.t.Fatal("it was not the kernel")
	}
}
