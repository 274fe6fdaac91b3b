//go:build linux

package node

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// governedUser is nobody's, nor of another test that runs at the same time: a
// scope over it touches nothing else on the machine.
var governedUser = 1_000_000 + os.Getpid()*4

var overUser = exeq.Scope{Kind: exeq.ScopeUID, Subject: fmt.Sprint(governedUser)}

// trustScopes lets an issuer declare scopes.
func (w *world) trustScopes(name string, r *keyring.Ring, uids ...int) {
	w.t.Helper()
	b, err := json.Marshal(Trust{Version: 1, Issuer: r.Public(exeq.RoleIssuer), Promise: r.VerifierKey(exeq.RolePromise), UIDs: uids, Scopes: true})
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(w.config.Trust, name+".json"), b, 0o600))
}

// newScopeWorld is a world whose issuer may declare scopes; none is left behind.
func newScopeWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.trustScopes("issuer", w.ring, 0)
	t.Cleanup(func() {
		os.RemoveAll(w.config.Pins + "-scopes") // before the bpf file system goes
	})
	return w
}

// over is a statement before it is bent.
func (w *world) over(mode exeq.ScopeMode, serial uint64) exeq.ScopeBody {
	return exeq.ScopeBody{Scope: overUser, Mode: mode, Serial: serial, Node: w.node.Identity().Audience.Node, Policies: []string{"p"}}
}

// scoped signs a statement and puts it on record.
func scoped(t *testing.T, ring *keyring.Ring, body exeq.ScopeBody, now time.Time) *wire.Declare {
	t.Helper()
	envelope, b, err := permit.SignScope(ring.Signer(exeq.RoleIssuer), body, now, time.Minute)
	must(t, err)
	return recordedScope(t, ring, envelope, b.Mode, now)
}

func recordedScope(t *testing.T, ring *keyring.Ring, envelope []byte, mode exeq.ScopeMode, now time.Time) *wire.Declare {
	t.Helper()
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindScope, Time: exeq.At(now), Body: exeq.LeafBody{Event: string(mode)}},
		map[string]any{"scope": string(envelope)}, ring.Signer(exeq.RoleIssuer))
	must(t, err)
	key := ring.NoteSigner(exeq.RolePromise)
	h := exeq.LeafHash(e.Bytes)
	b, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n1\n%s\ntime %d\n", key.Name(), base64.StdEncoding.EncodeToString(h[:]), now.UnixMilli())}, key)
	must(t, err)
	return &wire.Declare{Envelope: envelope, Record: &exeq.ScopeRecord{Leaf: e.Bytes, Promise: exeq.Promise{Note: string(b), Path: []exeq.Digest{}}, Scope: e.Disclosures[0]}}
}

func (w *world) declare(body exeq.ScopeBody) error {
	w.t.Helper()
	_, err := w.ask(wire.Request{Declare: scoped(w.t, w.ring, body, time.Now())})
	return err
}

func (w *world) held() []wire.HeldScope {
	w.t.Helper()
	a, err := w.ask(wire.Request{Scopes: &struct{}{}})
	must(w.t, err)
	return a.Scopes
}

// asUser runs a program as a user, whom the world asks nothing.
func asUser(uid int, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd.Output()
}

// lives wants to know whether the user can run a program at all.
func (w *world) lives(uid int) bool {
	w.t.Helper()
	out, err := asUser(uid, "/usr/bin/echo", "lives")
	var e *exec.ExitError
	if err == nil && string(out) == "lives\n" {
		return true
	}
	if !errors.As(err, &e) || e.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		w.t.Fatalf("%q, %v", out, err)
	}
	return false
}

