//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node/client"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/test/vm"
)

// TestSuspended: a machine that sleeps longer than a lease wakes up to nothing
// that the lease held, and a renewal of it is refused. In a machine of its own.
func TestSuspended(t *testing.T) {
	if os.Getenv(inMachine) == "" {
		bin, err := binaries()
		if err != nil {
			t.Fatal(err)
		}
		vm.Test(t, vm.Tests{Kernel: "6.12", Run: "^TestSuspended$", Files: []string{bin, "/bin/sleep", "/bin/true"},
			Env: []string{inMachine + "=" + bin}, OwnTime: true, Timeout: 10 * time.Minute})
		return
	}
	s := newScene(t, nobody)
	_, h, outcome := s.running("sleep", "1000")
	if left := time.Duration(h.LeaseMillis) * time.Millisecond; left <= 0 || left > exeq.DefaultLease {
		t.Fatalf("before it sleeps its lease has %s", left)
	}
	slept := suspend(t, 10*time.Second)
	if slept < 2*exeq.DefaultLease {
		t.Fatalf("it slept for %s", slept)
	}
	woke := boottime()
	s.emptyWithin(h.Permit, exeq.DefaultLease)
	t.Logf("slept %s, empty %s after it woke", slept.Round(time.Millisecond), (boottime() - woke).Round(time.Millisecond))
	if r := resultOf(t, outcome()); r.Status != 137 || r.Code != "lapsed" || r.State != "sealed" {
		t.Errorf("%+v", r)
	}
	if out, err := s.exeq("log", h.Permit).CombinedOutput(); err != nil || !strings.Contains(string(out), "lapsed") {
		t.Errorf("the record does not say it: %v\n%s", err, out)
	}

	id, _, err := client.Look(context.Background(), s.socket)
	s.must(err)
	ring, err := keyring.Open(s.dir + "/home/state")
	s.must(err)
	issuer, err := permit.NewIssuer(permit.IssuerConfig{Key: ring.Signer(exeq.RoleIssuer), Audience: id.Audience})
	s.must(err)
	late, err := issuer.Renew(h.Permit, 1000, strings.Repeat("0", 32), exeq.DefaultLease)
	s.must(err)
	if err := client.Renew(context.Background(), s.socket, &late); !errors.Is(err, exeq.ErrLapsed) {
		t.Errorf("a renewal of what lapsed: %v", err)
	}
	if out, err := s.exeq("run", "--tier", s.tier.String(), "--", "true").CombinedOutput(); err != nil {
		t.Errorf("the next run: %v %s", err, out)
	}
}

// suspend has this machine suspended to memory until its real-time clock wakes it,
// and says for how long by the clock that goes on.
func suspend(t *testing.T, d time.Duration) time.Duration {
	t.Helper()
	seconds := fmt.Appendf(nil, "+%d", int(d.Seconds()))
	gap := func() time.Duration { // what only the one clock counts
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return boottime() - time.Duration(ts.Nano())
	}
	before := gap()
	for _, w := range []struct {
		file string
		text []byte
	}{{"/sys/class/rtc/rtc0/wakealarm", seconds}, {"/sys/power/mem_sleep", []byte("deep")}, {"/sys/power/state", []byte("mem")}} {
		if err := os.WriteFile(w.file, w.text, 0); err != nil {
			t.Fatal(err)
		}
	}
	return gap() - before
}
