package record

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/exeq/exeq/internal/osfile"
)

// A store that its last user closed leaves a stamp of its files behind. When
// the next user finds the same stamp, nobody has touched them since; when not
// (a crash, a restored copy, a flipped byte) everything is checked before
// anything is granted, and what is found damaged stays damaged, for every
// process, until a check passes.
const (
	stampFile   = "store.clean"
	damagedFile = "store.damaged"

	// stampLimit bounds the files that a stamp covers: looking at more would
	// cost every start too much. The newest ones are always in it.
	stampLimit = 1000
	// checkLimit bounds the store that is checked whole when it is opened;
	// of a larger one its newest leaves are, and all of one found damaged.
	checkLimit = 8 << 20
)

// fileStamp changes when a file's content does, in place or by replacement.
func fileStamp(info fs.FileInfo) string {
	return fmt.Sprintf("%d %d %s", info.Size(), info.ModTime().UnixNano(), osfile.ChangeOf(info))
}

// stampOf sums up the stamps of all state files.
func (s *Store) stampOf() string {
	h := sha256.New()
	n := 0
	add := func(path string) error {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		n++
		fmt.Fprintf(h, "%s %s\n", path, fileStamp(info))
		return nil
	}
	var errs []error
	for _, name := range []string{"store.db", "store.db-wal", WitnessPolicy, damagedFile, "log/checkpoint", "log/.state/treeState"} {
		errs = append(errs, add(filepath.Join(s.c.Dir, name)))
	}
	if tree, err := s.log.integrated(); err == nil && tree.N > 0 {
		for _, path := range edge(tree.N) {
			errs = append(errs, add(filepath.Join(s.log.dir, path)))
		}
	}
	errs = append(errs, filepath.WalkDir(filepath.Join(s.log.dir, "tile"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case n > stampLimit:
			return fs.SkipAll
		case d.IsDir():
			return nil
		}
		return add(path)
	}))
	if errors.Join(errs...) != nil {
		return "" // matches nothing
	}
	return hex.EncodeToString(h.Sum(nil))
}

// clean reports whether the files are as the last user left them.
func (s *Store) clean() bool {
	b, err := os.ReadFile(filepath.Join(s.c.Dir, stampFile))
	now := s.stampOf()
	return err == nil && now != "" && string(b) == now
}

// leaveStamp is called when SQLite has closed; it writes a stamp if nobody
// else has the store open. It need not be durable: without it the next user
// checks.
func (s *Store) leaveStamp() {
	if osfile.Lock(s.lock, osfile.Try) != nil {
		return
	}
	if now := s.stampOf(); now != "" {
		_ = os.WriteFile(filepath.Join(s.c.Dir, stampFile), []byte(now), 0o600)
	}
}

// assess decides whether the store may grant. It runs when the store was just
// opened; alone says that no other process vouches for the files.
func (s *Store) assess(ctx context.Context, alone, clean bool) error {
	why, err := os.ReadFile(filepath.Join(s.c.Dir, damagedFile))
	marked := err == nil
	if marked {
		s.damage.Store(&damage{fmt.Errorf("%w (found by an earlier check; one that has the state for itself checks again): %s", ErrDamaged, strings.TrimPrefix(string(why), ErrDamaged.Error()+": "))})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return recordErr("open store", err)
	}
	if !alone || clean && !marked {
		return nil
	}
	info, err := os.Stat(filepath.Join(s.c.Dir, "store.db"))
	if err != nil {
		return recordErr("open store", err)
	}
	if info.Size() > checkLimit && !marked { // what was found damaged is checked whole, however long it takes
		s.c.Log.Warn("the record was not closed by its last user and is too large to be checked at each start: only its newest part was", "bytes", info.Size())
		return nil
	}
	if err := s.Fsck(ctx); err != nil && s.Damage() == nil {
		return err // could not be checked
	}
	return nil
}

// damage is why a store grants nothing.
type damage struct{ err error }

// judged keeps the outcome of a check for every process.
func (s *Store) judged(err error) error {
	path := filepath.Join(s.c.Dir, damagedFile)
	if err == nil {
		s.damage.Store(nil)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return recordErr("check", err)
		}
		return nil
	}
	s.damage.Store(&damage{err})
	if werr := os.WriteFile(path, []byte(err.Error()), 0o600); werr != nil {
		err = errors.Join(err, recordErr("check", werr))
	}
	return err
}

// Damage is what a check found, nil for nothing: while there is any, no
// permit, start or burn is recorded.
func (s *Store) Damage() error {
	if d := s.damage.Load(); d != nil {
		return d.err
	}
	return nil
}
