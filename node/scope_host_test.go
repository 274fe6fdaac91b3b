//go:build linux

package node

import (
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/test/vm"
)

// TestScopeRehearsal: what keeps the host from being enforced. Nothing is
// declared.
func TestScopeRehearsal(t *testing.T) {
	host := exeq.Scope{Kind: exeq.ScopeHost}
	report := exeq.Digest{7}
	was := func(mode exeq.ScopeMode, trees ...string) *scope {
		return &scope{body: &exeq.ScopeBody{Scope: host, Mode: mode, Trees: trees}, report: newReport(1)}
	}
	enforce := func(change func(*exeq.ScopeBody)) *exeq.ScopeBody {
		b := &exeq.ScopeBody{Scope: host, Mode: exeq.ScopeEnforce, Trees: []string{"/usr"}, Rehearsal: report}
		if change != nil {
			change(b)
		}
		return b
	}
	day := &scopes{signed: map[exeq.Digest]rehearsed{report: {host, 24 * time.Hour}, {8}: {host, 23 * time.Hour}, {9}: {overUser, 48 * time.Hour}}}
	for name, c := range map[string]struct {
		was  *scope
		body *exeq.ScopeBody
		ok   bool
	}{
		"nothing before":                {nil, enforce(nil), false},
		"lifted before":                 {&scope{body: &exeq.ScopeBody{Scope: host, Mode: exeq.ScopeLift}}, enforce(nil), false},
		"no report":                     {was(exeq.ScopeRehearse, "/usr"), enforce(func(b *exeq.ScopeBody) { b.Rehearsal = exeq.Digest{} }), false},
		"a report that nobody gave":     {was(exeq.ScopeRehearse, "/usr"), enforce(func(b *exeq.ScopeBody) { b.Rehearsal = exeq.Digest{1} }), false},
		"of another scope":              {was(exeq.ScopeRehearse, "/usr"), enforce(func(b *exeq.ScopeBody) { b.Rehearsal = exeq.Digest{9} }), false},
		"for less than a day":           {was(exeq.ScopeRehearse, "/usr"), enforce(func(b *exeq.ScopeBody) { b.Rehearsal = exeq.Digest{8} }), false},
		"for less than it says":         {was(exeq.ScopeRehearse, "/usr"), enforce(func(b *exeq.ScopeBody) { b.RehearsalMillis = (25 * time.Hour).Milliseconds() }), false},
		"lived by more":                 {was(exeq.ScopeRehearse, "/opt", "/usr"), enforce(nil), false},
		"enforced, and now by less":     {was(exeq.ScopeEnforce, "/opt", "/usr"), enforce(func(b *exeq.ScopeBody) { b.Rehearsal = exeq.Digest{} }), false},
		"for a day":                     {was(exeq.ScopeRehearse, "/usr"), enforce(nil), true},
		"for as long as it says":        {was(exeq.ScopeRehearse, "/usr"), enforce(func(b *exeq.ScopeBody) { b.Rehearsal, b.RehearsalMillis = exeq.Digest{8}, time.Hour.Milliseconds() }), true},
		"and lives by more now":         {was(exeq.ScopeRehearse), enforce(nil), true},
		"enforced, and now by more":     {was(exeq.ScopeEnforce), enforce(func(b *exeq.ScopeBody) { b.Rehearsal = exeq.Digest{} }), true},
		"without, and it says so":       {nil, enforce(func(b *exeq.ScopeBody) { b.Rehearsal, b.WithoutRehearsal = exeq.Digest{}, true }), true},
		"rehearsed":                     {nil, enforce(func(b *exeq.ScopeBody) { b.Mode = exeq.ScopeRehearse }), true},
		"a user, which needs no report": {nil, enforce(func(b *exeq.ScopeBody) { b.Scope = overUser }), true},
	} {
		err := day.wasRehearsed(c.was, c.body)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, wire.ErrRehearsal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A rehearsal goes on under a statement that only adds, and begins anew under
	// another.
	old := was(exeq.ScopeRehearse, "/usr")
	old.report.kept.Rehearsed = time.Hour
	if r := nextReport(old, was(exeq.ScopeRehearse, "/opt", "/usr")); r.kept.Rehearsed != time.Hour {
		t.Errorf("lives by more: %v", r.kept.Rehearsed)
	}
	if r := nextReport(old, was(exeq.ScopeRehearse, "/opt")); r.kept.Rehearsed != 0 {
		t.Errorf("lives by other things: %v", r.kept.Rehearsed)
	}
	if r := nextReport(old, was(exeq.ScopeEnforce, "/usr")); r.kept.Rehearsed != 0 {
		t.Errorf("enforced: %v", r.kept.Rehearsed)
	}
}

// TestScopeHost: the host, root included, after a rehearsal; executions under
// permits go on. Only in a machine of its own.
func TestScopeHost(t *testing.T) {
	if _, err := os.Stat("/job.json"); err != nil || os.Getppid() != 1 {
		t.Skip("not in the machine of test/vm: a host scope would hold everybody here")
	}
	w := newScopeWorld(t)
	body := w.over(exeq.ScopeRehearse, 1)
	body.Scope = exeq.Scope{Kind: exeq.ScopeHost}
	for _, name := range []string{"sh", "sleep", "unshare"} {
		p, err := exec.LookPath(name)
		must(t, err)
		p, err = filepath.EvalSymlinks(p)
		must(t, err)
		body.Programs = append(body.Programs, exeq.ScopeProgram{Path: p, SHA256: digestOf(t, p)})
	}
	slices.SortFunc(body.Programs, func(a, b exeq.ScopeProgram) int { return strings.Compare(a.Path, b.Path) })
	must(t, w.declare(body))
	if !w.lives(0) {
		t.Error("rehearsed, and it denies")
	}
	rehearsal := func() (r *exeq.ScopeReport, sum exeq.Digest) {
		t.Helper()
		a, err := w.ask(wire.Request{Report: &body.Scope})
		must(t, err)
		b, err := canon.Marshal(a.Report)
		must(t, err)
		return a.Report, sha256.Sum256(b)
	}
	r, sum := rehearsal()
	body.Mode, body.Serial, body.Rehearsal = exeq.ScopeEnforce, 2, sum
	refused(t, w.declare(body), wire.ErrRehearsal)
	if !w.lives(0) {
		t.Fatal("enforced without a rehearsal")
	}
	for end := time.Now().Add(time.Minute); r.RehearsedMillis < 1000 || len(r.Attempts) == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", r)
		}
		r, body.Rehearsal = rehearsal()
	}
	if a := r.Attempts[0]; a.Path != "/usr/bin/echo" || a.UID != 0 || a.SHA256 != digestOf(t, "/usr/bin/echo") {
		t.Errorf("%+v", r.Attempts)
	}
	body.RehearsalMillis = 1000
	must(t, w.declare(body))
	for _, uid := range []int{0, governedUser} {
		if w.lives(uid) {
			t.Errorf("user %d", uid)
		}
	}
	w.enclosed() // by programs that the host lives by, and with the gate's canaries
	w.stop()
	if w.lives(0) {
		t.Error("no node")
	}
	w.start()
	if w.lives(0) {
		t.Error("restarted")
	}
	body = w.over(exeq.ScopeLift, 3)
	body.Scope = exeq.Scope{Kind: exeq.ScopeHost}
	must(t, w.declare(body))
	if !w.lives(0) {
		t.Error("lifted")
	}
}

// TestKernels runs what would hold this machine under Debian's kernels.
func TestKernels(t *testing.T) {
	var files []string
	for _, name := range []string{"sh", "sleep", "unshare", "echo"} {
		p, err := exec.LookPath(name)
		must(t, err)
		real, err := filepath.EvalSymlinks(p)
		must(t, err)
		files = append(files, p, real, "/usr/bin/"+name)
	}
	for _, k := range vm.Kernels() {
		t.Run(k, func(t *testing.T) {
			t.Parallel()
			vm.Test(t, vm.Tests{Kernel: k, Run: "^TestScopeHost$", Files: files, Timeout: 10 * time.Minute})
		})
	}
}
