//go:build linux

package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// dump is everything that a store says, to be compared.
func dump(t testing.TB, s *Store) string {
	t.Helper()
	ctx := within(t)
	var b strings.Builder
	all, err := s.Follow(ctx, 0, 1<<20)
	if err != nil {
		return err.Error()
	}
	for _, l := range all {
		fmt.Fprintf(&b, "%d %s %v\n", l.Row, l.Bytes, l.Disclosures)
	}
	list, err := s.Executions(ctx, 0)
	fmt.Fprintln(&b, list, err)
	// The state row has a sum of its own, and its time goes on.
	for _, table := range []string{"batch", "leaf", "placed", "burn", "owner", "blob", "sqlite_schema"} {
		fmt.Fprintf(&b, "%s %s\n", table, rowsOf(t, s, table))
	}
	return b.String()
}

// rowsOf is all that a table holds; comments in the schema are left out.
func rowsOf(t testing.TB, s *Store, table string) string {
	t.Helper()
	columns := "*"
	if table == "sqlite_schema" {
		columns = "type, name, tbl_name, sql"
	}
	rows, err := s.read.QueryContext(within(t), "SELECT "+columns+" FROM "+table+" ORDER BY 1, 2")
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for rows.Next() {
		values := make([]any, len(names))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return err.Error()
		}
		for _, v := range values {
			v := *v.(*any)
			if text, ok := v.(string); ok && table == "sqlite_schema" {
				v = plainSchema(text)
			}
			fmt.Fprintf(&b, "%T %v\n", v, v)
		}
	}
	if err := rows.Err(); err != nil {
		return err.Error()
	}
	return b.String()
}

// populate makes a state with history: several sessions, each drained.
func populate(t testing.TB, dir string, keys *keyring.Ring, sessions int) (leaves []string) {
	t.Helper()
	ctx := within(t)
	for i := range sessions {
		s := openStore(t, dir, keys)
		for range 12 {
			es := chain(t, keys, whole...)
			if _, err := s.Record(ctx, es[:2]...); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Record(ctx, es[2:]...); err != nil {
				t.Fatal(err)
			}
			if err := s.Burn(ctx, es[0].Leaf.Execution, exeq.NewID(), exeq.At(time.Now().Add(time.Hour))); err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				leaves = append(leaves, e.Leaf.ID)
			}
		}
		if _, err := s.PutBlob(ctx, bytes.Repeat([]byte("policy "), 500*(i+1))); err != nil {
			t.Fatal(err)
		}
		if err := s.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return leaves
}

// tryOpen opens a state as a run does and gives what it found wrong; a store
// that is found damaged must grant nothing.
func tryOpen(t testing.TB, dir string, same func(*Store) string) (found error) {
	t.Helper()
	keys, err := keyring.Open(dir)
	if err != nil {
		return err
	}
	s, err := Open(context.Background(), Config{Dir: dir, Keys: keys})
	if err != nil {
		return err
	}
	defer s.Close()
	ctx := within(t)
	if _, err := s.Recover(ctx); err != nil {
		if _, rerr := s.Record(ctx, chain(t, keys, exeq.KindPermit)...); !errors.Is(rerr, exeq.ErrRecord) {
			t.Errorf("a permit is recorded although %v", err)
		}
		if rerr := s.Burn(ctx, exeq.NewID(), "n", exeq.Time{}); !errors.Is(rerr, exeq.ErrRecord) {
			t.Errorf("a nonce is burnt although %v", err)
		}
		return err
	}
	if diff := same(s); diff != "" {
		t.Errorf("nothing found wrong, but %s", diff)
	}
	return nil
}