// TestScopeDeclared: declared it holds, restarted it holds, lifted it is over.
func TestScopeDeclared(t *testing.T) {
	w := newScopeWorld(t)
	if !w.lives(governedUser) {
		t.Fatal("without a scope")
	}
	must(t, w.declare(w.over(exeq.ScopeEnforce, 5)))
	if w.lives(governedUser) || !w.lives(governedUser+1) {
		t.Error("declared")
	}
	want := []wire.HeldScope{{Scope: overUser, Mode: exeq.ScopeEnforce, Serial: 5, Issuer: exeq.KeyID(w.ring.Public(exeq.RoleIssuer))}}
	same := func(when string) {
		t.Helper()
		have := w.held()
		for i := range have {
			have[i].Denied = 0 // as the reader comes to it
		}
		if !slices.EqualFunc(have, want, func(a, b wire.HeldScope) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			t.Errorf("%s: %+v", when, have)
		}
	}
	same("declared")
	w.stop()
	if w.lives(governedUser) {
		t.Error("no node")
	}
	w.start()
	if w.lives(governedUser) || len(w.node.Found()) != 0 {
		t.Errorf("restarted; found %q", w.node.Found())
	}
	same("restarted")
	must(t, w.declare(w.over(exeq.ScopeLift, 6)))
	if !w.lives(governedUser) {
		t.Error("lifted")
	}
	w.stop()
	w.start()
	if !w.lives(governedUser) {
		t.Error("lifted, and the node restarted")
	}
	refused(t, w.declare(w.over(exeq.ScopeEnforce, 6)), wire.ErrScopeSerial)
}

// TestScopeLife: programs by their bytes and trees as they are; what is not as
// the statement says keeps it from coming into force, and later is left out.
func TestScopeLife(t *testing.T) {
	w := newScopeWorld(t)
	dir := reachable(t)
	prog := filepath.Join(dir, "echo")
	b := echo(t, prog)
	body := w.over(exeq.ScopeEnforce, 1)
	body.Programs = []exeq.ScopeProgram{{Path: prog, SHA256: exeq.Digest{1}}}
	refused(t, w.declare(body), wire.ErrScopeLife)
	body.Trees = []string{"/var/tmp"} // that others write
	body.Programs = nil
	refused(t, w.declare(body), wire.ErrScopeLife)
	body.Trees = []string{filepath.Join(dir, "none")}
	refused(t, w.declare(body), wire.ErrScopeLife)
	if !w.lives(governedUser) {
		t.Error("a scope that was refused holds")
	}
	body.Trees = nil
	body.Programs = []exeq.ScopeProgram{{Path: prog, SHA256: digestOf(t, prog)}}
	must(t, w.declare(body))
	if out, err := asUser(governedUser, prog, "lives"); string(out) != "lives\n" {
		t.Errorf("what it lives by: %q, %v", out, err)
	}
	if w.lives(governedUser) {
		t.Error("what it does not live by")
	}
	// Another file in its place, at once and when the node has looked.
	must(t, os.Rename(prog, prog+"-old"))
	must(t, os.WriteFile(prog, append(b, 0), 0o755))
	if out, err := asUser(governedUser, prog, "lives"); len(out) != 0 {
		t.Errorf("another file: %q, %v", out, err)
	}
	w.node.scopes.refresh()
	if h := w.held(); len(h) != 1 || len(h[0].Faults) != 1 || !strings.Contains(h[0].Faults[0], prog) {
		t.Errorf("faults: %+v", h)
	}
	// The same bytes again, as another file: found when the node looks.
	must(t, os.Remove(prog))
	must(t, os.WriteFile(prog, b, 0o755))
	w.node.scopes.refresh()
	if out, err := asUser(governedUser, prog, "lives"); string(out) != "lives\n" {
		t.Errorf("the same bytes again: %q, %v", out, err)
	}
	body = w.over(exeq.ScopeEnforce, 2)
	body.Trees = []string{"/usr"}
	must(t, w.declare(body))
	if !w.lives(governedUser) {
		t.Error("below a tree")
	}
	if out, err := asUser(governedUser, prog, "lives"); len(out) != 0 {
		t.Errorf("of an earlier statement: %q, %v", out, err)
	}
}

