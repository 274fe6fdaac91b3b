//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/enforce/filter"
)

// changes are all the ways to change a file's attributes, each to something
// that shows. The file is open as fd, for reading.
var changes = map[string]func(path string, fd int) error{
	"chmod":    func(p string, _ int) error { return unix.Chmod(p, 0o777) },
	"fchmod":   func(_ string, fd int) error { return unix.Fchmod(fd, 0o777) },
	"fchmodat": func(p string, _ int) error { return unix.Fchmodat(unix.AT_FDCWD, p, 0o777, 0) },
	"fchmodat2": func(_ string, fd int) error {
		return errnoOf(unix.Syscall6(unix.SYS_FCHMODAT2, uintptr(fd), pointer(""), 0o777, unix.AT_EMPTY_PATH, 0, 0))
	},
	"chmod by proc":   func(_ string, fd int) error { return unix.Chmod(ownFD(fd), 0o777) },
	"chmod by root":   func(p string, _ int) error { return unix.Chmod("/proc/self/root"+p, 0o777) },
	"chmod by thread": func(p string, _ int) error { return unix.Chmod("/proc/thread-self/root"+p, 0o777) },
	"chmod by O_PATH": func(p string, _ int) error {
		fd, err := unix.Open(p, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		return unix.Chmod(ownFD(fd), 0o777)
	},
	"chmod by link": func(p string, _ int) error {
		os.Remove("attribute-link")
		if err := os.Symlink(p, "attribute-link"); err != nil {
			return err
		}
		return unix.Chmod("attribute-link", 0o777)
	},
	"utimes": func(p string, _ int) error { return unix.Utimes(p, []unix.Timeval{{Sec: 7}, {Sec: 7}}) },
	"utime":  func(p string, _ int) error { return unix.Utime(p, &unix.Utimbuf{Actime: 7, Modtime: 7}) },
	"futimesat": func(p string, _ int) error {
		return unix.Futimesat(unix.AT_FDCWD, p, []unix.Timeval{{Sec: 7}, {Sec: 7}})
	},
	"utimensat": func(p string, _ int) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 7}, {Sec: 7}}, unix.AT_SYMLINK_NOFOLLOW)
	},
	"futimens": func(_ string, fd int) error {
		ts := [2]unix.Timespec{{Sec: 7}, {Sec: 7}}
		return errnoOf(unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0))
	},
	"setxattr":  func(p string, _ int) error { return unix.Setxattr(p, "user.exeq", []byte("7"), 0) },
	"lsetxattr": func(p string, _ int) error { return unix.Lsetxattr(p, "user.exeq", []byte("7"), 0) },
	"fsetxattr": func(_ string, fd int) error { return unix.Fsetxattr(fd, "user.exeq", []byte("7"), 0) },
	"setxattrat": func(p string, _ int) error {
		value := []byte("7")
		args := struct {
			value       uint64
			size, flags uint32
		}{uint64(uintptr(unsafe.Pointer(&value[0]))), 1, 0}
		here := unix.AT_FDCWD
		err := errnoOf(unix.Syscall6(463, uintptr(here), pointer(p), 0, pointer("user.exeq"), uintptr(unsafe.Pointer(&args)), 16))
		runtime.KeepAlive(value)
		if err == unix.ENOSYS { // Linux 6.13
			return unix.Setxattr(p, "user.exeq", value, 0)
		}
		return err
	},
	"removexattr":  func(p string, _ int) error { return unix.Removexattr(p, "user.first") },
	"fremovexattr": func(_ string, fd int) error { return unix.Fremovexattr(fd, "user.first") },
	"acl": func(p string, _ int) error { // everybody may write
		return unix.Setxattr(p, "system.posix_acl_access", []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x06\x00\xff\xff\xff\xff\x20\x00\x06\x00\xff\xff\xff\xff"), 0)
	},
	"flags": func(_ string, fd int) error { // FS_NODUMP_FL
		return unix.IoctlSetPointerInt(fd, 0x40086602, 0x40)
	},
	"chown":  func(p string, _ int) error { return unix.Chown(p, -1, otherGroup()) },
	"fchown": func(_ string, fd int) error { return unix.Fchown(fd, -1, otherGroup()) },
	"fchownat": func(p string, _ int) error {
		return unix.Fchownat(unix.AT_FDCWD, p, -1, otherGroup(), unix.AT_SYMLINK_NOFOLLOW)
	},
}

func pointer(s string) uintptr {
	b, _ := unix.BytePtrFromString(s)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(b))
}

var kept []*byte

// otherGroup is a group that the file may be given to: root's any, else one's
// own again, which shows in the time of the change.
func otherGroup() int {
	if os.Geteuid() == 0 {
		return 54321
	}
	return os.Getegid()
}

// attributesOf is what a change shows in.
func attributesOf(t *testing.T, p string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Mtim, st.Ctim)
}

