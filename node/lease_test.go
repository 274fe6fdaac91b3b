//go:build linux

package node

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

func itoa(i int) string { return strconv.Itoa(i) }

// TestRenewals: only what answers the open challenge extends a lease, whoever
// brings it, and from when the challenge was made.
func TestRenewals(t *testing.T) {
	w := newWorld(t)
	d, x := w.enclosed()
	renew := func(r *exeq.Renewal) error { _, err := w.ask(wire.Request{Renew: r}); return err }
	hoarded := w.challenge(d)
	old := d.renewal(t, 1, hoarded)
	now := w.challenge(d)
	refused(t, renew(old), wire.ErrChallenge)

	other, err := keyring.Create(filepath.Join(t.TempDir(), "keys"))
	must(t, err)
	forged := *d
	forged.ring = other
	refused(t, renew(forged.renewal(t, 1, now)), permit.ErrRenewal)
	long := d.renewal(t, 1, now)
	long.Millis = 60_000
	refused(t, renew(long), permit.ErrRenewal)

	good := d.renewal(t, 5, now)
	must(t, renew(good))
	refused(t, renew(good), wire.ErrChallenge) // replayed
	now = w.challenge(d)
	refused(t, renew(d.renewal(t, 4, now)), permit.ErrRenewal) // out of order
	must(t, renew(d.renewal(t, 6, now)))

	// It counts from the challenge, however late it comes.
	now = w.challenge(d)
	asked := boottime()
	late := d.renewal(t, 7, now)
	time.Sleep(500 * time.Millisecond)
	must(t, renew(late))
	e, err := w.node.find(d.permit.Body.ID)
	must(t, err)
	if left := e.deadline - asked; left > exeq.DefaultLease+50*time.Millisecond {
		t.Errorf("the lease ends %s after the challenge", left)
	}

	// Then nobody renews.
	now = w.challenge(d)
	kept := d.renewal(t, 8, now)
	x.gone(t, exeq.DefaultLease+2*time.Second)
	if err := renew(kept); !errors.Is(err, exeq.ErrRevoked) && !errors.Is(err, exeq.ErrLapsed) {
		t.Errorf("a renewal that was kept back is taken: %v", err)
	}
}

// TestRevocation: the issuer's word ends it at once, whoever brings it, and
// nobody else's does.
func TestRevocation(t *testing.T) {
	w := newWorld(t)
	d, x := w.enclosed()
	revoke := func(as *draft, id string) error {
		i, err := permit.NewIssuer(permit.IssuerConfig{Key: as.ring.Signer(exeq.RoleIssuer), Audience: d.audience})
		must(t, err)
		// The answer to Over has to hold it.
		v, err := i.Revoke(id, "because"+strings.Repeat("\n", wire.MaxAnswer/2), exeq.At(time.Now()))
		must(t, err)
		v.Permit = d.permit.Body.ID
		_, err = w.ask(wire.Request{Revoke: &v})
		return err
	}
	other, err := keyring.Create(filepath.Join(t.TempDir(), "keys"))
	must(t, err)
	refused(t, revoke(&draft{ring: other}, d.permit.Body.ID), permit.ErrRevocation)
	refused(t, revoke(d, exeq.NewID()), permit.ErrRevocation) // of another permit, renamed
	if !alive(x.command) {
		t.Fatal("it was ended by what is not the issuer's")
	}
	must(t, revoke(d, d.permit.Body.ID))
	if alive(x.command) {
		t.Error("it is revoked and lives")
	}
	a, err := w.ask(wire.Request{Over: &wire.Named{Permit: d.permit.Body.ID}})
	must(t, err)
	if !strings.HasPrefix(a.Ended, "because%0A") || !a.Revoked {
		t.Errorf("%q, revoked: %t", a.Ended, a.Revoked)
	}
}

// TestHold: while it is held nothing runs and nothing lapses, and going on
// renews nothing.
func TestHold(t *testing.T) {
	w := newWorld(t)
	d, x := w.enclosed()
	named := &wire.Named{Permit: d.permit.Body.ID}
	time.Sleep(time.Second)
	_, err := w.ask(wire.Request{Hold: named})
	must(t, err)
	e, err := w.node.find(named.Permit)
	must(t, err)
	left := e.left
	time.Sleep(exeq.DefaultLease)
	if !alive(x.command) {
		t.Fatal("it died while it was held")
	}
	// A tick that was under way renews it, and what was kept back does not.
	kept := d.renewal(t, 1, w.challenge(d))
	time.Sleep(exeq.DefaultLease + 10*time.Millisecond)
	_, err = w.ask(wire.Request{Renew: kept})
	refused(t, err, exeq.ErrLapsed)
	fresh := d.renewal(t, 2, w.challenge(d))
	time.Sleep(200 * time.Millisecond)
	_, err = w.ask(wire.Request{Renew: fresh})
	must(t, err)
	if left = e.left; left > exeq.DefaultLease-200*time.Millisecond {
		t.Errorf("a renewal that took 200 ms leaves %s", left)
	}
	_, err = w.ask(wire.Request{Resume: named})
	must(t, err)
	if got := e.deadline - boottime(); got > left {
		t.Errorf("%s are left of a lease of which %s were", got, left)
	}
	_, err = w.ask(wire.Request{Resume: named})
	refused(t, err, wire.ErrState)
	x.gone(t, exeq.DefaultLease+time.Second)
}