// reachable is a directory of root's that every user gets to.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "exeq-scope-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// echo makes a program of its own of echo, and gives its bytes.
func echo(t *testing.T, at string) []byte {
	t.Helper()
	b, err := os.ReadFile("/usr/bin/echo")
	must(t, err)
	must(t, os.WriteFile(at, b, 0o755))
	return b
}

func digestOf(t *testing.T, path string) exeq.Digest {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return sha256.Sum256(b)
}

// TestScopeRefused: each with its own error, and nothing comes of it.
func TestScopeRefused(t *testing.T) {
	w := newScopeWorld(t)
	stranger, err := keyring.Create(filepath.Join(t.TempDir(), "stranger"))
	must(t, err)
	ordinary, err := keyring.Create(filepath.Join(t.TempDir(), "ordinary"))
	must(t, err)
	w.trustIssuer("ordinary", ordinary, 0)
	colleague, err := keyring.Create(filepath.Join(t.TempDir(), "colleague"))
	must(t, err)
	w.trustScopes("colleague", colleague, 0)
	must(t, w.declare(w.over(exeq.ScopeEnforce, 10)))
	now := time.Now()
	next := w.over(exeq.ScopeLift, 11)
	good := scoped(t, w.ring, next, now)
	bend := func(from, to string) *wire.Declare {
		var e exeq.Envelope
		must(t, json.Unmarshal(good.Envelope, &e))
		payload, err := base64.StdEncoding.DecodeString(e.Payload)
		must(t, err)
		bent := strings.Replace(string(payload), from, to, 1)
		if bent == string(payload) {
			t.Fatalf("%q is not there", from)
		}
		e.Payload = base64.StdEncoding.EncodeToString([]byte(bent))
		e.Signatures[0].Sig = base64.StdEncoding.EncodeToString(w.ring.Signer(exeq.RoleIssuer).Sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(bent), bent)))
		b, err := json.Marshal(e)
		must(t, err)
		return recordedScope(t, w.ring, b, exeq.ScopeLift, now)
	}
	forged := *good
	forged.Envelope = []byte(strings.Replace(string(good.Envelope), `"sig":"`, `"sig":"AAAA`, 1))
	elsewhere := next
	elsewhere.Node = exeq.KeyID(stranger.Public(exeq.RoleNode))
	otherRecord := *good
	otherRecord.Record = scoped(t, w.ring, next, now).Record
	otherKind := *good
	otherKind.Record = recordedScope(t, w.ring, good.Envelope, exeq.ScopeEnforce, now).Record
	for name, c := range map[string]struct {
		d    *wire.Declare
		want error
	}{
		"an issuer that nobody trusts":      {scoped(t, stranger, next, now), wire.ErrScopeIssuer},
		"one that may not declare scopes":   {scoped(t, ordinary, next, now), wire.ErrScopeIssuer},
		"one whose scope it is not":         {scoped(t, colleague, next, now), wire.ErrScopeIssuer},
		"rolled back":                       {scoped(t, w.ring, w.over(exeq.ScopeRehearse, 9), now), wire.ErrScopeSerial},
		"the same serial":                   {scoped(t, w.ring, w.over(exeq.ScopeLift, 10), now), wire.ErrScopeSerial},
		"a signature that does not verify":  {&forged, permit.ErrSignature},
		"for another node":                  {scoped(t, w.ring, elsewhere, now), permit.ErrAudience},
		"handed over late":                  {scoped(t, w.ring, next, now.Add(-time.Hour)), permit.ErrExpired},
		"handed over early":                 {scoped(t, w.ring, next, now.Add(time.Hour)), permit.ErrEarly},
		"not on record":                     {&wire.Declare{Envelope: good.Envelope}, permit.ErrUnrecorded},
		"on record is another":              {&otherRecord, permit.ErrUnrecorded},
		"on record as another act":          {&otherKind, permit.ErrUnrecorded},
		"an unknown member":                 {bend(`"mode":"lift"`, `"mode":"lift","x":1`), permit.ErrMalformed},
		"an unknown mode":                   {bend(`"mode":"lift"`, `"mode":"drop"`), permit.ErrMalformed},
		"another predicate":                 {bend(`scope/v1"`, `scope/v2"`), permit.ErrMalformed},
		"another scope than the subject's":  {bend(`"subject":"`+overUser.Subject, `"subject":"1`+overUser.Subject), permit.ErrMalformed},
		"a window that no issuer gives":     {bend(exeq.At(now.Add(time.Minute)).String(), exeq.At(now.Add(48*time.Hour)).String()), permit.ErrWindow},
		"garbage":                           {&wire.Declare{Envelope: []byte("{}"), Record: good.Record}, permit.ErrMalformed},
		"a scope that is not there, lifted": {scoped(t, w.ring, func() exeq.ScopeBody { b := next; b.Scope.Subject = fmt.Sprint(governedUser + 1); return b }(), now), wire.ErrNoScope},
	} {
		_, err := w.ask(wire.Request{Declare: c.d})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
		if w.lives(governedUser) {
			t.Fatalf("%s: and the scope does not hold", name)
		}
	}
	if _, err := w.ask(wire.Request{Declare: good}); err != nil || !w.lives(governedUser) {
		t.Errorf("the same without a fault: %v", err)
	}
	// What is lifted is anybody's who may declare; an issuer that may no more
	// leaves his to others.
	if _, err := w.ask(wire.Request{Declare: scoped(t, colleague, w.over(exeq.ScopeEnforce, 12), now)}); err != nil || w.lives(governedUser) {
		t.Errorf("declared by a colleague: %v", err)
	}
	refused(t, w.declare(w.over(exeq.ScopeLift, 13)), wire.ErrScopeIssuer)
	w.trustIssuer("colleague", colleague, 0)
	refused(t, w.declare(w.over(exeq.ScopeLift, 13)), wire.ErrScopeIssuer)
	must(t, os.Remove(filepath.Join(w.config.Trust, "colleague.json")))
	must(t, w.declare(w.over(exeq.ScopeLift, 13)))
	if !w.lives(governedUser) {
		t.Error("lifted in the place of one who may no more")
	}
}