func init() {
	helpers["attribute"] = func(a []string) error {
		f, err := os.Open(a[1])
		if err != nil {
			return err
		}
		defer f.Close()
		return changes[a[0]](a[1], int(f.Fd()))
	}
	// What the execution holds by a descriptor alone is its own.
	helpers["nameless"] = func([]string) error {
		var p [2]int
		if err := unix.Pipe(p[:]); err != nil {
			return err
		}
		s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		m, err := unix.MemfdCreate("x", unix.MFD_NOEXEC_SEAL)
		if err != nil {
			return err
		}
		f, err := os.CreateTemp(".", "")
		if err != nil {
			return err
		}
		os.Remove(f.Name())
		for _, fd := range []int{p[0], s[0], m, int(f.Fd())} {
			if err := unix.Fchmod(fd, 0o600); err != nil {
				return fmt.Errorf("fchmod: %w", err)
			}
			if err := unix.Fchown(fd, -1, -1); err != nil {
				return fmt.Errorf("fchown: %w", err)
			}
		}
		ts := [2]unix.Timespec{{Sec: 7}, {Sec: 7}}
		return errnoOf(unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0))
	}
	// attrswap races a path in memory and a descriptor's number.
	helpers["attrswap"] = func(a []string) error {
		good, bad := a[0], a[1]
		rounds, err := strconv.Atoi(a[2])
		if err != nil {
			return err
		}
		if len(good) != len(bad) {
			return fmt.Errorf("%q and %q differ in length", good, bad)
		}
		path := append([]byte(good), 0)
		open := func(p string) int {
			fd, _ := unix.Open(p, unix.O_RDONLY, 0)
			return fd
		}
		fds := []int{open(good), open(bad)}
		slot, _ := unix.Dup(fds[0])
		var stop atomic.Bool
		done := make(chan bool)
		go func() {
			runtime.LockOSThread()
			defer close(done)
			for i := 0; !stop.Load(); i++ {
				copy(path, []string{good, bad}[i&1])
				unix.Dup3(fds[i&1], slot, 0)
			}
		}()
		defer func() { stop.Store(true); <-done }()
		for range rounds {
			at := unix.AT_FDCWD
			unix.Syscall(unix.SYS_FCHMODAT, uintptr(at), uintptr(unsafe.Pointer(&path[0])), 0o777)
			unix.Fchmod(slot, 0o777)
			var st unix.Stat_t
			if err := unix.Stat(bad, &st); err != nil || st.Mode&0o7777 == 0o777 {
				return err
			}
		}
		return errors.New("never won")
	}
}

func TestNestedAttributes(t *testing.T) {
	inNested(t)
	b := newBox(t)
	b.helper()
	target := filepath.Join(filepath.Dir(b.dir), "target-of-changes")
	own := b.path("own")
	fresh := func(p string) {
		os.Remove(p)
		if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(p, "user.first", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			fresh(target)
			before := attributesOf(t, target)
			f, err := os.Open(target)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(b.dir)
			err = change(target, int(f.Fd()))
			f.Close()
			if err == unix.EOPNOTSUPP || err == unix.ENOTTY {
				t.Skipf("this file system has none: %v", err)
			}
			if err != nil || attributesOf(t, target) == before {
				t.Fatalf("the control changed nothing, so the attack proves nothing: %v", err)
			}
			fresh(target)
			before = attributesOf(t, target)
			b.refused("attribute", name, target)
			if after := attributesOf(t, target); after != before {
				t.Errorf("%s became %s", before, after)
			}
			fresh(own)
			if name == "flags" || os.Geteuid() == 0 && (name == "chown" || name == "fchown" || name == "fchownat") {
				return // those that the execution cannot do to its own either
			}
			before = attributesOf(t, own)
			b.works("attribute", name, own)
			if attributesOf(t, own) == before {
				t.Error("its own file is as before")
			}
		})
	}
	b.works("nameless")
	fresh(b.path("good"))
	evil := filepath.Join(filepath.Dir(b.dir), "evil")
	fresh(evil)
	good := b.path("good")
	for len(evil) < len(good) { // of one length
		evil = filepath.Dir(b.dir) + "/" + evil[len(filepath.Dir(b.dir)):]
	}
	control := b.helper("attrswap", good, evil, "10000000")
	if out, err := exec.Command(control[0], control[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("the control lost: %v %s", err, out)
	}
	fresh(evil)
	b.refused("attrswap", good, evil, "500")
}

// Every call of the class is known to the supervisor: one that it did not know
// would not be answered by it.
func TestNestedKnowsEveryAttributeCall(t *testing.T) {
	asked := map[string]bool{}
	for _, r := range filter.Table(filter.Options{Notify: filter.Attributes}) {
		if r.Action == filter.Notify {
			asked[r.Syscall] = true
		}
	}
	if len(asked) < 20 {
		t.Fatalf("only %d calls", len(asked))
	}
	n := &notifier{}
	for name := range asked {
		q := &notification{pid: uint32(os.Getpid()), nr: int32(filter.Number(name))}
		if q.nr < 0 {
			continue
		}
		if c, err := n.attributeOf(q); c == nil && err == nil {
			t.Errorf("%s is put to the supervisor, which does not know it", name)
		}
	}
}
