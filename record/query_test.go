//go:build linux

package record

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// TestExecutions: the lists follow an execution through its states.
func TestExecutions(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	es := chain(t, keys, whole...)
	denied := chain(t, keys, exeq.KindDenial)
	if _, err := s.Record(ctx, denied...); err != nil {
		t.Fatal(err)
	}
	id := es[0].Leaf.Execution
	for i, want := range []struct {
		state   exeq.State
		running int
	}{{exeq.Recorded, 0}, {exeq.Live, 1}, {exeq.Live, 1}, {exeq.Sealed, 0}} {
		if _, err := s.Record(ctx, es[i]); err != nil {
			t.Fatal(err)
		}
		all, err := s.Executions(ctx, 0)
		if err != nil || len(all) != 2 || all[0].ID != id || all[1].State != exeq.Denied {
			t.Fatalf("%+v, %v", all, err)
		}
		if all[0].State != want.state || all[0].Leaves != i+1 {
			t.Errorf("after leaf %d: %+v", i, all[0])
		}
		running, err := s.Running(ctx)
		if err != nil || len(running) != want.running {
			t.Errorf("after leaf %d running: %+v, %v", i, running, err)
		}
		if want.running == 1 && running[0].PID != os.Getpid() {
			t.Errorf("owned by %d", running[0].PID)
		}
	}
	if all, err := s.Executions(ctx, 1); err != nil || len(all) != 1 || all[0].Code != "exited" || all[0].Started.IsZero() || all[0].Ended.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestLost: an execution whose owner is dead is sealed once, by the node key,
// as the next leaf of its chain; one whose owner lives, or cannot be judged
// from here, is left alone.
func TestLost(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	started := func(o owner) string {
		es := chain(t, keys, exeq.KindPermit, exeq.KindStart)
		if _, err := s.Record(ctx, es...); err != nil {
			t.Fatal(err)
		}
		err := s.write(ctx, func(w *writer, _ *state) error {
			_, err := w.exec(sqlOwn, es[0].Leaf.Execution, o.pid, o.started, o.boot, o.pidns)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return es[0].Leaf.Execution
	}
	with := func(change func(*owner)) owner { o := me; change(&o); return o }
	gone := map[string]bool{
		started(with(func(o *owner) { o.started = "1" })):  true, // the pid was used again
		started(with(func(o *owner) { o.boot = "other" })): true, // before a reboot
		started(with(func(o *owner) { o.pid = 1 << 30 })):  true, // no such process
		started(me): false,
		started(with(func(o *owner) { o.pidns = "pid:[1]" })): false, // in a container
	}
	s.Close()
	s = openStore(t, dir, keys)
	r, err := s.Recover(ctx)
	if err != nil || len(r.Lost) != 3 || len(r.Findings()) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	for id, want := range gone {
		ls, err := s.Leaves(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		last := ls[len(ls)-1].Leaf
		if got := last.Kind == exeq.KindEnd && last.Body.Code == "lost" && last.Key == keys.Signer(exeq.RoleNode).KeyID(); got != want {
			t.Errorf("%s: sealed %v, want %v", id, got, want)
		}
	}
	if again, err := s.Recover(ctx); err != nil || len(again.Lost) != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	sound(t, s)
}

// TestErase: erased disclosures are gone from the files, not only from sight.
func TestErase(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	var ids []string
	for range 40 {
		es := chain(t, keys, whole...)
		if _, err := s.Record(ctx, es...); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, es[0].Leaf.Execution)
	}
	victim, err := s.Leaves(ctx, ids[20])
	if err != nil {
		t.Fatal(err)
	}
	salt := []byte(victim[1].Disclosures[0].Salt)
	inFiles := func() (found []string) {
		paths, err := filepath.Glob(filepath.Join(dir, "store.db*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err == nil && bytes.Contains(b, salt) {
				found = append(found, p)
			}
		}
		return found
	}
	if len(inFiles()) == 0 {
		t.Fatal("the salt is nowhere: the control fails")
	}
	if err := s.EraseDisclosures(ctx, ids[20]); err != nil {
		t.Fatal(err)
	}
	if found := inFiles(); len(found) > 0 {
		t.Errorf("the salt is still in %v", found)
	}
	for _, id := range ids {
		ls, err := s.Leaves(ctx, id)
		if err != nil || len(ls) != len(whole) {
			t.Fatalf("%d leaves, %v", len(ls), err)
		}
		if erased := len(ls[1].Disclosures) == 0; erased != (id == ids[20]) {
			t.Errorf("%s: erased %v", id, erased)
		}
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
}

func TestDecisions(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	request := &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "a"}, Action: exeq.ActionRun,
		Resource: exeq.Resource{Type: "Program", ID: "/bin/é", SHA256: exeq.Digest{1}}, Argv: []string{"x", "<>&\u2028"},
	}
	in := &exeq.Inputs{Tier: exeq.TierRootless, Session: exeq.Session{Labels: []string{"l"}}, Time: exeq.At(time.Now())}
	var ids []string
	for i, v := range []exeq.Verdict{exeq.Allow, exeq.Deny, exeq.StepUp} {
		kind, key := exeq.KindDenial, keys.Signer(exeq.RoleIssuer)
		if v.Permits() {
			kind, key = exeq.KindPermit, nil
		}
		d := exeq.Decision{Verdict: v, Policies: []string{"p"}}
		e, err := exeq.NewEntry(exeq.Leaf{Kind: kind, Execution: exeq.NewID(), Body: exeq.LeafBody{Verdict: v}},
			map[string]any{"request": request, "inputs": in, "decision": d, "other": i}, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(ctx, append([]exeq.Entry{e}, chain(t, keys, exeq.KindPermit)...)...); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.Leaf.Execution)
	}
	collect := func(after int64, limit int) (out []*Decision) {
		err := s.Decisions(ctx, after, func(d *Decision) bool { out = append(out, d); return len(out) < limit })
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	all := collect(0, 10)
	if len(all) != 3 {
		t.Fatalf("%d decisions", len(all))
	}
	for i, d := range all {
		a, _ := d.Request.ActionDigest()
		b, _ := request.ActionDigest()
		x, _ := d.Inputs.Digest()
		y, _ := in.Digest()
		if d.Execution != ids[i] || a != b || x != y || len(d.Decision.Policies) != 1 || d.Time.IsZero() {
			t.Errorf("%+v", d)
		}
	}
	if rest := collect(all[0].Row, 1); len(rest) != 1 || rest[0].Execution != ids[1] {
		t.Errorf("behind the first: %+v", rest)
	}
	if err := s.EraseDisclosures(ctx, ids[1]); err != nil {
		t.Fatal(err)
	}
	if left := collect(0, 10); len(left) != 2 {
		t.Errorf("%d decisions after one was erased", len(left))
	}
}

func TestBlobs(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	d, err := s.PutBlob(ctx, []byte("policy"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.PutBlobAs(ctx, exeq.Digest{9}, []byte("set")); err != nil {
			t.Fatal(err)
		}
	}
	for d, want := range map[exeq.Digest]string{d: "policy", {9}: "set"} {
		if b, err := s.Blob(ctx, d); err != nil || string(b) != want {
			t.Errorf("%q, %v", b, err)
		}
	}
	if _, err := s.Blob(ctx, exeq.Digest{8}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such blob: %v", err)
	}
	if _, err := s.Leaf(ctx, exeq.NewID()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such leaf: %v", err)
	}
}

// TestFollow: a follower in one store sees what another records, in order and
// once.
func TestFollow(t *testing.T) {
	dir, keys := newState(t)
	s, other := openStore(t, dir, keys), openStore(t, dir, keys)
	ctx := within(t)
	const n = 20
	go func() {
		for range n {
			es, err := newChain(keys, whole...)
			if err == nil {
				_, err = other.Record(ctx, es...)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	var cursor int64
	for cursor < n*int64(len(whole)) {
		if err := s.Wait(ctx, cursor); err != nil {
			t.Fatal(err)
		}
		ls, err := s.Follow(ctx, cursor, 7)
		if err != nil || len(ls) == 0 {
			t.Fatalf("%d leaves behind %d, %v", len(ls), cursor, err)
		}
		for _, l := range ls {
			if cursor++; l.Row != cursor {
				t.Fatalf("row %d, want %d", l.Row, cursor)
			}
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Wait(ended, cursor); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for nothing: %v", err)
	}
}

// TestConsistency: any older size is a prefix of any newer one.
func TestConsistency(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	var sizes []int64
	for range 3 {
		for range 70 {
			if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		cp, err := s.log.checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, cp.tree.N)
	}
	for i, older := range sizes {
		for _, newer := range sizes[i:] {
			if p, err := s.Consistency(ctx, older, newer); err != nil || (len(p) == 0) != (older == newer) {
				t.Errorf("%d to %d: %d hashes, %v", older, newer, len(p), err)
			}
		}
	}
	if _, err := s.Consistency(ctx, 1, sizes[2]+1); err == nil {
		t.Error("a proof of a size that is not published")
	}
	latest := s.Latest()
	if size, root, ok := strings.Cut(latest, ":"); !ok || size != "840" || len(root) != 64 {
		t.Errorf("latest is %q", latest)
	}
	// What became full has left no partial versions behind.
	partial, err := filepath.Glob(filepath.Join(dir, "log", "tile", "*", "*.p"))
	if err != nil || len(partial) > 3 {
		t.Errorf("partial tiles left: %v, %v", partial, err)
	}
	sound(t, s)
}

// TestWhenBehind: a process that does not sequence has another drain for it.
func TestWhenBehind(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.WhenBehind(ctx, func(ctx context.Context) error {
			err := s.Drain(ctx)
			select {
			case drained <- err:
			default:
			}
			return err
		})
	}()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n, _, err := s.Lag(ctx); err != nil || n != 0 {
		t.Errorf("%d leaves wait, %v", n, err)
	}
	cancel()
	<-done
}
