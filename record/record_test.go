package record

import (
	"context"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

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

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// chain makes the leaves of one whole execution.
func chain(t testing.TB, keys *keyring.Ring, kinds ...exeq.Kind) []exeq.Entry {
	t.Helper()
	id := exeq.NewID()
	var out []exeq.Entry
	var prev exeq.Digest
	for i, k := range kinds {
		private := map[string]any{"note": "value of " + string(k)}
		var key exeq.Signer
		body := exeq.LeafBody{}
		switch k {
		case exeq.KindPermit:
			body.Verdict, body.Policies = exeq.Allow, []string{"p"}
		case exeq.KindEnd:
			body.Code = "exited"
			key = keys.Signer(exeq.RoleNode)
		default:
			key = keys.Signer(exeq.RoleNode)
		}
		e, err := exeq.NewEntry(exeq.Leaf{Kind: k, Execution: id, Seq: i, Prev: prev, Body: body}, private, key)
		if err != nil {
			t.Fatal(err)
		}
		prev = exeq.LeafHash(e.Bytes)
		out = append(out, e)
	}
	return out
}

func TestRecordDrainReceipt(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t, 20*time.Second)
	es := chain(t, keys, exeq.KindPermit, exeq.KindStart, exeq.KindEnd)
	for _, e := range es {
		if _, err := s.Record(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := s.Leaves(ctx, es[0].Leaf.Execution)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d leaves, %v", len(got), err)
	}
	for i, g := range got {
		if string(g.Bytes) != string(es[i].Bytes) || g.Index != int64(i) || len(g.Disclosures) != 1 {
			t.Errorf("leaf %d: %+v", i, g)
		}
	}
	rs, err := s.Receipts(ctx, es[0].Leaf.ID, es[2].Leaf.ID)
	if err != nil || len(rs) != 2 {
		t.Fatal(rs, err)
	}
	if err := s.Fsck(ctx); err != nil {
		t.Error(err)
	}
}

func BenchmarkOpenRecordClose(b *testing.B) {
	dir, keys := newState(b)
	openStore(b, dir, keys).Close()
	ctx := context.Background()
	for b.Loop() {
		s, err := Open(ctx, Config{Dir: dir, Keys: keys})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Record(ctx, chain(b, keys, exeq.KindPermit)[0]); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
