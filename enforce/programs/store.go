//go:build linux

package programs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Store keeps copies of programs by digest in a directory of mode 0700 that
// the governed side must not reach, and the digests of files by identity. Safe
// for concurrent use by goroutines and by processes.
type Store struct {
	dir   string
	dirfd *os.File
	lock  *os.File // held shared: nobody prunes while a store is open
	now   func() time.Time

	reading turns

	mu      sync.Mutex
	cache   map[inode]entry
	changed bool
}

// Copy is a program in the store. Its digest is of its own bytes.
type Copy struct {
	Digest exeq.Digest
	// Path is where it lies, outside; File holds it open for reading.
	Path string
	File *os.File

	store *Store
}

// Allow adds permissions to the copy's mode.
func (c *Copy) Allow(mode uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(c.File.Fd()), &st); err != nil {
		return fmt.Errorf("programs: stat: %w", err)
	}
	if st.Mode&mode == mode {
		return nil
	}
	known, ok := c.store.cached(identityOf(&st))
	if err := unix.Fchmod(int(c.File.Fd()), st.Mode&0o7777|mode); err != nil {
		return fmt.Errorf("programs: mode: %w", err)
	}
	if ok {
		return c.store.rememberCopy(c.File, known)
	}
	return nil
}

// rememberCopy remembers the digest of a copy that this process made or changed
// the mode of. No racy-clean rule: nobody else has it open for writing.
func (s *Store) rememberCopy(f *os.File, d exeq.Digest) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("programs: stat: %w", err)
	}
	s.remember(identityOf(&st), d)
	return nil
}

// OpenStore opens or makes the store in dir. It refuses a directory that
// others can enter and one on a noexec mount, where no copy could run.
func OpenStore(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("programs: store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("programs: store: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("programs: store %s: %w", dir, err)
	}
	s := &Store{dir: dir, dirfd: os.NewFile(uintptr(fd), dir), now: time.Now, cache: map[inode]entry{}}
	err = s.check()
	if err == nil {
		err = s.open()
	}
	if err != nil {
		s.dirfd.Close()
		return nil, err
	}
	s.loadCache()
	return s, nil
}

func (s *Store) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.dirfd.Fd()), &st); err != nil {
		return fmt.Errorf("programs: store: %w", err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("programs: store %s: want mode 0700 and owner %d, has %#o and %d", s.dir, os.Geteuid(), st.Mode&0o7777, st.Uid)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.dirfd.Fd()), &fs); err != nil {
		return fmt.Errorf("programs: store: %w", err)
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("programs: store %s: on a noexec mount, nothing in it can run; use another --state directory", s.dir)
	}
	return nil
}

// Close saves the digests. Copies that it gave out stay open.
func (s *Store) Close() error {
	err := s.saveCache()
	return errors.Join(err, s.lock.Close(), s.dirfd.Close())
}

// Digest gives the SHA-256 of f's bytes, from the cache if f's identity is in
// it and was settled when they were read. Unless the file cannot be written by
// anybody, it says what the file held a moment ago: run a copy (Put), not it.
func (s *Store) Digest(f *File, going Going) (exeq.Digest, error) {
	turn := s.reading.at(f.ID)
	if err := turn.take(going); err != nil {
		return exeq.Digest{}, err
	}
	defer turn.leave()
	if d, ok := s.cached(f.ID); ok {
		return d, nil
	}
	r, err := f.Open()
	if err != nil {
		return exeq.Digest{}, err
	}
	defer r.Close()
	d, id, settled, err := hash(r, s.now(), going)
	if err == nil && settled {
		s.remember(id, d)
	}
	return d, err
}

