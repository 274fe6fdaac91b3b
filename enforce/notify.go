//go:build linux

package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// The notify loop answers system calls that seccomp put to the supervisor. It
// knows no mounts: what makes a program executable is behind approver.
//
// Answering CONTINUE lets the kernel read its arguments again, which another
// thread may have changed by then. So CONTINUE is only ever given where the
// kernel refuses by itself whatever was not decided on; everything else is done
// by the supervisor, on descriptors.

// approver makes approved programs executable, and nothing else.
type approver interface {
	// Approve makes the copy what is executed at f's place, until Vacate.
	Approve(p programs.Process, f *programs.File, c *programs.Copy) error
	// Executable opens a copy so that it can be mapped executable; the
	// descriptor is the caller's.
	Executable(c *programs.Copy) (int, error)
	// Vacate gives the place back to the file that was there before, so that
	// it can be written, renamed or removed. It does nothing elsewhere.
	Vacate(f *programs.File) error
	// Occupied says whether Vacate could have anything to do, Owns whether it
	// could on the mount of that id.
	Occupied() bool
	Owns(mount uint64) bool
}

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32 // thread id, as the supervisor sees it
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64

	epoch    uint64     // of the policy set when it came; not the kernel's
	admitted []admitted // what an execve was decided to run; not the kernel's
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

const (
	ioctlRecv     = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlIDValid  = 0x40082102
	ioctlAddFD    = 0x40182103
	ioctlSetFlags = 0x40082104

	flagContinue = 1
	addFDSetFD   = 1
	addFDSend    = 2
	syncWakeUp   = 1
)

// notifier answers the notifications of one execution.
type notifier struct {
	fd       int // the listener
	gate     exeq.Gate
	warden   Warden // nil: none
	rights   *exeq.Rights
	store    *programs.Store
	approver approver
	who      identity  // whom the execution runs as
	labels   *labels   // nil where no read is labelled
	observer *observer // nil where nobody learns
	nested   *nested   // nil in every other tier
	sockets  *socketTable
	decided  ledger
	log      *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc

	canary  programs.Identity
	run     *exeq.Resource // while the permit's own program is admitted
	workers sync.WaitGroup
	turns   turns
	execs   atomic.Int64
	denials atomic.Int64
	said    sync.Map     // messages that were given
	told    atomic.Int64 // how many of them
	out     io.Writer

	mu      sync.Mutex
	waiting map[uint64]uint32 // notification → thread that waits for us
	refused []refusal         // writes that the kernel refused, as it seems
	less    map[string]string // where the kernel gives less than the rights, and why
	began   int64             // when the execution did, as files have it
	held    chan struct{}     // not nil: nothing is answered until it closes
	rulings map[rulingKey]bool
	epoch   uint64               // of the policy set, see reload
	vouched map[vouched]vouchers // the warden lets them be executed or mapped, in that state
	// free are files that lie where rights leave everything executable, and
	// that need nothing else but such files: by their inode on such a mount
	// they are known to be allowed, whatever they are called.
	free map[programs.Identity]exeq.Resource
	// chained are programs of which all but themselves is free.
	chained map[programs.Identity]bool
	mapped  map[programs.Identity]bool // seen at an executable mapping
	root    int                        // the execution's root, O_PATH
}

// rulingKey is what a cacheable ruling holds for.
type rulingKey struct {
	action, path string
	digest       exeq.Digest
}

func (n *notifier) ioctl(op uintptr, p unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), op, uintptr(p))
	return errno
}

// next waits for a notification. io.EOF: nothing is left that could send one.
func (n *notifier) next() (*notification, error) {
	for {
		q := new(notification)
		switch errno := n.ioctl(ioctlRecv, unsafe.Pointer(q)); errno {
		case 0:
			n.mu.Lock()
			n.waiting[q.id], q.epoch = q.pid, n.epoch
			n.mu.Unlock()
			return q, nil
		case unix.EINTR:
		case unix.ENOENT: // the thread died, or the last one did
			p := []unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, 0); err == nil && p[0].Revents&unix.POLLHUP != 0 {
				return nil, io.EOF
			}
		default:
			return nil, fmt.Errorf("seccomp listener: %w", errno)
		}
	}
}

