//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func open(flags int, path string) func(string) error {
	return func(dir string) error {
		fd, err := unix.Open(filepath.Join(dir, path), flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func made(path string, made error) error {
	if made == nil {
		return os.RemoveAll(path)
	}
	return made
}

// moved renames there and back.
func moved(from, to string) func(string) error {
	return func(dir string) error {
		if err := unix.Rename(dir+"/"+from, dir+"/"+to); err != nil {
			return err
		}
		return unix.Rename(dir+"/"+to, dir+"/"+from)
	}
}

func linked(from, to string) func(string) error {
	return func(dir string) error { return made(dir+"/"+to, unix.Link(dir+"/"+from, dir+"/"+to)) }
}

// fileAttempts: see TestLSMFiles for what is set.
var fileAttempts = []attempt{
	{"read-ro", open(unix.O_RDONLY, "ro/file")},
	{"read-rw", open(unix.O_RDONLY, "rw/file")},
	{"write-rw", open(unix.O_WRONLY|unix.O_TRUNC, "rw/file")},
	{"write-wo", open(unix.O_WRONLY, "wo/file")},
	{"list-ro", open(unix.O_RDONLY|unix.O_DIRECTORY, "ro")},
	{"make-rw", func(dir string) error { return made(dir+"/rw/new", os.WriteFile(dir+"/rw/new", nil, 0o600)) }},
	{"makedir-rw", func(dir string) error { return made(dir+"/rw/newdir", unix.Mkdir(dir+"/rw/newdir", 0o700)) }},
	{"read-below-mask", open(unix.O_RDONLY, "rw/mask/open/file")},
	{"rename-rw", moved("rw/file", "rw/file2")},
	{"link-rw", linked("rw/file", "rw/file2")},
	{"chmod-rw", func(dir string) error { return unix.Chmod(dir+"/rw/file", 0o644) }},
	{"null", func(string) error { return open(unix.O_RDWR, "null")("/dev") }},
	{"pipe-again", func(string) error {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return err
		}
		return open(unix.O_WRONLY, fmt.Sprint(p[1]))("/proc/self/fd")
	}},

	{"write-ro", open(unix.O_WRONLY, "ro/file")},
	{"readwrite-ro", open(unix.O_RDWR, "ro/file")},
	{"truncate-open-ro", open(unix.O_RDONLY|unix.O_TRUNC, "ro/file")},
	{"truncate-ro", func(dir string) error { return unix.Truncate(dir+"/ro/file", 0) }},
	{"chmod-ro", func(dir string) error { return unix.Chmod(dir+"/ro/file", 0o644) }},
	{"chown-ro", func(dir string) error { return unix.Chown(dir+"/ro/file", 0, 0) }},
	{"make-ro", func(dir string) error { return made(dir+"/ro/new", os.WriteFile(dir+"/ro/new", nil, 0o600)) }},
	{"makedir-ro", func(dir string) error { return made(dir+"/ro/newdir", unix.Mkdir(dir+"/ro/newdir", 0o700)) }},
	{"symlink-ro", func(dir string) error { return made(dir+"/ro/s", unix.Symlink("file", dir+"/ro/s")) }},
	{"fifo-ro", func(dir string) error { return made(dir+"/ro/p", unix.Mkfifo(dir+"/ro/p", 0o600)) }},
	{"rename-ro", moved("ro/file", "ro/file2")},
	{"rename-ro-rw", moved("ro/file", "rw/file2")},
	{"rename-rw-ro", moved("rw/file", "ro/file2")},
	{"link-ro-rw", linked("ro/file", "rw/file2")},
	{"unlink-ro", func(dir string) error {
		if err := unix.Unlink(dir + "/ro/spare"); err != nil {
			return err
		}
		return os.WriteFile(dir+"/ro/spare", nil, 0o600)
	}},
	{"rmdir-ro", func(dir string) error {
		if err := unix.Rmdir(dir + "/ro/sparedir"); err != nil {
			return err
		}
		return os.Mkdir(dir+"/ro/sparedir", 0o700)
	}},
	{"tmpfile-ro", open(unix.O_TMPFILE|unix.O_WRONLY, "ro")},
	{"device-rw", func(dir string) error {
		return made(dir+"/rw/dev", unix.Mknod(dir+"/rw/dev", unix.S_IFCHR|0o600, 1<<8|3))
	}},
	{"read-out", open(unix.O_RDONLY, "out/file")},
	{"read-out-exec-flag", open(unix.O_RDONLY|0x20, "out/file")}, // the kernel's own FMODE_EXEC
	{"list-out", open(unix.O_RDONLY|unix.O_DIRECTORY, "out")},
	{"read-wo", open(unix.O_RDONLY, "wo/file")},
	{"rename-wo-rw", moved("wo/file", "rw/file2")},
	{"link-wo-rw", linked("wo/file", "rw/file2")},
	{"exchange-wo-rw", func(dir string) error {
		for range 2 {
			if err := unix.Renameat2(-1, dir+"/rw/file", -1, dir+"/wo/file", unix.RENAME_EXCHANGE); err != nil {
				return err
			}
		}
		return nil
	}},
	{"symlink-out", func(dir string) error {
		os.Symlink(dir+"/out/file", dir+"/rw/s")
		return made(dir+"/rw/s", open(unix.O_RDONLY, "rw/s")(dir))
	}},
	{"proc-root-out", func(dir string) error { return open(unix.O_RDONLY, "out/file")("/proc/self/root" + dir) }},
	{"reopen-out", func(dir string) error {
		fd, err := unix.Open(dir+"/out/file", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return open(unix.O_RDONLY, fmt.Sprint(fd))("/proc/self/fd")
	}},
	{"handle-out", func(dir string) error {
		h, _, err := unix.NameToHandleAt(-1, dir+"/out/file", 0)
		if err != nil {
			return err
		}
		at, err := unix.Open(dir+"/ro", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		fd, err := unix.OpenByHandleAt(at, h, unix.O_RDONLY)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
	{"uring-out", func(dir string) error { return uringOpen(dir+"/out/file", false) }},
	{"uring-rw", func(dir string) error { return uringOpen(dir+"/rw/file", false) }},

	{"read-mask", open(unix.O_RDONLY, "rw/mask/file")},
	{"read-secret", open(unix.O_RDONLY, "rw/secret")},
	{"write-secret", open(unix.O_WRONLY, "rw/secret")},
	{"link-secret", linked("rw/secret", "rw/other")},
	{"rename-secret", moved("rw/secret", "rw/other")},
	{"over-secret", func(dir string) error {
		os.WriteFile(dir+"/rw/x", nil, 0o600)
		defer os.Remove(dir + "/rw/x")
		if err := unix.Renameat2(-1, dir+"/rw/x", -1, dir+"/rw/secret", unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		return unix.Renameat2(-1, dir+"/rw/x", -1, dir+"/rw/secret", unix.RENAME_EXCHANGE)
	}},
	{"rename-above-mask", moved("rw/deep", "rw/other")},
	{"rename-above-mask-2", moved("rw/deep/er", "rw/other")},
	{"rename-mask", moved("rw/deep/er/mask", "rw/other")},
	{"make-absent", func(dir string) error { return made(dir+"/rw/absent", os.WriteFile(dir+"/rw/absent", nil, 0o600)) }},
	{"makedir-absent", func(dir string) error { return made(dir+"/rw/absent", unix.Mkdir(dir+"/rw/absent", 0o700)) }},
	{"symlink-absent", func(dir string) error { return made(dir+"/rw/absent", unix.Symlink("x", dir+"/rw/absent")) }},
	{"link-absent", linked("rw/file", "rw/absent")},
	{"rename-absent", moved("rw/file", "rw/absent")},
	{"chroot", func(dir string) error { return unix.Chroot("/") }},
	{"write-program", open(unix.O_WRONLY, "rw/program")},
	// Deeper than the way up is followed.
	{"deep", func(dir string) error {
		at := dir + "/rw"
		defer os.RemoveAll(at + "/d")
		for range 130 {
			at += "/d"
			if err := unix.Mkdir(at, 0o700); err != nil {
				return err
			}
		}
		return nil
	}},
	// A link that leads here and there while it is opened.
	{"swap", func(dir string) error {
		a, b := dir+"/rw/s1", dir+"/rw/s2"
		os.Symlink(dir+"/rw/file", a)
		os.Symlink(dir+"/out/file", b)
		defer os.Remove(a)
		defer os.Remove(b)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 4000 {
				unix.Renameat2(-1, a, -1, b, unix.RENAME_EXCHANGE)
			}
		}()
		for {
			select {
			case <-done:
				return unix.EPERM
			default:
			}
			if c, err := os.ReadFile(a); err == nil && string(c) == "out" {
				<-done
				return nil
			}
		}
	}},
}

// uringOpen opens a file by io_uring, with other credentials if it is to.
func uringOpen(path string, other bool) error {
	var params struct {
		entries, cqEntries, flags, cpu, idle, features, wq uint32
		_                                                  [3]uint32
		sq                                                 struct {
			head, tail, mask, entries, flags, dropped, array, _ uint32
			_                                                   uint64
		}
		cq struct {
			head, tail, mask, entries, overflow, cqes, flags, _ uint32
			_                                                   uint64
		}
	}
	fd, _, no := unix.Syscall(unix.SYS_IO_URING_SETUP, 2, uintptr(unsafe.Pointer(&params)), 0)
	if no != 0 {
		return no
	}
	defer unix.Close(int(fd))
	mapped := func(offset int64) []byte {
		b, err := unix.Mmap(int(fd), offset, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			panic(err)
		}
		return b
	}
	ring, sqes := mapped(0), mapped(0x10000000)
	defer unix.Munmap(ring)
	defer unix.Munmap(sqes)
	at := func(i uint32) *uint32 { return (*uint32)(unsafe.Pointer(&ring[i])) }
	name, _ := unix.BytePtrFromString(path)
	sqes[0] = 18                                        // IORING_OP_OPENAT
	*(*int32)(unsafe.Pointer(&sqes[4])) = unix.AT_FDCWD // fd
	*(*uintptr)(unsafe.Pointer(&sqes[16])) = uintptr(unsafe.Pointer(name))
	if other {
		id, _, no := unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, 9, 0, 0, 0, 0) // IORING_REGISTER_PERSONALITY
		if no != 0 {
			return no
		}
		*(*uint16)(unsafe.Pointer(&sqes[42])) = uint16(id)
	}
	*at(params.sq.array) = 0
	*at(params.sq.tail)++
	if _, _, no := unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, 1, 1, 1, 0, 0); no != 0 {
		return no
	}
	if *at(params.cq.tail) != 1 {
		return errors.New("no completion")
	}
	res := *(*int32)(unsafe.Pointer(&ring[params.cq.cqes+8])) // user_data, res, flags
	if res < 0 {
		return unix.Errno(-res)
	}
	return unix.Close(int(res))
}

// removeAttempts take away what is a place, and may be written.
var removeAttempts = []attempt{
	{"rmdir-place", func(dir string) error { return unix.Rmdir(dir + "/rw/kept") }},
	{"unlink-place", func(dir string) error { return unix.Unlink(dir + "/rw/keptfile") }},
	{"rename-place", func(dir string) error { return unix.Rename(dir+"/rw/keptdir", dir+"/rw/gone") }},
	{"rename-over-place", func(dir string) error { return unix.Rename(dir+"/rw/file", dir+"/rw/keptfile2") }},
}

// pinAttempts are about the pins of the gate: what succeeds takes it away.
var pinAttempts = []attempt{
	{"list", open(unix.O_RDONLY|unix.O_DIRECTORY, "")},
	{"unlink", func(dir string) error { return unix.Unlink(dir + "/link-" + lsmProgCheckUnlink) }},
	{"rename", func(dir string) error { return unix.Rename(dir, dir+"2") }},
	{"list-scopes", func(dir string) error { return open(unix.O_RDONLY|unix.O_DIRECTORY, "")(ScopesDir(dir)) }},
	{"unlink-scopes", func(dir string) error { return unix.Unlink(ScopesDir(dir) + "/map-" + scopeMapRules) }},
	{"rename-scopes", func(dir string) error { return unix.Rename(ScopesDir(dir), dir+"3") }},
}

var receiveAttempts = []attempt{{"receive", func(string) error {
	b, oob := make([]byte, 16), make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(3, b, oob, 0)
	if err != nil {
		return err
	}
	if all, err := unix.ParseSocketControlMessage(oob[:n]); err == nil && len(all) == 1 {
		if fds, err := unix.ParseUnixRights(&all[0]); err == nil && len(fds) == 1 {
			return nil
		}
	}
	return errors.New("nothing came")
}}}

// openAll prints of each path in the list whether it can be read and written.
func openAll(tmp string) {
	b, err := os.ReadFile(tmp + "-list")
	if err != nil {
		fmt.Println(err)
		return
	}
	for p := range strings.SplitSeq(string(b), "\n") {
		fmt.Println(p, open(unix.O_RDONLY, "")(p) == nil, open(unix.O_WRONLY, "")(p) == nil)
	}
}
