//go:build linux

package enforce

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/landlock"
	"github.com/exeq/exeq/enforce/programs"
)

// Landlock runs only what it lets be read, and its rules are for inodes that
// exist at the start. So a program that is made in a directory without a grant
// could not run. For it there are spare files, made at the start without a
// name and granted by themselves: when such a program has been decided on, its
// bytes go into a spare file, which takes its place in the directory.

// spareFiles is how many there are for each mount that needs them. Each costs
// the start some 0.2 ms of processor time on ext4.
const spareFiles = 128

type spares struct {
	mu   sync.Mutex
	free map[uint64][]*os.File // by mount
	all  map[inode]bool
}

// spare makes the files for the directories where programs may come into being
// that Landlock does not let be read.
func (s *launching) spare(n *nested, g *grant) error {
	n.spares = &spares{free: map[uint64][]*os.File{}, all: map[inode]bool{}}
	s.onUndo(n.spares.close)
	for _, p := range g.listed {
		if a := s.launch.Rights.Lookup(exeq.EncodeBytes(path.Join(p, "\x00"))); !a.Read || !a.Write || a.Exec == exeq.ExecNo {
			continue
		}
		dir, err := openPath(p)
		if err != nil {
			return err
		}
		err = n.spares.fill(s.who, s.ruleset, dir, spareFiles)
		unix.Close(dir)
		if err != nil {
			s.downgrade = append(s.downgrade, fmt.Sprintf("%s: programs that are made there cannot run until the next run: %v", exeq.EncodeBytes(p), err))
		}
	}
	return nil
}

// fill makes the spare files of a directory's mount.
func (s *spares) fill(who identity, ruleset, dir, count int) error {
	mount, err := mountID(dir)
	if err != nil || s.free[mount] != nil {
		return err
	}
	files := make([]*os.File, 0, count)
	err = who.as(func() error {
		for range count {
			fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return fmt.Errorf("files without a name: %w", err)
			}
			// What is open for writing does not run, and a child of ours may
			// hold it for a moment.
			waits, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			if err != nil {
				return err
			}
			files = append(files, os.NewFile(uintptr(waits), "spare"))
		}
		return nil
	})
	s.free[mount] = files
	for _, f := range files {
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(int(f.Fd()), &st)
		}
		if err == nil {
			err = landlock.AddPath(ruleset, int(f.Fd()), unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_WRITE_FILE|unix.LANDLOCK_ACCESS_FS_TRUNCATE)
		}
		s.all[inode{uint64(st.Dev), st.Ino}] = true
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		s.free[mount] = []*os.File{}
	}
	return err
}

func (s *spares) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for mount, files := range s.free {
		for _, f := range files {
			f.Close()
		}
		delete(s.free, mount)
	}
}

func (s *spares) take(mount uint64) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.free[mount]
	if len(files) == 0 {
		return nil
	}
	s.free[mount] = files[:len(files)-1]
	return files[len(files)-1]
}

// is reports whether an inode was a spare file. The set is whole before the
// first question.
func (s *spares) is(i inode) bool { return s != nil && s.all[i] }

// plant lets a program that was decided on be read by the kernel, if it is one
// that Landlock does not grant: f is then the file that took its place.
func (t *nested) plant(n *notifier, q *notification, f *programs.File, want exeq.Digest) error {
	id := exeq.EncodeBytes(f.Path)
	if f.Stale || !t.oursName(n, f.Path) || !n.rights.Lookup(id).Read || t.spares.is(inode{f.ID.Dev, f.ID.Ino}) || t.granted(f.Path).Read {
		return nil
	}
	spare := t.spares.take(f.Mount)
	if spare == nil {
		n.deny(fmt.Sprintf("exec %s denied: no more programs that were made beside a forbidden path can run in tier nested; build in a directory that was there at the start, or start anew", id))
		return unix.EACCES
	}
	defer spare.Close()
	dir, err := programs.Process{PID: unix.Getpid()}.Resolve(unix.AT_FDCWD, path.Dir(f.Path), programs.NoFollow)
	if err != nil {
		return err
	}
	defer dir.Close()
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &st); err != nil {
		return err
	}
	got, err := fillSpare(spare, r, n.going(q))
	if err != nil {
		return err
	}
	if got != want {
		n.deny(fmt.Sprintf("exec %s denied: it was written to while it was decided on", id))
		return unix.EACCES
	}
	if !n.ready(q) {
		return unix.ESRCH
	}
	if os.Geteuid() == 0 { // the files of others, as far as one may
		unix.Chown(fmt.Sprintf("/proc/self/fd/%d", spare.Fd()), int(st.Uid), int(st.Gid))
	}
	if err := n.who.as(func() error { return replace(dir.FD(), path.Base(f.Path), &st, spare) }); err != nil {
		return fmt.Errorf("exec %s: its place could not be taken: %w", id, err)
	}
	now, err := programs.Process{PID: int(q.pid)}.Resolve(unix.AT_FDCWD, f.Path, programs.NoFollow)
	if err != nil {
		return err
	}
	*f, *now = *now, *f
	now.Close()
	if !t.spares.is(inode{f.ID.Dev, f.ID.Ino}) {
		return fmt.Errorf("exec %s: it moved away meanwhile: %w", id, unix.EACCES)
	}
	return nil
}

// fillSpare writes a spare file. No child of ours comes to hold it open.
func fillSpare(spare, from *os.File, going programs.Going) (exeq.Digest, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", spare.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return exeq.Digest{}, err
	}
	h := sha256.New()
	err = programs.CopyBytes(io.MultiWriter(w, h), from, from.Name(), nil, going)
	return exeq.Digest(h.Sum(nil)), errors.Join(err, w.Close())
}

// replace puts a file without a name in the place of the one that was is of.
func replace(dir int, base string, was *unix.Stat_t, file *os.File) error {
	fd := int(file.Fd())
	times := []unix.Timespec{unix.NsecToTimespec(was.Atim.Nano()), unix.NsecToTimespec(was.Mtim.Nano())}
	own := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := errors.Join(unix.Chmod(own, was.Mode&0o1777), unix.UtimesNanoAt(unix.AT_FDCWD, own, times, 0)); err != nil {
		return err
	}
	var b [8]byte
	rand.Read(b[:])
	name := ".exeq-" + hex.EncodeToString(b[:])
	if err := unix.Linkat(unix.AT_FDCWD, own, dir, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	defer unix.Unlinkat(dir, name, 0)
	var mine unix.Stat_t
	if err := unix.Fstat(fd, &mine); err != nil {
		return err
	}
	// What somebody else put there meanwhile goes back, and the newest of it
	// stays: in is what an exchange put there, out what it took.
	in, want := inode{mine.Dev, mine.Ino}, inode{was.Dev, was.Ino}
	for i := range 100 {
		if err := unix.Renameat2(dir, name, dir, base, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		out := inode{st.Dev, st.Ino}
		switch {
		case out == want && i == 0:
			return nil
		case out == want:
			return unix.ETXTBSY
		}
		in, want = out, in
	}
	return unix.ETXTBSY
}
