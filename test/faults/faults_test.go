//go:build linux

// Package faults kills and damages a real installation from outside and
// judges what is left by exeq's own verify and recovery.
package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var exeqBinary string

func TestMain(m *testing.M) {
	if bytes := os.Getenv("EXEQ_BURN"); bytes != "" {
		burnForever(bytes)
	}
	if len(os.Args) == 4 && os.Args[1] == deniedForever {
		denied(os.Args[2], os.Args[3])
	}
	dir, err := os.MkdirTemp("", "exeq-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	exeqBinary = filepath.Join(dir, "exeq")
	cmd := exec.Command("go", "build", "-o", exeqBinary, "../../cmd/exeq")
	cmd.Stderr = os.Stderr
	status := 1
	if cmd.Run() == nil {
		status = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// rounds scales a loop: n in CI, n × EXEQ_ROUNDS when that is set.
func rounds(n int) int {
	if f, err := strconv.Atoi(os.Getenv("EXEQ_ROUNDS")); err == nil && f > 0 {
		return n * f
	}
	return n
}

// house is one installation under test.
type house struct {
	t           *testing.T
	state, work string
}

func newHouse(t *testing.T) *house {
	dir, err := os.MkdirTemp("", "exeq-faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a drainer may still write there
		until(t, 30*time.Second, dir+" to be removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	h := &house{t: t, state: filepath.Join(dir, "state"), work: t.TempDir()}
	if out, err := h.exeq("run", "--", "true").CombinedOutput(); err != nil {
		t.Fatalf("first run: %v\n%s", err, out)
	}
	return h
}

func (h *house) exeq(args ...string) *exec.Cmd {
	cmd := exec.Command(exeqBinary, args...)
	cmd.Dir = h.work
	cmd.Env = append(os.Environ(), "EXEQ_STATE="+h.state)
	return cmd
}

func (h *house) must(args ...string) []byte {
	h.t.Helper()
	var stderr bytes.Buffer
	cmd := h.exeq(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("exeq %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// logged is one line of exeq log --json.
type logged struct {
	Index int64           `json:"index"`
	Leaf  json.RawMessage `json:"leaf"`
}

func (h *house) log() []logged {
	h.t.Helper()
	var out []logged
	for d := json.NewDecoder(bytes.NewReader(h.must("log", "--json"))); ; {
		var l logged
		if err := d.Decode(&l); err == io.EOF {
			return out
		} else if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, l)
	}
}

// settled checks what must hold whenever nothing runs: every execution on
// record is sealed, and its proof is valid. Of one whose supervisor was killed
// nobody measured the rest: there verify cannot tell whether its lease had a
// gap or, where it was killed before the start was on record, whether it ran;
// every other check holds.
func (h *house) settled() {
	h.t.Helper()
	lost := map[string]bool{}
	for _, e := range h.executions() {
		if e.State == "recorded" {
			continue // killed before its start: a permit that nothing used
		}
		if e.State != "sealed" {
			h.t.Errorf("execution %s is %s", e.Execution, e.State)
			continue
		}
		lost[e.Execution] = e.Code == "lost"
	}
	begun := started(h.t, h.log())
	for id, lost := range lost {
		p := filepath.Join(h.work, "proof.json")
		h.must("proof", "-o", p, id)
		out, err := h.exeq("verify", "--json", p).Output()
		var report struct {
			Verdict string
			Checks  []struct{ Check, Status, Detail string }
		}
		if jerr := json.Unmarshal(out, &report); jerr != nil {
			h.t.Errorf("verify %s: %v: %s (%v)", id, err, out, jerr)
			continue
		}
		started := begun[id]
		for _, c := range report.Checks {
			switch {
			case c.Status == "proved", c.Status == "attested", c.Status == "needs a monitor", c.Status == "not required":
			case c.Status == "cannot tell" && lost && (c.Check == "no gap in the lease" || !started):
			default:
				h.t.Errorf("verify %s (lost %v, started %v): %s: %s: %s", id, lost, started, c.Check, c.Status, c.Detail)
			}
		}
		if want := map[bool]string{false: "valid", true: "cannot tell"}[lost]; report.Verdict != want {
			h.t.Errorf("verify %s (lost %v): verdict %q, want %q", id, lost, report.Verdict, want)
		}
	}
}

type listed struct{ Execution, State, Code string }

func (h *house) executions() (list []listed) {
	h.t.Helper()
	if err := json.Unmarshal(h.must("ps", "--all", "--json"), &list); err != nil {
		h.t.Fatal(err)
	}
	return list
}

// started gives the executions whose start is among the leaves.
func started(t *testing.T, leaves []logged) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, l := range leaves {
		var leaf struct{ Kind, Execution string }
		if err := json.Unmarshal(l.Leaf, &leaf); err != nil {
			t.Fatal(err)
		}
		if leaf.Kind == "start" {
			out[leaf.Execution] = true
		}
	}
	return out
}

// workload lives in many processes, some of them hard to kill, all of which
// hold the pipe that is its standard output.
const workload = `echo up; for i in 1 2 3; do setsid sh -c 'sleep 1000 & sleep 1000' & done
i=0; while [ $i -lt 200 ]; do echo $i > file; cat file > copy; i=$((i+1)); done; sleep 1000`

// TestKillAnywhere kills the supervisor, init or the whole group at a random
// point: nothing is alive afterwards, nothing that was on record is lost, what
// ran has its start on record, and the next start recovers by itself and says
// what it found. A thousand rounds are EXEQ_ROUNDS=10.
func TestKillAnywhere(t *testing.T) {
	h := newHouse(t)
	found, ran := 0, 0
	before, known := h.log(), len(h.executions())
	for round := range rounds(100) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := h.exeq("run", "--", "sh", "-c", workload)
		cmd.Stdout = w
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // the random point
		victim := round % 3
		switch victim {
		case 0:
			syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
		case 1:
			if pids := descendants(cmd.Process.Pid); len(pids) > 0 {
				syscall.Kill(pids[rand.IntN(len(pids))], syscall.SIGKILL)
			}
			syscall.Kill(cmd.Process.Pid, syscall.SIGTERM)
		case 2:
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		said := make(chan []byte)
		go func() { b, _ := io.ReadAll(r); said <- b }()
		up := false
		select {
		case b := <-said:
			up = bytes.Contains(b, []byte("up"))
		case <-time.After(8 * time.Second):
			t.Fatalf("round %d, victim %d: something of the execution is alive beyond its lease", round, victim)
		}
		r.Close()
		cmd.Wait()
		out, err := h.exeq("run", "--", "true").CombinedOutput()
		if err != nil {
			t.Fatalf("round %d, victim %d: the next run: %v\n%s", round, victim, err, out)
		}
		if bytes.Contains(out, []byte("recovered")) {
			found++
		}
		now := h.log()
		after := map[string]int64{}
		for _, l := range now {
			after[string(l.Leaf)] = l.Index
		}
		for _, l := range before {
			index, ok := after[string(l.Leaf)]
			if !ok || l.Index >= 0 && index != l.Index {
				t.Fatalf("round %d: a leaf that was on record at %d is lost or moved to %d: %s", round, l.Index, index, l.Leaf)
			}
		}
		if up { // it ran, so it was let run: what was acknowledged is there
			ran++
			all := h.executions()
			if len(all) != known+2 || all[1].State != "sealed" || !started(t, now)[all[1].Execution] {
				t.Fatalf("round %d, victim %d: what ran is not on record, or not sealed: %+v", round, victim, all[:2])
			}
			known = len(all)
		} else {
			known = len(h.executions())
		}
		before = now
	}
	t.Logf("%d rounds: %d were running when killed, %d left something to recover", rounds(100), ran, found)
	if found == 0 || ran == 0 {
		t.Error("no round ran, or none left anything to recover: the test shows nothing")
	}
	h.settled()
}

// descendants lists the processes below pid.
func descendants(pid int) []int {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 {
			parents[child], _ = strconv.Atoi(fields[1])
		}
	}
	var out []int
	for child := range parents {
		for p, depth := child, 0; p > 1 && depth < 64; p, depth = parents[p], depth+1 {
			if parents[p] == pid {
				out = append(out, child)
				break
			}
		}
	}
	return out
}

// files lists the state's regular files of more than zero bytes.
func (h *house) files() []string {
	var out []string
	filepath.WalkDir(h.state, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && info.Size() > 0 {
				out = append(out, p)
			}
		}
		return nil
	})
	return out
}

// probe runs the commands that read state. Each ends by itself, with success or
// with a clear error; what runs has a proof that verifies.
func (h *house) probe(what string) (refused int) {
	h.t.Helper()
	marker := filepath.Join(h.work, "ran")
	os.Remove(marker)
	p := filepath.Join(h.work, "p.json")
	os.Remove(p)
	out, err := h.exeq("run", "--proof", p, "--", "touch", "ran").CombinedOutput()
	_, ran := os.Stat(marker)
	switch status := exitStatus(err); {
	case bytes.Contains(out, []byte("panic:")), bytes.Contains(out, []byte("goroutine ")):
		h.t.Errorf("%s: run panics:\n%s", what, out)
	case status == 0:
		if ran != nil {
			h.t.Errorf("%s: run says that it ran and it did not", what)
		}
		// The proof was checked as it was written; whoever trusts the keys
		// that the installation had must find it valid, or the key is what
		// was damaged and run must have refused.
		if out, err := h.exeq("verify", p).CombinedOutput(); err != nil {
			h.t.Errorf("%s: what ran has no valid proof: %v\n%s", what, err, out)
		}
	case status == 125 || status == 126:
		refused++
		if ran == nil {
			h.t.Errorf("%s: refused with %d, and ran:\n%s", what, status, out)
		}
		if len(bytes.TrimSpace(out)) == 0 {
			h.t.Errorf("%s: refused with %d without a word", what, status)
		}
	case ran == nil && bytes.Contains(out, []byte("proof of")):
		// It ran, sealed, and the log could not be read back for the proof.
		refused++
	default:
		h.t.Errorf("%s: exit %d:\n%s", what, status, out)
	}
	return refused
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestDiskFull gives the state a file system without room: an error that says
// so, and nothing runs; with room again it goes on.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0755"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	h := &house{t: t, state: filepath.Join(dir, "state"), work: t.TempDir()}
	h.must("run", "--", "true")
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling: %v", err)
	}
	f.Close()
	if refused := h.probe("disk full"); refused == 0 {
		t.Error("a run on a full disk was not refused")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.must("run", "--", "true")
	h.settled()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestSeveralAtOnce shares one state directory between runs.
func TestSeveralAtOnce(t *testing.T) {
	h := newHouse(t)
	const n = 8
	errs := make(chan error, n)
	for i := range n {
		go func() {
			out, err := h.exeq("run", "--", "sh", "-c", fmt.Sprintf("echo %d > f%d", i, i)).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	h.settled()
}