// Put copies f into the store and gives the copy. If f's identity and its copy
// are known nothing is read.
func (s *Store) Put(f *File, going Going) (*Copy, error) {
	turn := s.reading.at(f.ID)
	if err := turn.take(going); err != nil {
		return nil, err
	}
	defer turn.leave()
	if d, ok := s.cached(f.ID); ok {
		if c, err := s.Get(d, going); err == nil {
			return c, nil
		}
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return s.put(r, going)
}

// Get gives the copy with a digest; the error wraps fs.ErrNotExist if there is
// none, or none that still has that digest.
func (s *Store) Get(d exeq.Digest, going Going) (*Copy, error) {
	name := d.String()
	fd, err := unix.Openat(int(s.dirfd.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("programs: store: %w", &os.PathError{Op: "open", Path: name, Err: err})
	}
	c := &Copy{Digest: d, Path: filepath.Join(s.dir, name), File: os.NewFile(uintptr(fd), name), store: s}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		c.File.Close()
		return nil, fmt.Errorf("programs: store: %w", err)
	}
	got, ok := s.cached(identityOf(&st))
	if !ok {
		var id Identity
		var settled bool
		if got, id, settled, err = hash(c.File, s.now(), going); err == nil && settled {
			s.remember(id, got)
		}
	}
	if err == nil && got != d {
		// Damaged: out with it, the caller makes it again.
		unix.Unlinkat(int(s.dirfd.Fd()), name, 0)
		err = os.ErrNotExist
	}
	if err != nil {
		c.File.Close()
		return nil, fmt.Errorf("programs: store: copy %s: %w", name, err)
	}
	return c, nil
}

// put makes the copy first and hashes the copy second.
func (s *Store) put(r *os.File, going Going) (*Copy, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &st); err != nil {
		return nil, fmt.Errorf("programs: stat: %w", err)
	}
	before := identityOf(&st)
	if err := tooLarge(r.Name(), st.Size); err != nil {
		return nil, err
	}
	began := s.now()
	tmp, err := os.CreateTemp(s.dir, "new-*")
	if err != nil {
		return nil, fmt.Errorf("programs: store: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := share(tmp, r, going); err != nil {
		return nil, fmt.Errorf("programs: store: copy of %s: %w", r.Name(), err)
	}
	times := []unix.Timespec{unix.NsecToTimespec(st.Mtim.Nano()), unix.NsecToTimespec(st.Mtim.Nano())}
	if err := futimens(int(tmp.Fd()), times); err != nil {
		return nil, fmt.Errorf("programs: store: times: %w", err)
	}
	if err := tmp.Chmod(os.FileMode(st.Mode & 0o555)); err != nil {
		return nil, fmt.Errorf("programs: store: mode: %w", err)
	}
	d, _, _, err := hash(tmp, s.now(), going)
	if err != nil {
		return nil, err
	}
	// The original is known by this digest only if it stood still meanwhile.
	if err := unix.Fstat(int(r.Fd()), &st); err == nil && identityOf(&st) == before && settled(before, began) {
		s.remember(before, d)
	}
	for range 10 {
		// A copy that is there stays: mounts of it cannot be moved any more once
		// its name is gone. Get removes one that is damaged.
		err := os.Link(tmp.Name(), filepath.Join(s.dir, d.String()))
		if err == nil {
			os.Remove(tmp.Name()) // before its identity is taken
			err = s.rememberCopy(tmp, d)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("programs: store: %w", err)
		}
		c, err := s.Get(d, going)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		tmp.Close() // no descriptor of ours may still write: execve answers ETXTBSY
		if err != nil {
			return nil, err
		}
		return c, c.Allow(st.Mode & 0o555)
	}
	return nil, fmt.Errorf("programs: store: copy %s does not stay", d)
}

// share shares the blocks where the file system can, else lets the kernel copy,
// else copies.
func share(dst, src *os.File, going Going) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err == nil {
		return nil
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return CopyBytes(dst, src, src.Name(), nil, going)
}

func futimens(fd int, ts []unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), ts, 0)
}

// hash reads f from the start, which begins at began. ok says that the identity
// may stand for the digest: it did not change while reading, and is old enough.
func hash(f *os.File, began time.Time, going Going) (d exeq.Digest, id Identity, ok bool, err error) {
	var a, b unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &a); err != nil {
		return d, id, false, fmt.Errorf("programs: stat: %w", err)
	}
	if err := tooLarge(f.Name(), a.Size); err != nil {
		return d, id, false, err
	}
	h := sha256.New()
	if err := CopyBytes(h, io.NewSectionReader(f, 0, 1<<62), f.Name(), make([]byte, 256<<10), going); err != nil {
		return d, id, false, err
	}
	if err := unix.Fstat(int(f.Fd()), &b); err != nil {
		return d, id, false, fmt.Errorf("programs: stat: %w", err)
	}
	h.Sum(d[:0])
	id = identityOf(&b)
	return d, id, identityOf(&a) == id && settled(id, began), nil
}
