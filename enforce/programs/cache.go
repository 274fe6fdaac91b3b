//go:build linux

package programs

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

type inode struct{ dev, ino uint64 }

type entry struct {
	ID     Identity    `json:"id"`
	Digest exeq.Digest `json:"sha256"`
}

// racyWindow is git's racy-clean rule: a change time that near to the moment of
// reading may hide a second write within one tick of the kernel's clock
// (measured: kernels before multigrain timestamps keep it for up to a jiffy).
const racyWindow = 20 * time.Millisecond

// coarseTimes is for how long a file system that keeps whole seconds (inodes of
// 128 bytes), or every other one (FAT), may give two changes one time.
const coarseTimes = 2 * time.Second

// settled reports whether a file with this identity, read from began on, could
// not have been written since without its identity changing.
func settled(id Identity, began time.Time) bool {
	window := racyWindow
	if id.Ctime%int64(time.Second) == 0 {
		window += coarseTimes
	}
	return began.UnixNano()-id.Ctime > int64(window)
}

func (s *Store) cached(id Identity) (exeq.Digest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.cache[inode{id.Dev, id.Ino}]
	return e.Digest, ok && e.ID == id
}

func (s *Store) remember(id Identity, d exeq.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache[inode{id.Dev, id.Ino}] = entry{id, d}
	s.changed = true
}

// The file of digests: the hexadecimal SHA-256 of all that follows, a newline,
// one JSON entry a line.
const (
	cacheName     = "digests"
	maxCacheBytes = 16 << 20
	maxCached     = 40_000
)

// loadCache reads the file. Whatever is wrong with it makes an empty cache: it
// saves time and decides nothing.
func (s *Store) loadCache() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range readCache(filepath.Join(s.dir, cacheName)) {
		s.cache[inode{e.ID.Dev, e.ID.Ino}] = e
	}
}

func readCache(path string) []entry {
	var out []entry
	for line := range bytes.Lines(readBody(path, maxCacheBytes)) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil || e.Digest.IsZero() {
			return nil
		}
		out = append(out, e)
	}
	return out
}

// readBody reads the entries of a file of digests that is whole and not larger
// than limit.
func readBody(path string, limit int64) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil
	}
	sum, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%x", sha256.Sum256(body)) {
		return nil
	}
	return body
}

// recall gives the digest that the store in dir has on record for this
// identity, without opening the store. Enforcement knows the program by the same
// record: where the execution could write the file, a copy of the bytes with
// that digest is what runs, so a stale record starts what was decided on.
//
// The record is read for programs that are larger than it; any other is hashed
// in less time.
func recall(dir string, id Identity) (exeq.Digest, bool) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return exeq.Digest{}, false
	}
	s := &Store{dir: dir, dirfd: os.NewFile(uintptr(fd), dir)}
	defer s.dirfd.Close()
	key, err := json.Marshal(id)
	if err != nil || s.check() != nil {
		return exeq.Digest{}, false
	}
	key = append(append([]byte(`{"id":`), key...), ',')
	for line := range bytes.Lines(readBody(filepath.Join(dir, cacheName), min(id.Size, maxCacheBytes))) {
		var e entry
		if bytes.HasPrefix(line, key) {
			err := json.Unmarshal(line, &e)
			return e.Digest, err == nil && e.ID == id && !e.Digest.IsZero()
		}
	}
	return exeq.Digest{}, false
}

// saveCache merges with what other processes saved, under a lock, and replaces
// the file whole.
func (s *Store) saveCache() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, cacheName+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("programs: digests: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("programs: digests: %w", err)
	}
	name := filepath.Join(s.dir, cacheName)
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	written := 0
	put := func(e entry) error {
		if written++; written > maxCached {
			return nil
		}
		return enc.Encode(e)
	}
	for _, e := range s.cache {
		if err := put(e); err != nil {
			return fmt.Errorf("programs: digests: %w", err)
		}
	}
	for _, e := range readCache(name) {
		if _, ours := s.cache[inode{e.ID.Dev, e.ID.Ino}]; ours {
			continue
		}
		if err := put(e); err != nil {
			return fmt.Errorf("programs: digests: %w", err)
		}
	}
	tmp, err := os.CreateTemp(s.dir, "new-*")
	if err != nil {
		return fmt.Errorf("programs: digests: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := fmt.Fprintf(tmp, "%x\n%s", sha256.Sum256(body.Bytes()), body.Bytes()); err != nil {
		return fmt.Errorf("programs: digests: %w", err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return fmt.Errorf("programs: digests: %w", err)
	}
	s.changed = false
	return nil
}
