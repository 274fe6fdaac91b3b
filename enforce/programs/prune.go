//go:build linux

package programs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// open takes the store's lock. Who finds nobody else in the store cleans it
// first: what a crash left half-made, and the oldest copies beyond the limit.
func (s *Store) open() error {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("programs: store: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		err = s.prune(exeq.MaxStoreBytes)
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("programs: store: %w", err)
	}
	s.lock = f
	return nil
}

// prune removes temporary files, and copies, the oldest first, until what is
// left is within limit bytes.
func (s *Store) prune(limit int64) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	type copied struct {
		name      string
		size, age int64
	}
	var copies []copied
	var total int64
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), "new-") {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		var st unix.Stat_t
		if len(e.Name()) != len(exeq.Digest{}.String()) || unix.Lstat(path, &st) != nil {
			continue
		}
		copies = append(copies, copied{e.Name(), st.Size, st.Ctim.Nano()})
		total += st.Size
	}
	slices.SortFunc(copies, func(a, b copied) int { return cmp.Compare(a.age, b.age) })
	for _, c := range copies {
		if total <= limit {
			break
		}
		if err := os.Remove(filepath.Join(s.dir, c.name)); err != nil {
			return err
		}
		total -= c.size
	}
	return nil
}