// TestEnclose: only a waiting execution of whoever asks is taken, and what was
// refused is where it was.
func TestEnclose(t *testing.T) {
	w := newWorld(t)
	d := w.draft()
	_, err := w.ask(wire.Request{Admit: d.issue(t)})
	must(t, err)
	here, err := cgroupOf(os.Getpid())
	must(t, err)
	for name, fds := range map[string]func(x *waiting) [2]*os.File{
		"a stranger":     func(x *waiting) [2]*os.File { return [2]*os.File{pidfd(t, 1), x.command} },
		"itself":         func(x *waiting) [2]*os.File { return [2]*os.File{pidfd(t, os.Getpid()), pidfd(t, os.Getpid())} },
		"its agent":      func(x *waiting) [2]*os.File { return [2]*os.File{pidfd(t, x.cmd.Process.Pid), x.init} },
		"twice the same": func(x *waiting) [2]*os.File { return [2]*os.File{x.init, x.init} },
		"no pidfd":       func(x *waiting) [2]*os.File { return [2]*os.File{os.Stderr, x.command} },
	} {
		t.Run(name, func(t *testing.T) {
			d := w.draft()
			_, err := w.ask(wire.Request{Admit: d.issue(t)})
			must(t, err)
			x := newWaiting(t)
			f := fds(x)
			_, err = w.ask(wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID}}, int(f[0].Fd()), int(f[1].Fd()))
			refused(t, err, wire.ErrProcess)
			for _, pid := range []int{1, os.Getpid(), x.pids[0], x.pids[1]} {
				if at, err := cgroupOf(pid); err != nil || pid > 1 && at != here {
					t.Errorf("process %d is in %s: %v", pid, at, err)
				}
			}
			if !alive(x.command) {
				t.Error("it was killed")
			}
		})
	}
	t.Run("no namespace", func(t *testing.T) {
		d := w.draft()
		_, err := w.ask(wire.Request{Admit: d.issue(t)})
		must(t, err)
		x := waitingBehind(t, "sh", "-c", "sh -c 'sleep 1000 & echo; wait'; exit 0")
		_, err = w.ask(wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID}}, int(x.init.Fd()), int(x.command.Fd()))
		refused(t, err, wire.ErrProcess)
	})
	for name, agent := range map[string]string{
		// What stays in the namespace and out of the cgroup, ready to run for it.
		"a decoy":              "sleep 1000 & sleep 1001 & echo; wait",
		"a decoy, an orphan":   "sleep 1000 & sh -c '(sleep 1001 &)'; echo; wait",
		"a decoy of a command": "sh -c 'sleep 1001 & echo; wait' & wait",
	} {
		t.Run(name, func(t *testing.T) {
			d := w.draft()
			_, err := w.ask(wire.Request{Admit: d.issue(t)})
			must(t, err)
			x := waitingBehind(t, "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", agent)
			_, err = w.ask(wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID}}, int(x.init.Fd()), int(x.command.Fd()))
			refused(t, err, wire.ErrProcess)
		})
	}
	t.Run("of another", func(t *testing.T) {
		d := w.draft()
		_, err := w.ask(wire.Request{Admit: d.issue(t)})
		must(t, err)
		// A whole execution, and one generation too far from who asks.
		x := waitingBehind(t, "sh", "-c", "unshare --pid --fork --kill-child sh -c 'sleep 1000 & echo; wait'; exit 0")
		inner := [2]*os.File{pidfd(t, child(t, x.pids[0])), pidfd(t, child(t, x.pids[1]))}
		_, err = w.ask(wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID}}, int(inner[0].Fd()), int(inner[1].Fd()))
		refused(t, err, wire.ErrProcess)
	})
	x := newWaiting(t)
	enclose := wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID, Proxy: "192.0.2.1:80"}}
	_, err = w.ask(enclose, int(x.init.Fd()), int(x.command.Fd()))
	refused(t, err, wire.ErrProtocol)
	enclose.Enclose.Proxy = "127.0.0.1:8080"
	_, err = w.ask(enclose, int(x.init.Fd()), int(x.command.Fd()))
	must(t, err)
	_, err = w.ask(enclose, int(x.init.Fd()), int(x.command.Fd()))
	refused(t, err, wire.ErrState)
}

// TestApprove: what the rights do not let run is not let run, whoever asks; a
// file that changes afterwards is another.
func TestApprove(t *testing.T) {
	w := newWorld(t)
	d, _ := w.enclosed()
	file := filepath.Join(t.TempDir(), "program")
	must(t, os.WriteFile(file, []byte("#!/bin/true"), 0o755))
	approve := func(path string, flags int) (*wire.Answer, error) {
		f, err := os.OpenFile(file, flags, 0)
		must(t, err)
		defer f.Close()
		return w.ask(wire.Request{Approve: &wire.Approve{Permit: d.permit.Body.ID, Path: path}}, int(f.Fd()))
	}
	_, err := approve("/home/x/program", os.O_RDONLY)
	refused(t, err, wire.ErrProgram)
	_, err = approve("/usr/../home/x", os.O_RDONLY)
	refused(t, err, wire.ErrProgram)
	_, err = approve("/usr/bin/x", os.O_RDWR)
	refused(t, err, wire.ErrProgram)
	_, err = approve("/usr/bin/x", unix.O_PATH)
	refused(t, err, wire.ErrProgram)
	a, err := approve("/usr/bin/x", os.O_RDONLY)
	must(t, err)
	first := *a.SHA256
	must(t, os.WriteFile(file, []byte("#!/bin/frue"), 0o755))
	a, err = approve("/usr/bin/x", os.O_RDONLY)
	must(t, err)
	if *a.SHA256 == first {
		t.Error("the bytes changed and the digest did not")
	}
	writer, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer writer.Close()
	_, err = approve("/usr/bin/x", os.O_RDONLY)
	refused(t, err, wire.ErrProgram)
}