// TestFlippedByte flips one byte in every file of the state in turn. Each is
// found when the state is next used, and then nothing is granted; or it was in
// room that nothing uses, and everything still reads the same.
func TestFlippedByte(t *testing.T) {
	dir, keys := newState(t)
	populate(t, dir, keys, 3)
	want := ""
	if err := tryOpen(t, dir, func(s *Store) string { want = dump(t, s); return "" }); err != nil {
		t.Fatal(err)
	}
	same := func(s *Store) string {
		if got := dump(t, s); got != want {
			return "the record reads differently"
		}
		return ""
	}
	r := rand.New(rand.NewPCG(1, 1))
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	mustFind := 0
	for _, path := range files {
		name, _ := filepath.Rel(dir, path)
		base := filepath.Base(path)
		if strings.HasSuffix(base, ".lock") || base == stampFile {
			continue // hold nothing: see below
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() == 0 {
			continue
		}
		offsets := []int64{0, info.Size() / 2, info.Size() - 1}
		if base == "store.db" {
			for range rounds(t, 40) {
				offsets = append(offsets, r.Int64N(info.Size()))
			}
		}
		caught := 0
		for _, at := range offsets {
			flip(t, path, at)
			if err := tryOpen(t, dir, same); err != nil {
				caught++
				if caught == 1 {
					t.Logf("%s at %d: %v", name, at, err)
				}
			}
			flip(t, path, at)
			if err := os.Remove(filepath.Join(dir, damagedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if err := tryOpen(t, dir, same); err != nil {
				t.Fatalf("%s is whole again: %v", name, err)
			}
		}
		t.Logf("%s: %d of %d found", name, caught, len(offsets))
		mustFind += caught
		// Partial tiles of older tree sizes are leftovers that nothing reads.
		if caught == 0 && !strings.Contains(name, ".p/") {
			t.Errorf("%s: no flipped byte was found", name)
		}
	}
	if mustFind < 30 {
		t.Errorf("only %d flipped bytes were found", mustFind)
	}
	// A damaged stamp only costs a check.
	flip(t, filepath.Join(dir, stampFile), 3)
	if err := tryOpen(t, dir, same); err != nil {
		t.Error(err)
	}
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (at % 8)
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestFlippedWAL flips bytes in the write-ahead log that a killed process left:
// SQLite alone would forget every transaction behind it without a word.
func TestFlippedWAL(t *testing.T) {
	dir, keys := newState(t)
	openStore(t, dir, keys).Close()
	p := start(t, "loop", dir)
	var a acked
	for range 60 {
		line, _ := p.next()
		a.take(line)
	}
	for _, line := range p.kill() {
		a.take(line)
	}
	whole := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(whole, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(whole, "store.db-wal"))
	if err != nil || info.Size() == 0 {
		t.Fatalf("no write-ahead log is left: %v", err)
	}
	found := 0
	r := rand.New(rand.NewPCG(2, 2))
	for range rounds(t, 12) {
		try := filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(try, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		for _, role := range keyring.Roles { // CopyFS widens the mode
			if err := os.Chmod(filepath.Join(try, "keys", role+".key"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		at := r.Int64N(info.Size())
		flip(t, filepath.Join(try, "store.db-wal"), at)
		err := tryOpen(t, try, func(s *Store) string {
			// What SQLite takes for a torn write can be the last transaction.
			for _, id := range a.leaves[:len(a.leaves)-1] {
				if _, err := s.Leaf(within(t), id); err != nil {
					return fmt.Sprintf("after a flip at %d of %d: %v", at, info.Size(), err)
				}
			}
			return ""
		})
		if err != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("no flipped byte was found")
	}
	t.Logf("%d found", found)
}

// TestRolledBack: a store that was put back to an older copy, and a log that
// was, are found out by what the other one holds.
func TestRolledBack(t *testing.T) {
	for name, parts := range map[string][]string{
		"store": {"store.db"},
		"log":   {"log"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, keys := newState(t)
			populate(t, dir, keys, 2)
			old := filepath.Join(t.TempDir(), "old")
			if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, dir, keys)
			if _, err := s.Record(within(t), chain(t, keys, whole...)...); err != nil {
				t.Fatal(err)
			}
			if err := s.Drain(within(t)); err != nil {
				t.Fatal(err)
			}
			s.Close()
			for _, p := range parts {
				if err := os.RemoveAll(filepath.Join(dir, p)); err != nil {
					t.Fatal(err)
				}
				if info, err := os.Stat(filepath.Join(old, p)); err != nil {
					t.Fatal(err)
				} else if info.IsDir() {
					err = os.CopyFS(filepath.Join(dir, p), os.DirFS(filepath.Join(old, p)))
					if err != nil {
						t.Fatal(err)
					}
				} else {
					b, err := os.ReadFile(filepath.Join(old, p))
					if err == nil {
						err = os.WriteFile(filepath.Join(dir, p), b, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			err := tryOpen(t, dir, func(*Store) string { return "it was rolled back" })
			if !errors.Is(err, exeq.ErrRecord) {
				t.Errorf("found %v", err)
			}
			t.Log(err)
		})
	}
}

// TestFsckBesideWriters: a check while others record and drain finds nothing
// wrong with what they do.
func TestFsckBesideWriters(t *testing.T) {
	dir, keys := newState(t)
	openStore(t, dir, keys).Close()
	writers := []*process{start(t, "loop", dir), start(t, "loop", dir)}
	s := openStore(t, dir, keys)
	for range rounds(t, 4) {
		for _, w := range writers {
			if line, ok := w.next(); !ok || strings.HasPrefix(line, "error") {
				t.Fatalf("a writer says %q", line)
			}
		}
		sound(t, s)
	}
	for _, w := range writers {
		for _, line := range w.kill() {
			if strings.HasPrefix(line, "error") {
				t.Error(line)
			}
		}
	}
}

// TestPromiseGone: a leaf waits for the log and no promise says since when.
func TestPromiseGone(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	for range 2 {
		if _, err := s.Record(within(t), chain(t, keys, whole...)[0]); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, err := s.Lag(within(t)); err != nil || n != 2 {
		t.Fatalf("%d leaves wait, %v", n, err)
	}
	if err := s.between(within(t), func(w *writer) error {
		_, err := w.conn.ExecContext(context.Background(), `DELETE FROM batch WHERE first = 1`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if n, lag, err := s.Lag(within(t)); !errors.Is(err, ErrDamaged) {
		t.Errorf("%d leaves wait for %v, %v", n, lag, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(within(t), Config{Dir: dir, Keys: keys}); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened: %v", err)
		if err == nil {
			s.Close()
		}
	}
}

// TestTreeStateSpelled: one letter of a key in another case is damage, too,
// though a JSON decoder takes it.
func TestTreeStateSpelled(t *testing.T) {
	dir := t.TempDir()
	r := &logReader{dir: dir}
	if err := os.Mkdir(filepath.Join(dir, ".state"), 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, ".state", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("version", tesseraVersion)
	good := `{"size":3,"root":"` + strings.Repeat("A", 43) + `="}`
	put("treeState", good)
	if tree, err := r.integrated(); err != nil || tree.N != 3 {
		t.Fatal(tree, err)
	}
	for _, bad := range []string{strings.Replace(good, "size", "sIze", 1), good + "\n", strings.Replace(good, ":3", ": 3", 1), `{"more":1,` + good[1:]} {
		put("treeState", bad)
		if _, err := r.integrated(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
