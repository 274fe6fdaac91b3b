//go:build linux

package peers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/record"
)

// logged is a record with its log.
type logged struct {
	dir   string
	keys  *keyring.Ring
	store *record.Store
	ids   []string
	raw   map[string][]byte
}

func openRecord(t *testing.T, dir string) *logged {
	t.Helper()
	keys, _, err := keyring.OpenOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := record.Open(t.Context(), record.Config{Dir: dir, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &logged{dir: dir, keys: keys, store: store, raw: map[string][]byte{}}
}

// grow records n leaves and waits until they are in the log.
func (l *logged) grow(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := range n {
		e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindDenial, Execution: exeq.NewID(), Body: exeq.LeafBody{Verdict: exeq.Deny, Policies: []string{}, Code: "policy"}},
			map[string]any{"reason": fmt.Sprint(i)}, l.keys.Signer(exeq.RoleIssuer))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.store.Record(ctx, e); err != nil {
			t.Fatal(err)
		}
		l.ids, l.raw[e.Leaf.ID] = append(l.ids, e.Leaf.ID), e.Bytes
	}
	if err := l.store.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

func (l *logged) checkpoint(t *testing.T) []byte {
	t.Helper()
	b, err := l.store.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// policy is a C2SP policy that trusts the log alone.
func (l *logged) policy() []byte {
	return []byte("log " + l.keys.VerifierKey(exeq.RoleLog) + "\nquorum none\n")
}

// TestTesseraFsck: Tessera's own checker rebuilds the log from its entries.
func TestTesseraFsck(t *testing.T) {
	l := openRecord(t, t.TempDir())
	l.grow(t, 40)
	check := func() error {
		v, err := note.NewVerifier(l.keys.VerifierKey(exeq.RoleLog))
		if err != nil {
			t.Fatal(err)
		}
		f := fsck.New(l.keys.Origin(), v, &client.FileFetcher{Root: filepath.Join(l.dir, "log")}, leafHashes, fsck.Opts{N: 1})
		return f.Check(t.Context())
	}
	if err := check(); err != nil {
		t.Fatalf("fsck refuses the log: %v", err)
	}
	flip(t, filepath.Join(l.dir, "log", "tile", "entries"))
	if err := check(); err == nil {
		t.Error("fsck takes a log with a flipped byte")
	}
}

// leafHashes is the default of tlog-tiles: entries behind 16-bit lengths.
func leafHashes(bundle []byte) ([][]byte, error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	out := make([][]byte, len(b.Entries))
	for i, e := range b.Entries {
		out[i] = rfc6962.DefaultHasher.HashLeaf(e)
	}
	return out, nil
}

// flip changes one bit in the largest file below dir.
func flip(t *testing.T, dir string) {
	t.Helper()
	var largest string
	var size int64
	err := filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if err == nil && !i.IsDir() && i.Size() > size {
			largest, size = p, i.Size()
		}
		return err
	})
	if err != nil || largest == "" {
		t.Fatal("nothing to damage", err)
	}
	b, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(largest, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTorchwood: an implementation apart from Tessera verifies receipts, reads
// the whole log, and proves that it extends an earlier checkpoint.
func TestTorchwood(t *testing.T) {
	torchwood := build(t, "torchwood", ".")
	l := openRecord(t, t.TempDir())
	l.grow(t, 7)
	dir := t.TempDir()
	policy := write(t, dir, "policy", l.policy())
	early := write(t, dir, "checkpoint", l.checkpoint(t))
	l.grow(t, 300) // over the edge of a tile
	if out, ok := run(t, nil, torchwood, "log", policy, filepath.Join(l.dir, "log"), early); !ok {
		t.Fatalf("torchwood refuses the log:\n%s", out)
	}
	receipts, err := l.store.Receipts(t.Context(), l.ids[0], l.ids[150])
	if err != nil {
		t.Fatal(err)
	}
	leaf := write(t, dir, "leaf", l.raw[l.ids[150]])
	for i, want := range []bool{false, true} { // the first is another leaf's
		if out, ok := run(t, nil, torchwood, "receipt", policy, leaf, write(t, dir, "receipt", []byte(receipts[i].Proof))); ok != want {
			t.Errorf("receipt %d: accepted %v\n%s", i, ok, out)
		}
	}
	fork := openRecord(t, rolledBack(t, l))
	fork.grow(t, 3)
	if out, ok := run(t, nil, torchwood, "log", policy, filepath.Join(fork.dir, "log"), write(t, dir, "late", l.checkpoint(t))); ok {
		t.Errorf("torchwood takes a log that does not extend the one seen:\n%s", out)
	}
}

// rolledBack makes a state with the same keys and an empty record: what an
// operator has who starts again.
func rolledBack(t *testing.T, l *logged) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "keys"), os.DirFS(filepath.Join(l.dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "keys", "*.key"))
	if err != nil || len(keys) == 0 {
		t.Fatal("no keys were copied", err)
	}
	for _, k := range keys {
		if err := os.Chmod(k, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sizeOf reads the size of a checkpoint.
func sizeOf(t *testing.T, checkpoint []byte) int64 {
	t.Helper()
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(text+"\n", "\n", 2)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return tree.N
}
