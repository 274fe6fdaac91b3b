//go:build linux

package node

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// TestPermits: each permit that is not for here and now is refused by its own
// error, and the very same one without the fault is taken.
func TestPermits(t *testing.T) {
	w := newWorld(t)
	stranger, err := keyring.Create(filepath.Join(t.TempDir(), "keys"))
	must(t, err)
	for name, c := range map[string]struct {
		before func(d *draft)
		after  func(t *testing.T, d *draft, a *wire.Admit)
		want   error
	}{
		"none":            {},
		"wrong node":      {func(d *draft) { d.audience.Node = exeq.KeyID(stranger.Public(exeq.RoleNode)) }, nil, permit.ErrAudience},
		"wrong boot":      {func(d *draft) { d.audience.BootID = "5c2f1f0e-8f3c-4be0-9a0a-7a1a0c9d8e11" }, nil, permit.ErrAudience},
		"wrong epoch":     {func(d *draft) { d.audience.Epoch = "00112233445566778899aabbccddeeff" }, nil, permit.ErrAudience},
		"expired":         {func(d *draft) { d.now = d.now.Add(-exeq.DefaultPermitWindow) }, nil, permit.ErrExpired},
		"not yet valid":   {func(d *draft) { d.now = d.now.Add(permit.MaxSkew + time.Second) }, nil, permit.ErrEarly},
		"a stranger's":    {func(d *draft) { d.ring = stranger }, nil, wire.ErrIssuer},
		"above this tier": {func(d *draft) { d.rights.TierFloor = exeq.TierKernel }, nil, permit.ErrTier},
		"other rights":    {nil, func(t *testing.T, d *draft, a *wire.Admit) { r := *a.Rights; r.Quotas.Processes = 7; a.Rights = &r }, permit.ErrRights},
		"other arguments": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			r := *a.Request
			r.Argv = []string{"sleep", "1"}
			a.Request = &r
		}, permit.ErrAction},
		"no record":        {nil, func(t *testing.T, d *draft, a *wire.Admit) { a.Record = nil }, permit.ErrMalformed},
		"no promise":       {nil, func(t *testing.T, d *draft, a *wire.Admit) { a.Record.Promise = exeq.Promise{Path: []exeq.Digest{}} }, permit.ErrUnrecorded},
		"another's record": {nil, func(t *testing.T, d *draft, a *wire.Admit) { o := w.draft(); o.issue(t); a.Record = o.record }, permit.ErrUnrecorded},
		"a promise that the issuer did not give": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			d.ring = stranger
			a.Record = d.recorded(t, d.permit).Record
		}, permit.ErrUnrecorded},
		"altered": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			// Another node's signature on the same words.
			var e exeq.Envelope
			must(t, json.Unmarshal(a.Envelope, &e))
			o := w.draft()
			o.issue(t)
			var f exeq.Envelope
			must(t, json.Unmarshal(o.permit.Envelope, &f))
			e.Signatures = f.Signatures
			a.Envelope, _ = json.Marshal(e)
		}, permit.ErrSignature},
		"extra field": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			p := d.bend(t, func(s string) string { return strings.Replace(s, `"maxUses":1`, `"maxUses":1,"more":true`, 1) })
			*a = *d.recorded(t, p)
		}, permit.ErrMalformed},
		"two uses": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			p := d.bend(t, func(s string) string { return strings.Replace(s, `"maxUses":1`, `"maxUses":2`, 1) })
			*a = *d.recorded(t, p)
		}, permit.ErrMalformed},
		"a long window": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			end := d.permit.Body.NotAfter
			p := d.bend(t, func(s string) string {
				return strings.Replace(s, `"notAfter":"`+end.String(), `"notAfter":"`+exeq.At(end.Add(permit.MaxWindow)).String(), 1)
			})
			*a = *d.recorded(t, p)
		}, permit.ErrWindow},
		"a long lease": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			p := d.bend(t, func(s string) string { return strings.Replace(s, `"leaseMillis":3000`, `"leaseMillis":600000`, 1) })
			*a = *d.recorded(t, p)
		}, permit.ErrLease},
		"an id that is a path": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			id := d.permit.Body.ID
			p := d.bend(t, func(s string) string { return strings.Replace(s, `"id":"`+id, `"id":"../`+id[3:], 1) })
			a.Envelope = p.Envelope
		}, permit.ErrMalformed},
		"two signatures": {nil, func(t *testing.T, d *draft, a *wire.Admit) {
			var e exeq.Envelope
			must(t, json.Unmarshal(a.Envelope, &e))
			e.Signatures = append(e.Signatures, e.Signatures[0])
			a.Envelope, _ = json.Marshal(e)
		}, permit.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			d := w.draft()
			if c.before != nil {
				c.before(d)
			}
			a := d.issue(t)
			if c.after != nil {
				c.after(t, d, a)
			}
			_, err := w.ask(wire.Request{Admit: a})
			if c.want == nil {
				must(t, err)
				return
			}
			refused(t, err, c.want)
			if n := len(w.node.executions); n > 1 {
				t.Errorf("%d executions are held", n)
			}
		})
	}
}

