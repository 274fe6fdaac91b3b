//go:build linux

package record

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

var errInjected = errors.New("injected")

// faulty makes the n-th commit from now fail: before it is made, or after it
// persisted.
func faulty(s *Store, n int, persisted bool) {
	fail := func(string) error {
		if n--; n == 0 {
			return errInjected
		}
		return nil
	}
	s.faults = faults{}
	if persisted {
		s.faults.after = fail
	} else {
		s.faults.before = fail
	}
}

// TestCommitFails fails each durable write of an execution and of its draining
// in turn, once so that it did not happen and once so that it did and nobody
// was told.
func TestCommitFails(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		// Writes of a run: permit, burn, start, appraisal, end; then of the
		// sequencer: placements, covered mark.
		for n := 1; n <= 7; n++ {
			t.Run(fmt.Sprintf("persisted=%v/write=%d", persisted, n), func(t *testing.T) {
				dir, keys := newState(t)
				s := openStore(t, dir, keys)
				ctx := within(t)
				es := chain(t, keys, whole...)
				id := es[0].Leaf.Execution
				until := exeq.At(time.Now().Add(time.Minute))
				faulty(s, n, persisted)
				failed := 0
				try := func(f func() error) bool {
					err := f()
					if err == nil {
						return true
					}
					if !errors.Is(err, exeq.ErrRecord) {
						t.Errorf("the failure is no ErrRecord: %v", err)
					}
					failed++
					return false
				}
				record := func(e exeq.Entry) bool {
					return try(func() error {
						ps, err := s.Record(ctx, e)
						if err != nil && ps != nil {
							t.Error("a promise beside an error")
						}
						return err
					})
				}
				var acked []string
				ok := record(es[0])
				if ok {
					acked = append(acked, es[0].Leaf.ID)
					ok = try(func() error { return s.Burn(ctx, id, "n", until) })
					armed := s.faults
					s.faults = faults{} // looking is no write of the run
					if err := s.Burn(ctx, id, "n", until); ok != errors.Is(err, exeq.ErrReplayed) && (ok || persisted != errors.Is(err, exeq.ErrReplayed)) {
						t.Errorf("burnt %v, persisted %v, then %v", ok, persisted, err)
					}
					s.faults = armed
				}
				for _, e := range es[1:] {
					if ok = ok && record(e); ok {
						acked = append(acked, e.Leaf.ID)
					}
				}
				// The next writer goes on, whatever became of the failed one.
				for range 3 {
					if err := s.Drain(ctx); err == nil {
						break
					} else if !errors.Is(err, exeq.ErrRecord) {
						t.Errorf("drain: %v", err)
					} else {
						failed++
					}
				}
				if failed != 1 {
					t.Errorf("%d writes failed", failed)
				}
				s.faults = faults{}
				if err := s.Drain(ctx); err != nil {
					t.Fatal(err)
				}
				for _, id := range acked {
					if _, err := s.Leaf(ctx, id); err != nil {
						t.Error(err)
					}
				}
				rows, err := s.Last(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if extra := rows - int64(len(acked)); extra > 1 || extra == 1 && !persisted {
					t.Errorf("%d rows for %d acknowledged leaves", rows, len(acked))
				}
				sound(t, s)
				s.Close()
				s = openStore(t, dir, keys)
				if err := s.Damage(); err != nil {
					t.Error(err)
				}
				if _, err := s.Recover(ctx); err != nil {
					t.Error(err)
				}
				// Nothing is in the log twice.
				cp, err := s.log.checkpoint()
				if errors.Is(err, errNoLog) && len(acked) == 0 {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if last, err := s.Last(ctx); err != nil || cp.tree.N > last {
					t.Errorf("%d leaves, %d entries in the log, %v", last, cp.tree.N, err)
				}
			})
		}
	}
}

// syscalls are those by which store and log reach the disk, each with the
// error that a disk gives, and up to which of its calls on one thread to look.
var syscalls = []struct {
	name, fault string
	calls       int
}{
	{"fsync", "EIO", 12}, {"pwrite64", "EIO", 60}, {"pwrite64", "ENOSPC", 60}, {"pread64", "EIO", 40},
	{"write", "ENOSPC", 16}, {"write", "EIO", 16}, {"renameat", "EIO", 6}, {"openat", "EMFILE", 40}, {"openat", "EIO", 40},
	{"ftruncate", "EIO", 3}, {"mkdirat", "ENOSPC", 6}, {"flock", "ENOLCK", 5}, {"fcntl", "ENOLCK", 40},
	{"unlinkat", "EIO", 3}, {"unlink", "EIO", 2}, {"linkat", "EIO", 2}, {"newfstatat", "EIO", 20}, {"fstat", "EIO", 20},
}

// TestSyscallFails runs whole executions in a process whose n-th system call
// of a kind fails, for many n. Whatever it had acknowledged is there
// afterwards, store and log are sound, and the next run goes on.
func TestSyscallFails(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("this machine does not trace: %s", out)
	}
	tries := rounds(t, 2)
	r := rand.New(rand.NewPCG(3, 3))
	injected, refused := 0, 0
	for _, c := range syscalls {
		t.Run(c.name+"/"+c.fault, func(t *testing.T) {
			dir, keys := newState(t)
			openStore(t, dir, keys).Close()
			for range tries {
				when := 1 + r.IntN(c.calls)
				report := filepath.Join(t.TempDir(), "trace")
				p := start(t, "once", dir, strace, "-f", "-qq", "-o", report,
					"-e", "trace="+c.name, "-e", fmt.Sprintf("inject=%s:error=%s:when=%d", c.name, c.fault, when))
				var a acked
				for _, line := range p.rest() {
					a.take(line)
				}
				if b, err := os.ReadFile(report); err == nil && strings.Contains(string(b), "(INJECTED)") {
					injected++
				}
				refused += len(a.errors)
				s := openStore(t, dir, keys)
				if err := s.Damage(); err != nil {
					t.Errorf("at %d: %v", when, err)
				}
				ctx := within(t)
				if _, err := s.Recover(ctx); err != nil {
					t.Errorf("at %d: recover: %v", when, err)
				}
				a.kept(t, s)
				for _, id := range a.burnt {
					if err := s.Burn(ctx, id, "n", exeq.At(time.Now())); !errors.Is(err, exeq.ErrReplayed) {
						t.Errorf("at %d: a burnt nonce: %v", when, err)
					}
				}
				if err := s.Drain(ctx); err != nil {
					t.Errorf("at %d: drain: %v", when, err)
				}
				sound(t, s)
				s.Close()
			}
			if _, err := os.Stat(filepath.Join(dir, "log", "checkpoint")); err == nil {
				strangerChecks(t, dir, keys, 0)
			}
		})
	}
	t.Logf("%d faults injected, %d errors said", injected, refused)
	if injected == 0 {
		t.Error("no fault was injected")
	}
}

