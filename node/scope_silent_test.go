//go:build linux

package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
)

// TestScopeSilent: a file system that answers nothing, where a statement or a
// report looks, holds up neither who declares, nor the reader of attempts, nor
// who lifts.
func TestScopeSilent(t *testing.T) {
	w := newScopeWorld(t)
	dir := reachable(t)
	at := filepath.Join(dir, "user")
	must(t, os.Mkdir(at, 0o755))
	prog := filepath.Join(at, "file")
	echo(t, prog)
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("user/file", link))
	body := w.over(exeq.ScopeRehearse, 1)
	body.Programs = []exeq.ScopeProgram{{Path: prog, SHA256: digestOf(t, prog)}}
	must(t, w.declare(body))

	s := silentAt(t, at)
	s.mute.Store(true)
	blocked := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		blocked <- unix.Stat(prog, &st)
	}()
	select {
	case err := <-blocked:
		t.Fatalf("stat: %v: the attack is none", err)
	case <-time.After(time.Second / 2):
	}
	in := func(what string, do func()) {
		t.Helper()
		done := make(chan struct{})
		go func() {
			defer close(done)
			do()
		}()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			s.end()
			<-done
			t.Errorf("%s: held up", what)
		}
	}
	in("the node's looks", w.node.scopes.refresh)
	in("list", func() {
		if h := w.held(); len(h) != 1 || len(h[0].Faults) != 1 || !strings.Contains(h[0].Faults[0], bpf.ErrTheirs.Error()) {
			t.Errorf("%+v", h)
		}
	})
	for _, name := range []string{prog, link} {
		in("an attempt", func() {
			w.node.scopes.saw(bpf.Attempt{Scope: w.node.scopes.held[overUser].at, Verdict: bpf.ScopeWould, Why: "absent", Name: name, PID: 1 << 30})
		})
	}
	for _, p := range []string{prog, filepath.Join(at, "below", "file")} {
		in("declare a program", func() {
			body := w.over(exeq.ScopeRehearse, 2)
			body.Programs = []exeq.ScopeProgram{{Path: p, SHA256: exeq.Digest{1}}}
			refused(t, w.declare(body), wire.ErrScopeLife)
		})
		in("declare a tree", func() {
			body := w.over(exeq.ScopeRehearse, 2)
			body.Trees = []string{p}
			refused(t, w.declare(body), wire.ErrScopeLife)
		})
	}
	in("lift", func() { must(t, w.declare(w.over(exeq.ScopeLift, 3))) })
}