// stop ends what still waits for a ruling and returns when no worker is left
// that could use a descriptor of ours. Kernels before 6.6 do not tell a worker
// that nobody can notify it any more: there it, and the listener, remain.
func (n *notifier) stop() {
	n.cancel()
	done := make(chan struct{})
	go func() {
		n.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
	case <-time.After(time.Second):
		n.log.Warn("a ruling or a wait outlives the execution")
	}
}

// quick answers what needs neither a ruling nor a mount.
func (n *notifier) quick(q *notification) bool {
	if n.nested != nil {
		return n.nested.quick(n, q)
	}
	if n.observer != nil {
		return false
	}
	switch q.nr {
	case sysRename, sysRenameat, sysRenameat2, sysUnlink, sysUnlinkat, sysRmdir, sysCreat, sysTruncate,
		sysLink, sysLinkat, sysMkdir, sysMkdirat, sysMknod, sysMknodat, sysSymlink, sysSymlinkat, sysChmod, sysFchmodat, sysFchmodat2:
		return n.quickWrite(q)
	case sysOpen, sysOpenat:
		return n.labels == nil && n.quickWrite(q)
	case sysMmap:
		return n.quickMap(q)
	case sysExecve:
		return n.quickExec(q)
	case sysAccess, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2:
		n.handle(q)
		return true
	}
	return false
}

// handle answers one notification, whatever it takes.
func (n *notifier) handle(q *notification) {
	if n.observer != nil && n.observe(q) {
		n.resume(q)
		return
	}
	if n.nested != nil && n.nested.handle(n, q) {
		return
	}
	switch q.nr {
	case sysExecve:
		n.exec(q, unix.AT_FDCWD, q.args[0], q.args[1], 0)
	case sysExecveat:
		n.exec(q, int(int32(q.args[0])), q.args[1], q.args[2], int(int32(q.args[4])))
	case sysMmap:
		n.mapFile(q)
	case sysMemfd:
		n.memfd(q)
	case sysOpen, sysOpenat:
		n.open(q)
	case sysCreat, sysTruncate, sysUnlink, sysUnlinkat, sysRmdir, sysRename, sysRenameat, sysRenameat2,
		sysLink, sysLinkat, sysMkdir, sysMkdirat, sysMknod, sysMknodat, sysSymlink, sysSymlinkat, sysChmod, sysFchmodat, sysFchmodat2:
		n.write(q)
	case sysAccess:
		n.access(q, unix.AT_FDCWD, q.args[0], q.args[1], 0)
	case unix.SYS_FACCESSAT:
		n.access(q, int(int32(q.args[0])), q.args[1], q.args[2], 0)
	case unix.SYS_FACCESSAT2:
		n.access(q, int(int32(q.args[0])), q.args[1], q.args[2], int(int32(q.args[3])))
	case sysConnect:
		n.connect(q, q.args[1], q.args[2])
	case sysSendto:
		n.sendto(q)
	default:
		n.fail(q, unix.ENOSYS)
	}
}

// ready blocks while the execution is held, and reports whether the thread
// still waits.
func (n *notifier) ready(q *notification) bool {
	for {
		n.mu.Lock()
		held := n.held
		n.mu.Unlock()
		if held == nil {
			break
		}
		select {
		case <-held:
		case <-n.ctx.Done():
			return false
		}
	}
	return n.valid(q)
}

// valid reports whether the thread still waits, so that its pid is still its
// own and what was read of it was its own.
func (n *notifier) valid(q *notification) bool {
	id := q.id
	return n.ioctl(ioctlIDValid, unsafe.Pointer(&id)) == 0
}

func (n *notifier) send(q *notification, r response) {
	if n.ready(q) {
		r.id = q.id
		for n.ioctl(ioctlSend, unsafe.Pointer(&r)) == unix.EINTR {
		}
	}
	n.forget(q)
}

func (n *notifier) forget(q *notification) {
	n.mu.Lock()
	delete(n.waiting, q.id)
	n.mu.Unlock()
}

