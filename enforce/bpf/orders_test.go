//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fill makes the map of marks as full as so many processes would.
func (g *Gate) fill(t *testing.T) {
	t.Helper()
	m := g.maps[gateMapMarks]
	n := int(m.MaxEntries())
	keys, values := make([]uint64, n), make([]gateMark, n)
	for i := range keys {
		keys[i], values[i].Id[0] = uint64(i+1), 1 // no address of the kernel's
	}
	// Some are there already, so that not all find room.
	if done, err := m.BatchUpdate(keys, values, nil); err == nil || done == 0 {
		t.Fatalf("%d of %d marks: %v: there is room for all", done, n, err)
	}
}

// TestOrders: what the kernel could not hold is told with the cgroup that
// governs it, and to be killed, whatever else was refused before and nobody read.
func TestOrders(t *testing.T) {
	g := newGate(t)
	py := python(t)
	dir, c := governed(t, g, py)
	below := newCgroup(t, dir)
	cmd := in(t, below, py, "-I", "-S", "-c", `
import os, socket, sys
print("here", flush=True); sys.stdin.readline()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(6000):
    try: s.sendto(b"x", ("192.0.2.7", 53))
    except PermissionError: pass
child = os.fork()
if child == 0:
    os._exit(0)
print(child, flush=True)
sys.stdin.readline()
for i in range(2000):
    p = os.fork()
    if p == 0: os._exit(0)
    os.waitpid(p, 0)
print("done", flush=True)
sys.stdin.readline()`)
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
	out := bufio.NewReader(stdout)
	if s, err := out.ReadString('\n'); s != "here\n" {
		t.Fatal(s, err)
	}
	g.fill(t)
	fmt.Fprintln(stdin)
	child, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	lost, orders, err := g.Dropped()
	if err != nil || lost == 0 || orders != 0 {
		t.Fatalf("%d events and %d orders lost, %v: the ring was to be full", lost, orders, err)
	}
	r, err := g.Orders()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := r.Next(time.Now().Add(10 * time.Second))
	if err != nil || !e.Alive || e.Cgroup != c || e.Verb != "move" || e.Why != "left" || fmt.Sprint(e.PID) != strings.TrimSpace(child) {
		t.Errorf("child %q of cgroup %d below %s: %+v, %v", child, c, dir, e, err)
	}
	// More of them than there is room for are counted.
	fmt.Fprintln(stdin)
	if s, err := out.ReadString('\n'); s != "done\n" {
		t.Fatal(s, err)
	}
	if _, orders, err := g.Dropped(); err != nil || orders == 0 {
		t.Errorf("%d orders lost, %v", orders, err)
	}
	stdin.Close()
	cmd.Wait()
}

// TestSkipped: a program that the kernel passed over is a gate that is open.
func TestSkipped(t *testing.T) {
	if err := skipped("exec", 0); err != nil {
		t.Error(err)
	}
	if err := skipped("exec", 1); !errors.Is(err, ErrBroken) {
		t.Errorf("passed over: %v", err)
	}
	g := newGate(t)
	if len(g.programs) == 0 || len(g.programs) != len(g.links) {
		t.Errorf("%d programs of %d links are asked", len(g.programs), len(g.links))
	}
}