// TestReplay: a permit is used once, also beyond a restart, and whatever is put
// back of the node's state.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	before := filepath.Join(t.TempDir(), "state")
	if out, err := exec.Command("cp", "-a", w.config.State, before).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	d := w.draft()
	a := d.issue(t)
	_, err := w.ask(wire.Request{Admit: a})
	must(t, err)
	_, err = w.ask(wire.Request{Admit: a})
	refused(t, err, permit.ErrUsed)
	refused(t, err, exeq.ErrReplayed)
	// The same permit with another nonce is the same permit, also when the node
	// has forgotten the execution.
	x, err := w.node.find(d.permit.Body.ID)
	must(t, err)
	w.node.forget(x)
	d.permit = d.bend(t, func(s string) string {
		return strings.Replace(s, `"nonce":"`+d.permit.Body.Nonce, `"nonce":"`+strings.Repeat("0", 32), 1)
	})
	_, err = w.ask(wire.Request{Admit: d.recorded(t, d.permit)})
	refused(t, err, exeq.ErrReplayed)

	w.stop()
	must(t, os.RemoveAll(w.config.State))
	must(t, os.Rename(before, w.config.State))
	node := w.node.Identity().Audience.Node
	w.start()
	if w.node.Identity().Audience.Node != node {
		t.Fatal("the key was not put back: this shows nothing")
	}
	_, err = w.ask(wire.Request{Admit: a})
	refused(t, err, permit.ErrAudience)
}

// TestClock: what has expired stays so when the clock is set back.
func TestClock(t *testing.T) {
	w := newWorld(t)
	d := w.draft()
	a := d.issue(t)
	real := time.Now
	w.node.burnt.now = func() time.Time { return real().Add(time.Hour) }
	_, err := w.ask(wire.Request{Admit: a})
	refused(t, err, permit.ErrExpired)
	w.node.burnt.now = real
	_, err = w.ask(wire.Request{Admit: a})
	refused(t, err, permit.ErrExpired)
	d.now = real().Add(time.Hour)
	_, err = w.ask(wire.Request{Admit: d.issue(t)})
	refused(t, err, exeq.ErrClock)
}

// TestBurnListIsBounded: expired nonces make room, others never do.
func TestBurnListIsBounded(t *testing.T) {
	b := newBurnt()
	now := time.Now()
	b.now = func() time.Time { return now }
	for i := range maxBurnt / 2 {
		n := exeq.At(now.Add(time.Minute))
		if err := b.Burn(t.Context(), "p"+itoa(i), "n"+itoa(i), n); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := b.Burn(t.Context(), "p", "n", exeq.At(now.Add(time.Minute))); err == nil {
		t.Error("there is room in a full list")
	}
	now = now.Add(2 * time.Minute)
	if err := b.Burn(t.Context(), "p", "n", exeq.At(now.Add(time.Minute))); err != nil {
		t.Error(err)
	}
	if err := b.Burn(t.Context(), "another", "n", exeq.At(now.Add(time.Minute))); !errors.Is(err, exeq.ErrReplayed) {
		t.Errorf("a nonce is taken with another permit: %v", err)
	}
	if len(b.nonces) != 2 {
		t.Errorf("%d nonces are kept", len(b.nonces))
	}
}
