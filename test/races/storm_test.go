//go:build linux

package races

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/test/house"
)

// TestStorms: processes that fork, leave their sessions and execute anew faster
// than anybody could list them are dead, all of them, once their execution has
// ended: by a revocation, with its supervisor, or by the end of its lease.
func TestStorms(t *testing.T) {
	for _, tier := range house.Tiers {
		for user, uid := range house.Users() {
			t.Run(tier.String()+" "+user, func(t *testing.T) {
				h := house.New(t, world, uid, tier)
				for range house.Rounds(1) {
					storm(h, "revoke", func(cmd *exec.Cmd, id string) {
						if out, err := h.Exeq("revoke", "--reason", "test", id).CombinedOutput(); err != nil {
							t.Errorf("revoke: %v\n%s", err, out)
						}
					})
					storm(h, "kill", func(cmd *exec.Cmd, id string) { must(t, cmd.Process.Kill()) })
					storm(h, "stop", func(cmd *exec.Cmd, id string) { must(t, cmd.Process.Signal(syscall.SIGSTOP)) })
				}
			})
		}
	}
}

// patience is for machines under load; nothing is measured by it.
const patience = 2 * time.Minute

// within waits until something is so.
func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// TestStormControl: ungoverned, the storm outlives the process that began it.
func TestStormControl(t *testing.T) {
	h := house.New(t, world, os.Getuid(), exeq.TierRootless)
	ws := arena(h, "storm")
	cmd := h.As("./racer", "storm", "16")
	cmd.Dir = ws
	must(t, cmd.Start())
	defer calm(ws)
	within(t, "a storm", func() bool { return hops(ws) > 300 })
	must(t, cmd.Process.Kill())
	cmd.Wait()
	last := hops(ws)
	within(t, "more of it", func() bool { return hops(ws) > last+300 })
	if !alive(ws) {
		t.Error("the witness does not see it")
	}
}

// storm lets one storm begin and end, and looks from outside for what is left.
func storm(h *house.House, how string, end func(cmd *exec.Cmd, id string)) {
	t := h.T
	t.Helper()
	ws := arena(h, fmt.Sprintf("storm-%s-%d", how, arenas.Add(1)))
	out, err := os.Create(ws + ".out")
	must(t, err)
	defer out.Close()
	cmd := h.Exeq("run", "--tier", h.Tier.String(), "--policy", only(h, ws, "racer", "good"), "--", "./racer", "storm", "16")
	cmd.Dir = ws
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &said
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	defer func() {
		cmd.Process.Kill()
		<-ended
		calm(ws)
	}()
	within(t, "a storm under "+how, func() bool {
		select {
		case <-ended:
			t.Fatalf("%s: it ended by itself: %v\n%s", how, cmd.ProcessState, tail(said.Bytes()))
		default:
		}
		return hops(ws) > 300
	})
	if !alive(ws) {
		t.Fatalf("%s: the witness does not see the storm", how)
	}
	b, err := h.Exeq("ps", "--json").Output()
	var list []struct {
		ID string `json:"execution"`
	}
	if err := errors.Join(err, json.NewDecoder(bytes.NewReader(b)).Decode(&list)); err != nil || len(list) != 1 {
		t.Fatalf("%s: ps: %v: %s", how, err, b)
	}
	end(cmd, list[0].ID)
	within(t, "the end of the storm by "+how, func() bool { return !alive(ws) })
	last := hops(ws)
	if how == "stop" { // what it does now is done for what is long dead
		must(t, cmd.Process.Signal(syscall.SIGCONT))
	}
	within(t, "the end of exeq run by "+how, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	if code := cmd.ProcessState.ExitCode(); how == "revoke" && code != 137 {
		t.Errorf("revoked, it ended with %d\n%s", code, tail(said.Bytes()))
	}
	if n := hops(ws); n != last || alive(ws) {
		t.Errorf("%s: %d processes began after all were dead", how, n-last)
	}
	b, err = os.ReadFile(ws + ".out")
	must(t, err)
	if bytes.ContainsRune(b, 'B') {
		t.Errorf("%s: a forbidden program ran", how)
	}
	t.Logf("%s: %d processes, none left", how, last)
}

// hops is how many processes the storm has made.
func hops(ws string) int64 { return readTally(ws).Hops }

// alive reports whether any process of the storm lives: each holds the lock.
func alive(ws string) bool {
	f, err := os.Open(filepath.Join(ws, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// calm ends a storm that nobody else ended.
func calm(ws string) {
	os.WriteFile(filepath.Join(ws, "enough"), nil, 0o644)
	for end := time.Now().Add(patience); alive(ws) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}