// TestScopeFiles: what becomes of the statement's file lifts nothing.
func TestScopeFiles(t *testing.T) {
	w := newScopeWorld(t)
	must(t, w.declare(w.over(exeq.ScopeRehearse, 1)))
	if !w.lives(governedUser) {
		t.Error("rehearsed, and it denies")
	}
	file := w.node.scopes.file(overUser, statementSuffix)
	old, err := os.ReadFile(file)
	must(t, err)
	must(t, w.declare(w.over(exeq.ScopeEnforce, 2)))
	present, err := os.ReadFile(file)
	must(t, err)
	for name, c := range map[string]struct {
		change func() error
		say    string
	}{
		"gone":     {func() error { return os.Remove(file) }, "its statement is gone"},
		"put back": {func() error { return os.WriteFile(file, old, 0o600) }, "older than what the kernel holds"},
		"damaged":  {func() error { return os.WriteFile(file, present[:len(present)/2], 0o600) }, "scope: "},
		"another's": {func() error {
			return os.WriteFile(file, []byte(strings.Replace(string(present), `"issuer":"`, `"issuer":"AAAA`, 1)), 0o600)
		}, "scope: "},
	} {
		w.stop()
		must(t, c.change())
		w.start()
		if w.lives(governedUser) {
			t.Errorf("%s: the scope does not hold", name)
		}
		if found := strings.Join(w.node.Found(), "\n"); !strings.Contains(found, c.say) {
			t.Errorf("%s: found %q", name, found)
		}
		if h := w.held(); len(h) != 1 || h[0].Serial != 2 || h[0].Mode != exeq.ScopeEnforce || len(h[0].Faults) != 1 {
			t.Errorf("%s: %+v", name, h)
		}
		refused(t, w.declare(w.over(exeq.ScopeLift, 2)), wire.ErrScopeSerial)
		w.stop()
		must(t, os.WriteFile(file, present, 0o600))
		w.start()
		if h := w.held(); len(h) != 1 || len(h[0].Faults) != 0 {
			t.Errorf("%s, and put right: %+v", name, h)
		}
	}
	// After a boot the kernel holds nothing: what cannot be read is not passed over.
	w.stop()
	must(t, os.WriteFile(file, present[:len(present)/2], 0o600))
	must(t, os.RemoveAll(w.config.Pins+"-scopes"))
	if n, err := Open(w.config); err == nil {
		n.Close()
		t.Error("a damaged statement, and it serves")
	}
	must(t, os.WriteFile(file, present, 0o600))
	w.start()
	if w.lives(governedUser) {
		t.Error("after a boot")
	}
	// A newer statement comes in the place of what is lost.
	w.stop()
	must(t, os.Remove(file))
	w.start()
	must(t, w.declare(w.over(exeq.ScopeLift, 3)))
	if !w.lives(governedUser) || len(w.held()) != 1 {
		t.Errorf("lifted: %+v", w.held())
	}
}

