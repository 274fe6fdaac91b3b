//go:build linux

package record

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// TestMover: while many commit and others read, the write-ahead log is moved
// into the database and begins anew again and again, and nothing is lost.
func TestMover(t *testing.T) {
	const callers, each, size = 16, 120, 12 << 10
	// SQLite alone would let it grow to 16 MiB. A machine that hardly lets the
	// mover run may, too: once of a few times will do.
	const most = 11 << 20
	var grown int64
	for range 4 {
		dir, keys := newState(t)
		s := openStore(t, dir, keys)
		s.writer.moving = moving{busy: 1 << 20, every: 1 << 20, restart: 1 << 20}
		busy := 0
		s.writer.busy = func() { busy++ }
		ctx := within(t)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				if err := fill(ctx, s, keys, each, size); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s.writer.mover == nil {
			t.Fatal("a store that commits much has no mover")
		}
		info, err := os.Stat(filepath.Join(dir, "store.db-wal")) // it never shrinks
		if err != nil {
			t.Fatal(err)
		}
		grown = info.Size()
		if last, err := s.Last(ctx); err != nil || last != callers*each {
			t.Fatalf("%d leaves, %v", last, err)
		}
		if err := s.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		sound(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if busy != 1 {
			t.Errorf("a store that commits much said %d times that it is busy", busy)
		}
		sound(t, openStore(t, dir, keys))
		if grown < most {
			return
		}
	}
	t.Errorf("the write-ahead log grew to %d bytes", grown)
}

// fill records leaves one after the other and reads in between.
func fill(ctx context.Context, s *Store, keys *keyring.Ring, n, size int) error {
	for range n {
		e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPolicy}, map[string]any{"text": strings.Repeat("x", size)}, keys.Signer(exeq.RoleIssuer))
		if err != nil {
			return err
		}
		if _, err := s.Record(ctx, e); err != nil {
			return err
		}
		if _, err := s.Last(ctx); err != nil {
			return err
		}
	}
	return nil
}
