//go:build linux

package record

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/permit"
)

// TestMain lets the test binary be the child of the crash and fault tests.
func TestMain(m *testing.M) {
	if mode := os.Getenv("EXEQ_RECORD_CHILD"); mode != "" {
		os.Exit(child(mode, os.Getenv("EXEQ_RECORD_DIR")))
	}
	os.Exit(m.Run())
}

// newState makes a state directory with keys.
func newState(t testing.TB) (string, *keyring.Ring) {
	t.Helper()
	dir := t.TempDir()
	keys, err := keyring.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, keys
}

func openStore(t testing.TB, dir string, keys *keyring.Ring) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{Dir: dir, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// within bounds what a test waits for; on a loaded machine it is long.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// chain makes the leaves of one execution.
func chain(t testing.TB, keys *keyring.Ring, kinds ...exeq.Kind) []exeq.Entry {
	t.Helper()
	es, err := newChain(keys, kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func newChain(keys *keyring.Ring, kinds ...exeq.Kind) ([]exeq.Entry, error) {
	id := exeq.NewID()
	var out []exeq.Entry
	var prev exeq.Digest
	for i, k := range kinds {
		private := map[string]any{"note": "secret of " + string(k)}
		key := keys.Signer(exeq.RoleNode)
		body := exeq.LeafBody{}
		switch k {
		case exeq.KindPermit:
			body.Verdict, body.Policies, key = exeq.Allow, []string{"p"}, nil
		case exeq.KindEnd:
			body.Code = "exited"
		}
		e, err := exeq.NewEntry(exeq.Leaf{Kind: k, Execution: id, Seq: i, Prev: prev, Body: body}, private, key)
		if err != nil {
			return nil, err
		}
		prev = exeq.LeafHash(e.Bytes)
		out = append(out, e)
	}
	return out, nil
}

var whole = []exeq.Kind{exeq.KindPermit, exeq.KindStart, exeq.KindAppraisal, exeq.KindEnd}

// sound insists that store and log check out.
func sound(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Fsck(within(t)); err != nil {
		t.Errorf("fsck: %v", err)
	}
}

func TestRecordDrainReceipt(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	es := chain(t, keys, whole...)
	for i, e := range es {
		ps, err := s.Record(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := permit.CheckPromise(keys.NoteVerifier(exeq.RolePromise), &ps[0], e.Bytes); err != nil {
			t.Errorf("promise of leaf %d: %v", i, err)
		}
	}
	if n, _, err := s.Lag(ctx); err != nil || n != len(es) {
		t.Errorf("before draining %d leaves wait, %v", n, err)
	}
	if _, err := s.Receipts(ctx, es[0].Leaf.ID); !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("a receipt of what is not in the log: %v", err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if n, _, err := s.Lag(ctx); err != nil || n != 0 {
		t.Errorf("after draining %d leaves wait, %v", n, err)
	}
	got, err := s.Leaves(ctx, es[0].Leaf.Execution)
	if err != nil || len(got) != len(es) {
		t.Fatalf("%d leaves, %v", len(got), err)
	}
	for i, g := range got {
		if string(g.Bytes) != string(es[i].Bytes) || g.Index != int64(i) || g.Row != int64(i+1) || len(g.Disclosures) != 1 || g.Leaf.ID != es[i].Leaf.ID {
			t.Errorf("leaf %d: %+v", i, g)
		}
		if _, err := permit.CheckPromise(keys.NoteVerifier(exeq.RolePromise), &g.Promise, g.Bytes); err != nil {
			t.Errorf("stored promise of leaf %d: %v", i, err)
		}
	}
	rs, err := s.Receipts(ctx, es[0].Leaf.ID, es[3].Leaf.ID)
	if err != nil || len(rs) != 2 {
		t.Fatal(rs, err)
	}
	for i, r := range rs {
		checkReceipt(t, keys, r.Proof, es[3*i].Bytes, int64(3*i), 4)
	}
	sound(t, s)
	strangerChecks(t, dir, keys, 4)
}

// TestGroups: what many callers record at once is all there, in order within
// each call, each under a promise that verifies.
func TestGroups(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	const callers = 64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			es, err := newChain(keys, whole...)
			if err != nil {
				t.Error(err)
				return
			}
			ps, err := s.Record(ctx, es...)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range es {
				if _, err := permit.CheckPromise(keys.NoteVerifier(exeq.RolePromise), &ps[i], es[i].Bytes); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all, err := s.Follow(ctx, 0, 10_000)
	if err != nil || len(all) != callers*len(whole) {
		t.Fatalf("%d leaves, %v", len(all), err)
	}
	for i, l := range all {
		if l.Row != int64(i+1) {
			t.Fatalf("row %d at %d", l.Row, i)
		}
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
}

// TestTakenPlaces: a leaf id and a place in a chain are taken once; who comes
// second fails alone and leaves nothing behind.
func TestTakenPlaces(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	es := chain(t, keys, exeq.KindPermit, exeq.KindStart)
	if _, err := s.Record(ctx, es...); err != nil {
		t.Fatal(err)
	}
	fork := es[1]
	fork.Leaf.ID = ""
	other, err := exeq.NewEntry(fork.Leaf, map[string]any{"note": "another start"}, keys.Signer(exeq.RoleNode))
	if err != nil {
		t.Fatal(err)
	}
	good := chain(t, keys, whole...)
	for name, call := range map[string][]exeq.Entry{
		"the same leaf again":          {es[1]},
		"another leaf at its place":    {other},
		"good ones before a taken one": {good[0], good[1], es[0]},
	} {
		if _, err := s.Record(ctx, call...); !errors.Is(err, exeq.ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// In one group with good calls the bad one fails alone.
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if i%2 == 0 {
				if _, err := s.Record(ctx, other); !errors.Is(err, exeq.ErrRecord) {
					t.Errorf("a taken place: %v", err)
				}
				return
			}
			es, err := newChain(keys, whole...)
			if err == nil {
				_, err = s.Record(ctx, es...)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Record(ctx, good...); err != nil {
		t.Errorf("leaves of a call that failed were kept: %v", err)
	}
	if last, err := s.Last(ctx); err != nil || last != 2+16*4+4 {
		t.Errorf("%d leaves, %v", last, err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
}

func TestClockBack(t *testing.T) {
	dir, keys := newState(t)
	now := time.Now()
	s, err := Open(context.Background(), Config{Dir: dir, Keys: keys, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := within(t)
	record := func(k ...exeq.Kind) error {
		_, err := s.Record(ctx, chain(t, keys, k...)...)
		return err
	}
	if err := record(exeq.KindPermit); err != nil {
		t.Fatal(err)
	}
	latest := now
	// Small steps back do not add up: the latest recorded time stands.
	for range 3 {
		now = now.Add(-2 * time.Second)
		err := record(exeq.KindPermit)
		if late := latest.Sub(now) > exeq.MaxClockStepBack; late != errors.Is(err, exeq.ErrClock) {
			t.Errorf("%v back: %v", latest.Sub(now), err)
		}
	}
	if err := record(exeq.KindPermit, exeq.KindStart); !errors.Is(err, exeq.ErrClock) || !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("a start: %v", err)
	}
	if err := s.Burn(ctx, exeq.NewID(), "n", exeq.At(now)); !errors.Is(err, exeq.ErrClock) {
		t.Errorf("a burn: %v", err)
	}
	if err := record(exeq.KindDenial); err != nil {
		t.Errorf("a denial grants nothing and goes: %v", err)
	}
	now = latest
	if err := record(exeq.KindPermit); err != nil {
		t.Errorf("the clock is right again: %v", err)
	}
}

// TestLag: a log that does not follow keeps new permits out, nothing else.
func TestLag(t *testing.T) {
	dir, keys := newState(t)
	now := time.Now()
	s, err := Open(context.Background(), Config{Dir: dir, Keys: keys, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := within(t)
	es := chain(t, keys, whole...)
	if _, err := s.Record(ctx, es[0]); err != nil {
		t.Fatal(err)
	}
	// First it slows them down.
	now = now.Add(exeq.MaxMergeDelay - time.Second)
	for range 2 { // the second knows what the first saw
		if _, err := s.Record(ctx, chain(t, keys, exeq.KindPermit)...); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Record(gone, chain(t, keys, exeq.KindPermit)...); !errors.Is(err, exeq.ErrRecord) || !errors.Is(err, context.Canceled) {
		t.Errorf("a permit that nobody waits for any more: %v", err)
	}
	if was, last := pace(exeq.MaxMergeDelay/2), pace(exeq.MaxMergeDelay-time.Second); was != 0 || last <= 0 || last > maxPace || pace(time.Hour) != maxPace {
		t.Errorf("permits wait %v at half of the delay, %v near its end, %v far behind it", was, last, pace(time.Hour))
	}
	now = now.Add(2 * time.Second)
	fresh := chain(t, keys, exeq.KindPermit)
	if _, err := s.Record(ctx, fresh...); !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("a permit while the log lags: %v", err)
	}
	if _, err := s.Record(ctx, es[1:]...); err != nil {
		t.Errorf("what runs goes on: %v", err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(ctx, fresh...); err != nil {
		t.Errorf("a permit when the log followed: %v", err)
	}
}

func TestBurn(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	id := exeq.NewID()
	until := exeq.At(time.Now().Add(time.Minute))
	if err := s.Burn(ctx, id, "aa", until); err != nil {
		t.Fatal(err)
	}
	for _, nonce := range []string{"aa", "bb"} {
		if err := s.Burn(ctx, id, nonce, until); !errors.Is(err, exeq.ErrReplayed) {
			t.Errorf("again with %s: %v", nonce, err)
		}
	}
	if err := s.Burn(ctx, "", "aa", until); !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("no permit: %v", err)
	}
	s.Close()
	if err := s.Burn(ctx, exeq.NewID(), "aa", until); !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("after close: %v", err)
	}
	s = openStore(t, dir, keys)
	if err := s.Burn(ctx, id, "aa", until); !errors.Is(err, exeq.ErrReplayed) {
		t.Errorf("after opening again: %v", err)
	}
}

// TestEpoch: processes that have the store open together share an epoch;
// whoever opens it alone, or finds the burn list gone, has another.
func TestEpoch(t *testing.T) {
	dir, keys := newState(t)
	a := openStore(t, dir, keys)
	b := openStore(t, dir, keys)
	first := a.Epoch()
	if first == "" || first != b.Epoch() {
		t.Errorf("epochs %q and %q", first, b.Epoch())
	}
	a.Close()
	if c := openStore(t, dir, keys); c.Epoch() != first {
		t.Errorf("epoch changed to %q while b is open", c.Epoch())
	} else {
		c.Close()
	}
	for _, f := range []string{"store.db", "store.db-wal", "store.db-shm"} {
		if err := os.Remove(dir + "/" + f); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if c := openStore(t, dir, keys); c.Epoch() == first {
		t.Error("the burn list was deleted and the epoch is the same")
	} else {
		c.Close()
	}
	b.Close()
	if c := openStore(t, dir, keys); c.Epoch() == first {
		t.Error("opened alone and the epoch is the same")
	}
}

// TestRotatedKeys: what retired keys signed goes on verifying, and what is
// recorded after a rotation is signed by the new ones.
func TestRotatedKeys(t *testing.T) {
	dir, keys := newState(t)
	ctx := within(t)
	for _, role := range []string{exeq.RolePromise, exeq.RoleNode, exeq.RoleIssuer} {
		s := openStore(t, dir, keys)
		if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
			t.Fatal(err)
		}
		rotated, err := keyring.Rotate(dir, role, keyring.EventRetire, func(e exeq.Entry) error {
			_, err := s.Record(ctx, e)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		keys = rotated
	}
	s := openStore(t, dir, keys)
	es := chain(t, keys, whole...)
	ps, err := s.Record(ctx, es...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := permit.CheckPromise(keys.NoteVerifier(exeq.RolePromise), &ps[0], es[0].Bytes); err != nil {
		t.Error(err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
}
