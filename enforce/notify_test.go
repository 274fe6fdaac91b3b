//go:build linux

package enforce

import (
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/exeq/exeq"
)

// slowGate does not rule on programs called slow until it may.
type slowGate struct {
	exeq.Gate
	asked, may chan struct{}
}

func (g *slowGate) Ask(ctx context.Context, a exeq.Activity) exeq.Ruling {
	if a.Action == exeq.ActionExec && strings.Contains(a.Resource.ID, "/slow") {
		g.asked <- struct{}{}
		<-g.may
	}
	return g.Gate.Ask(ctx, a)
}

// While rulings are waited for, everything else is answered.
func TestSlowRulingDelaysNobody(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	gate := &slowGate{b.gate, make(chan struct{}, 2), make(chan struct{})}
	for _, name := range []string{"slow-1", "slow-2", "other"} {
		b.copy("/bin/true", name)
	}
	b.setup = func(l *exeq.Launch) { l.Stdout, l.Stderr, l.Gate = a.w, a.w, gate }
	_, err := b.start("sh", "-c", `
		./slow-1 & ./slow-2 &
		for i in 1 2 3 4 5; do
			/bin/true; ./other; echo x >file; mv file moved; rm moved
			cp other copy; ./copy; rm copy
		done
		echo done; wait; echo end`)
	a.w.Close()
	if err != nil {
		t.Fatal(err)
	}
	<-gate.asked
	<-gate.asked
	if got := a.line(t); got != "done\n" {
		t.Errorf("it says %q (messages %q)", got, b.msgs.String())
	}
	close(gate.may)
	if got := a.line(t); got != "end\n" {
		t.Errorf("it says %q (messages %q)", got, b.msgs.String())
	}
}

// slowApprover takes its time to tell what a write would meet.
type slowApprover struct {
	approver
	looked, may chan struct{}
	blocked     atomic.Bool // once
}

func (s *slowApprover) Owns(mount uint64) bool {
	if s.blocked.CompareAndSwap(false, true) {
		close(s.looked)
		<-s.may
	}
	return s.approver.Owns(mount)
}

// A look that takes long (at a file system that does not answer, say) delays
// nobody for longer than a tick.
func TestSlowLookDelaysNobody(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	b.copy("/bin/true", "other")
	b.write("file", "", 0o644)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b.setup = func(l *exeq.Launch) { l.Stdin, l.Stdout, l.Stderr = in, a.w, a.w }
	run, err := b.start("sh", "-c", `
		./other; echo ready
		read go; echo x >file & # the file is there: looked at
		read go; /bin/true; ./other; rm file; echo done
		wait; echo end`)
	a.w.Close()
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	if got := a.line(t); got != "ready\n" {
		t.Fatal(got)
	}
	n := run.(*running).notify
	slow := &slowApprover{approver: n.approver, looked: make(chan struct{}), may: make(chan struct{})}
	n.mu.Lock() // as every worker does before it looks
	n.approver = slow
	n.mu.Unlock()
	io.WriteString(out, "go\n")
	<-slow.looked
	io.WriteString(out, "go\n")
	for range 2 {
		if _, err := run.Evidence(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.line(t); got != "done\n" {
		t.Errorf("it says %q (messages %q)", got, b.msgs.String())
	}
	waits := n.turns.now.Load()
	for range 5 {
		n.tick()
	}
	if n.turns.now.Load() != waits {
		t.Error("who waits lost the turn")
	}
	close(slow.may)
	if got := a.line(t); got != "end\n" {
		t.Errorf("it says %q (messages %q)", got, b.msgs.String())
	}
}