// TestScopePermit: an execution under a permit is the gate's, whatever scope it
// is in, and the gate's self-test passes.
func TestScopePermit(t *testing.T) {
	w := newScopeWorld(t)
	must(t, w.declare(w.over(exeq.ScopeEnforce, 1)))
	d, _ := w.enclosed()
	dir := filepath.Join(w.config.Cgroup, d.permit.Body.ID)
	f, err := os.Open("/usr/bin/echo")
	must(t, err)
	defer f.Close()
	cgroup, err := os.Open(dir)
	must(t, err)
	defer cgroup.Close()
	run := func() ([]byte, error) {
		cmd := exec.Command("/usr/bin/echo", "lives")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(governedUser), Gid: uint32(governedUser)}, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
		return cmd.Output()
	}
	if out, _ := run(); len(out) != 0 {
		t.Errorf("in the execution's cgroup, and not approved: %q", out)
	}
	if _, err := w.ask(wire.Request{Approve: &wire.Approve{Permit: d.permit.Body.ID, Path: "/usr/bin/echo"}}, int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if out, err := run(); string(out) != "lives\n" {
		t.Errorf("under a permit: %q, %v", out, err)
	}
	if w.lives(governedUser) {
		t.Error("beside it")
	}
}

// TestScopeCgroup: a cgroup that is not there yet, that comes, and that is made
// again.
func TestScopeCgroup(t *testing.T) {
	w := newScopeWorld(t)
	_, top, err := inHierarchy(w.config.Cgroup)
	must(t, err)
	dir := w.config.Cgroup + "-scope"
	body := w.over(exeq.ScopeEnforce, 1)
	body.Scope = exeq.Scope{Kind: exeq.ScopeCgroup, Subject: exeq.EncodeBytes(strings.TrimPrefix(dir, top))}
	lives := func() bool {
		t.Helper()
		f, err := os.Open(dir)
		must(t, err)
		defer f.Close()
		cmd := exec.Command("/usr/bin/echo", "lives")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		out, _ := cmd.Output()
		return string(out) == "lives\n"
	}
	t.Cleanup(func() { os.Remove(dir) })
	must(t, w.declare(body))
	if h := w.held(); len(h) != 1 || len(h[0].Faults) != 1 {
		t.Errorf("not there: %+v", h)
	}
	for range 2 {
		must(t, os.Mkdir(dir, 0o755))
		if !lives() {
			t.Error("a cgroup that the node has not seen is another")
		}
		w.node.scopes.refresh()
		if h := w.held(); len(h) != 1 || len(h[0].Faults) != 0 || lives() {
			t.Errorf("there: %+v", h)
		}
		must(t, os.Remove(dir))
	}
	w.node.scopes.refresh()
	body.Mode, body.Serial = exeq.ScopeLift, 2
	must(t, w.declare(body))
	must(t, os.Mkdir(dir, 0o755))
	w.node.scopes.refresh()
	if !lives() {
		t.Error("lifted")
	}
}
