//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/exeq/exeq/bench/measure"
)

// memory reads what the supervisor and its helpers hold while the command that
// they govern sleeps: at the third tick.
func (b *bench) memory() error {
	var rss, pss []float64
	processes := 0
	for range b.rounds(5) {
		c := b.governed("sleep", "60")
		if err := c.Start(); err != nil {
			return err
		}
		r, p, n, err := b.held(c)
		err = errors.Join(err, c.Process.Signal(syscall.SIGTERM))
		c.Wait() // ended by us: its status says so
		if err != nil {
			return err
		}
		rss, pss, processes = append(rss, r), append(pss, p), n
	}
	note := fmt.Sprintf("Sum over the %d processes of exeq (supervisor, mount agent, pid 1), the governed command excepted.", processes)
	if err := b.out.Put(measure.Spread(measure.Result{Part: "memory", Case: "RSS", Who: "exeq", Unit: "bytes", Note: note}, rss)); err != nil {
		return err
	}
	return b.out.Put(measure.Spread(measure.Result{Part: "memory", Case: "PSS", Who: "exeq", Unit: "bytes"}, pss))
}

// held sums RSS and PSS over the tree of c but for what is not exeq.
func (b *bench) held(c *exec.Cmd) (rss, pss float64, n int, err error) {
	deadline := time.Now().Add(20 * time.Second)
	for asleep := false; !asleep; {
		if time.Now().After(deadline) {
			return 0, 0, 0, errors.New("the command never started")
		}
		time.Sleep(50 * time.Millisecond)
		for _, p := range descendants(c.Process.Pid) {
			comm, _ := os.ReadFile(filepath.Join("/proc", p, "comm"))
			asleep = asleep || strings.TrimSpace(string(comm)) == "sleep"
		}
	}
	time.Sleep(3 * time.Second)
	for _, p := range append(descendants(c.Process.Pid), strconv.Itoa(c.Process.Pid)) {
		if exe, err := os.Readlink(filepath.Join("/proc", p, "exe")); err != nil || exe != b.exeq {
			continue
		}
		m, err := rollup(p)
		if err != nil {
			return 0, 0, 0, err
		}
		rss, pss, n = rss+m["Rss:"], pss+m["Pss:"], n+1
	}
	return rss, pss, n, nil
}

// descendants of a process, by /proc.
func descendants(pid int) []string {
	children := map[string][]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		text, err := os.ReadFile(s)
		if err != nil {
			continue // it has just exited
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 1 {
			children[f[1]] = append(children[f[1]], filepath.Base(filepath.Dir(s)))
		}
	}
	all := children[strconv.Itoa(pid)]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// rollup reads smaps_rollup, in bytes.
func rollup(pid string) (map[string]float64, error) {
	f, err := os.Open(filepath.Join("/proc", pid, "smaps_rollup"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]float64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if fs := strings.Fields(s.Text()); len(fs) == 3 && fs[2] == "kB" {
			v, err := strconv.ParseFloat(fs[1], 64)
			if err != nil {
				return nil, err
			}
			out[fs[0]] += v * 1024
		}
	}
	return out, nil
}