// TestDiskFull fills a small file system under the state: the permit is
// refused in words, what was acknowledged stays, and with room again it goes on.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "EXEQ_RECORD_CHILD=full", "EXEQ_RECORD_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "cannot mount") {
		t.Skipf("this machine gives no mount namespace: %v %s", err, out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// childFull is TestDiskFull inside its mount namespace.
func childFull(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	keys, err := keyring.Create(dir)
	if err != nil {
		return err
	}
	ctx, cancel := contextFor(time.Minute)
	defer cancel()
	s, err := Open(ctx, Config{Dir: dir, Keys: keys})
	if err != nil {
		return err
	}
	var acked []string
	var refusal error
	for refusal == nil && len(acked) < 100_000 {
		es, err := newChain(keys, exeq.KindPermit)
		if err != nil {
			return err
		}
		if _, refusal = s.Record(ctx, es...); refusal == nil {
			acked = append(acked, es[0].Leaf.ID)
		}
	}
	if !errors.Is(refusal, exeq.ErrRecord) || !strings.Contains(refusal.Error(), "disk is full") {
		return fmt.Errorf("after %d permits: %v", len(acked), refusal)
	}
	s.Close()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		return err
	}
	if s, err = Open(ctx, Config{Dir: dir, Keys: keys}); err != nil {
		return err
	}
	defer s.Close()
	for _, id := range acked {
		if _, err := s.Leaf(ctx, id); err != nil {
			return err
		}
	}
	if err := s.Drain(ctx); err != nil {
		return err
	}
	if err := s.Fsck(ctx); err != nil {
		return err
	}
	es, err := newChain(keys, whole...)
	if err != nil {
		return err
	}
	if _, err := s.Record(ctx, es...); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	fmt.Printf("refused after %d permits: %v\n", len(acked), refusal)
	return nil
}

// TestRowsWithoutGaps: SQLite numbers the rows of leaves, and one that is not
// the next is not committed.
func TestRowsWithoutGaps(t *testing.T) {
	dir, keys := newState(t)
	s := openStore(t, dir, keys)
	ctx := within(t)
	// Behind the largest of all row numbers SQLite takes any that is free.
	err := s.between(ctx, func(w *writer) error {
		_, err := w.exec(`INSERT INTO leaf (row, id, kind, bytes) VALUES (9223372036854775807, 'x', 'denial', x'00')`)
		if err == nil {
			_, err = w.exec(sqlBatch, 1, 1, time.Now().UnixMilli(), "x")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if ps, err := s.Record(ctx, chain(t, keys, whole...)[0]); !errors.Is(err, ErrDamaged) || ps != nil {
		t.Errorf("promises %v, error %v; want ErrDamaged", ps, err)
	}
	var rows int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM leaf`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v; want the one that was there", rows, err)
	}
}