// resume lets the kernel do the call.
func (n *notifier) resume(q *notification) { n.send(q, response{flags: flagContinue}) }

// fail answers with an errno.
func (n *notifier) fail(q *notification, e unix.Errno) { n.send(q, response{err: -int32(e)}) }

// failAs answers with the errno in err, or EPERM if it holds none.
func (n *notifier) failAs(q *notification, err error) {
	var e unix.Errno
	if !errors.As(err, &e) || e == 0 {
		n.log.Warn("refused for a fault", "error", err)
		e = unix.EPERM
	}
	n.fail(q, e)
}

// give hands a descriptor over. at < 0: a new number, which answers the call;
// else it replaces the descriptor with that number.
func (n *notifier) give(q *notification, fd int, at int, cloexec bool) unix.Errno {
	if !n.ready(q) {
		return unix.ENOENT
	}
	a := addFD{id: q.id, srcfd: uint32(fd)}
	if at >= 0 {
		a.flags, a.newfd = addFDSetFD, uint32(at)
	} else {
		a.flags = addFDSend
	}
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	for {
		if e := n.ioctl(ioctlAddFD, unsafe.Pointer(&a)); e != unix.EINTR {
			return e
		}
	}
}

// deny counts a denial and says its message once.
func (n *notifier) deny(message string) {
	n.denials.Add(1)
	n.say(message)
}

// maxSaid bounds the messages of one execution: who is denied under ever new names
// fills neither this process nor where its words go.
const maxSaid = 1000

// say gives a message once.
func (n *notifier) say(message string) {
	if message == "" || n.told.Load() >= maxSaid {
		return
	}
	if _, again := n.said.LoadOrStore(message, true); again {
		return
	}
	told := n.told.Add(1)
	if told > maxSaid {
		return
	}
	fmt.Fprintf(n.out, "exeq: %s\n", message)
	if told == maxSaid {
		fmt.Fprintf(n.out, "exeq: these were %d messages, and there are no more: exeq log tells of the rest\n", maxSaid)
	}
}

// ask puts an activity to the gate, through the cache.
func (n *notifier) ask(a exeq.Activity) bool {
	key := rulingKey{a.Action, a.Resource.ID, a.Resource.SHA256}
	n.mu.Lock()
	known := n.rulings[key]
	n.mu.Unlock()
	if known {
		n.gate.Seen(a, true)
		return true
	}
	n.mu.Lock()
	epoch := n.rulings
	n.mu.Unlock()
	r := n.gate.Ask(n.ctx, a)
	if !r.Allow {
		n.deny(r.Message)
		return false
	}
	if r.Cacheable {
		n.mu.Lock()
		epoch[key] = true // of the policy set that was asked, see reload
		n.mu.Unlock()
	}
	return true
}

// readString reads a NUL-terminated string of at most limit bytes.
func readString(pid int, at uint64, limit int) (string, error) {
	var out []byte
	buf := make([]byte, min(limit, 512)) // most are short
	for len(out) < limit {
		// Not across a page: the next one may not be there.
		size := min(len(buf), limit-len(out), 4096-int(at&4095))
		got, err := readMemory(pid, at, buf[:size])
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(buf[:got], 0); i >= 0 {
			return string(append(out, buf[:i]...)), nil
		}
		out = append(out, buf[:got]...)
		at += uint64(got)
	}
	return "", unix.ENAMETOOLONG
}

func readMemory(pid int, at uint64, b []byte) (int, error) {
	if at == 0 || len(b) == 0 {
		return 0, unix.EFAULT
	}
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err == unix.EPERM || err == unix.ENOSYS { // a container's filter
		got, err = readMem(pid, at, b)
	}
	if err == nil && got <= 0 {
		err = unix.EFAULT
	}
	return got, err
}

func readMem(pid int, at uint64, b []byte) (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.Pread(fd, b, int64(at))
	if err == unix.EIO {
		err = unix.EFAULT
	}
	return n, err
}

// path reads a path argument.
func (n *notifier) path(q *notification, at uint64) (string, error) {
	return readString(int(q.pid), at, exeq.MaxPathBytes)
}
