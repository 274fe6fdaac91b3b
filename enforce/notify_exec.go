//go:build linux

package enforce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// exec decides on an execve. It continues only when every file that it runs
// is approved: an unapproved one lies on a noexec mount and the kernel refuses
// it, whatever the path says by then.
func (n *notifier) exec(q *notification, dirfd int, path, argv uint64, flags int) {
	name, err := n.path(q, path)
	if err != nil {
		n.failAs(q, err)
		return
	}
	if name == "" && flags&unix.AT_EMPTY_PATH == 0 {
		n.fail(q, unix.ENOENT)
		return
	}
	follow := programs.FollowLast
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		follow = programs.NoFollow
	}
	p := programs.Process{PID: int(q.pid)}
	f, err := p.Resolve(dirfd, name, follow)
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer f.Close()
	if f.ID == n.canary {
		n.fail(q, unix.EPERM)
		return
	}
	if e := n.runnable(f); e != 0 {
		n.fail(q, e)
		return
	}
	if limit := n.rights.Quotas.Execs; limit > 0 && n.execs.Load() >= int64(limit) {
		n.deny(fmt.Sprintf("exec %s denied: the permit allows %d execs", exeq.EncodeBytes(f.Path), limit))
		n.fail(q, unix.EPERM)
		return
	}
	args := func() ([]string, error) { return n.argv(q, argv) }
	if err := n.admitChain(p, q, f, args); err != nil {
		n.failAs(q, err)
		return
	}
	n.execs.Add(1)
	n.proceed(q)
}

// runnable gives the errno for what the kernel would not execute anyway. It
// answers itself, so that nothing else can stand there a moment later.
func (n *notifier) runnable(f *programs.File) unix.Errno {
	if !f.Regular() || f.ID.Mode&0o111 == 0 || !n.who.may(f, unix.X_OK) {
		return unix.EACCES
	}
	return 0
}

// admitChain decides on a program and on everything that running it runs.
func (n *notifier) admitChain(p programs.Process, q *notification, f *programs.File, args func() ([]string, error)) error {
	if err := n.admit(p, q, f, exeq.ActionExec, args); err != nil {
		return err
	}
	n.mu.Lock()
	known := n.chained[f.ID]
	n.mu.Unlock()
	if known && n.warden == nil { // a warden knows what is behind f by its inode
		return nil
	}
	chain, err := p.Chain(f)
	defer func() {
		for _, c := range chain[1:] {
			c.Close()
		}
	}()
	if errors.Is(err, programs.ErrFormat) {
		return fmt.Errorf("%w: %w", unix.ENOEXEC, err)
	}
	if err != nil {
		return err
	}
	q.admitted = append(q.admitted, admitted{id: f.ID, path: f.Path})
	free := true // all behind f lies where everything may be executed
	for i, c := range chain {
		free = free && (i == 0 || !c.Noexec && n.everything(c))
		if i == 0 {
			continue
		}
		action := exeq.ActionExec
		if i == len(chain)-1 && n.isLoader(chain[i-1]) {
			action = exeq.ActionMap
		}
		if err := n.admit(p, q, c, action, args); err != nil {
			return err
		}
		q.admitted = append(q.admitted, admitted{c.ID, c.Path, action == exeq.ActionMap})
	}
	if free && !f.Noexec && n.nested == nil {
		n.mu.Lock()
		n.chained[f.ID] = true
		n.mu.Unlock()
		if n.everything(f) {
			n.setFree(f)
		}
	}
	return nil
}

// setFree remembers a file whose whole chain lies where everything may be
// executed; mounts of single approved programs do not count.
func (n *notifier) setFree(f *programs.File) {
	r, _, known := n.decided.find(&unix.Stat_t{Dev: f.ID.Dev, Ino: f.ID.Ino})
	if !known {
		return
	}
	n.mu.Lock()
	n.free[f.ID] = r
	n.mu.Unlock()
}

// quickExec continues an execve by absolute path of a file that is known to be
// free: by descriptor it is that inode, on a mount that is executable.
func (n *notifier) quickExec(q *notification) bool {
	if limit := n.rights.Quotas.Execs; limit > 0 {
		return false
	}
	name, err := n.path(q, q.args[0])
	if err != nil || name == "" || name[0] != '/' {
		return false
	}
	fd, err := unix.Openat2(n.root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	id, ok := executableInode(fd)
	if !ok {
		return false
	}
	n.mu.Lock()
	r, ok := n.free[id]
	n.mu.Unlock()
	if !ok {
		return false
	}
	n.gate.Seen(exeq.Activity{Action: exeq.ActionExec, PID: int(q.pid), Resource: r}, true)
	n.execs.Add(1)
	n.resume(q)
	return true
}

// quickMap continues a mapping of a file that was seen before, where it lies
// on a mount that is executable.
func (n *notifier) quickMap(q *notification) bool {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", q.pid, int32(q.args[4])), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	id, ok := executableInode(fd)
	if !ok {
		return false
	}
	n.mu.Lock()
	ok = n.mapped[id]
	n.mu.Unlock()
	if ok {
		n.resume(q)
	}
	return ok
}

// executableInode gives the identity of a file on a mount without noexec.
func executableInode(fd int) (programs.Identity, bool) {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fs) != nil || fs.Flags&unix.ST_NOEXEC != 0 {
		return programs.Identity{}, false
	}
	return identityOf(&st), true
}

// everything reports whether rights leave all that lies there executable.
func (n *notifier) everything(f *programs.File) bool {
	return n.rights.Lookup(exeq.EncodeBytes(f.Path)).Exec == exeq.ExecAll
}

// isLoader: an ELF file's interpreter is mapped, a script's is executed.
func (n *notifier) isLoader(of *programs.File) bool {
	r, err := of.Open()
	if err != nil {
		return false
	}
	defer r.Close()
	format, err := programs.Inspect(r)
	return err == nil && format.ELF
}

// admit decides on one file and makes it executable. A denial is EPERM.
func (n *notifier) admit(p programs.Process, q *notification, f *programs.File, action string, args func() ([]string, error)) error {
	if f.Path == "" || f.Process() {
		n.deny(fmt.Sprintf("%s denied: the program has no path", action))
		return unix.EPERM
	}
	if f.Foreign {
		// Its mount is the host's: nothing keeps its bytes as they were decided on.
		n.deny(foreign(action, f))
		return unix.EPERM
	}
	if f.Stale && n.nested != nil {
		n.deny(fmt.Sprintf("%s %s denied: it was removed or renamed", action, exeq.EncodeBytes(f.Path)))
		return unix.EPERM
	}
	id := exeq.EncodeBytes(f.Path)
	a := exeq.Activity{Action: action, PID: int(q.pid), Resource: exeq.Resource{Type: "Program", ID: id}}
	access := n.rights.Lookup(id)
	var c *programs.Copy
	var err error
	if f.Noexec {
		if f.Stale {
			return unix.ENOENT
		}
		if c, err = n.store.Put(f, n.going(q)); err != nil {
			return n.unread(a, err)
		}
		defer c.File.Close()
		a.Resource.SHA256 = c.Digest
	} else if a.Resource.SHA256, err = n.store.Digest(f, n.going(q)); err != nil {
		return n.unread(a, err)
	}
	switch {
	case n.run != nil && n.run.ID == id && action == exeq.ActionExec:
		// The permit is for exactly these bytes.
		if n.run.SHA256 != a.Resource.SHA256 {
			return fmt.Errorf("%s changed since it was decided on: %w", id, unix.EACCES)
		}
		n.gate.Seen(a, true)
	case access.Exec == exeq.ExecAll:
		n.gate.Seen(a, true)
	default:
		if a.Argv, err = args(); err != nil {
			return err
		}
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", q.pid)); err == nil {
			a.Dir = exeq.EncodeBytes(dir)
		}
		if !n.valid(q) {
			return unix.ESRCH
		}
		// Rights are the upper bound: where they give nothing the gate is
		// asked for its words only.
		if !n.ask(a) || access.Exec == exeq.ExecNo {
			return unix.EPERM
		}
	}
	if n.nested == nil && !n.readable(f.Path, c != nil) {
		n.deny(fmt.Sprintf("%s %s denied: policy lets it run, and the kernel runs only what may be read; permit read of %s", action, id, exeq.EncodeBytes(path.Dir(f.Path))))
		return unix.EACCES
	}
	if c == nil {
		if n.nested != nil && action == exeq.ActionExec {
			if err := n.nested.plant(n, q, f, a.Resource.SHA256); err != nil {
				return err
			}
		}
		n.decided.add(f, a.Resource)
		return n.vouchInPlace(q, a, f)
	}
	if err := n.approver.Approve(p, f, c); err != nil {
		return err
	}
	if err := n.decided.addCopy(c, a.Resource); err != nil {
		return err
	}
	if !n.vouches(action) {
		return nil
	}
	return n.vouch(q, a, c.File) // in its place, which may have changed its mode
}

// foreign words the refusal of a file whose mount is not in the execution's
// table. One whose path is the root of its mount lay on the mount of an approved
// copy, which is taken away when the program is removed or written anew.
func foreign(action string, f *programs.File) string {
	if f.Path == "/" {
		return action + " denied: the program behind this descriptor was removed or replaced since it was opened"
	}
	return fmt.Sprintf("%s %s denied: it was opened outside the execution; name it by its path", action, exeq.EncodeBytes(f.Path))
}

// readable reports whether Landlock lets a program be read, without which it
// does not run. A copy that is mounted in its place is reached through the
// directory alone.
func (n *notifier) readable(p string, copied bool) bool {
	if copied {
		p = path.Join(path.Dir(p), "\x00")
	}
	return n.rights.Lookup(exeq.EncodeBytes(p)).Read
}

// argv reads an argument vector, encoded. What is larger than a request may be
// is refused, never cut.
func (n *notifier) argv(q *notification, at uint64) ([]string, error) {
	var out []string
	total := 0
	if at == 0 {
		return nil, nil
	}
	buf := make([]byte, 512)
	for {
		size := min(len(buf), 4096-int(at&4095))
		got, err := readMemory(int(q.pid), at, buf[:size])
		if err != nil {
			return nil, err
		}
		for i := 0; i+8 <= got; i += 8 {
			p := binary.NativeEndian.Uint64(buf[i:])
			if p == 0 {
				return out, nil
			}
			s, err := readString(int(q.pid), p, exeq.MaxRequestBytes-total)
			if err != nil {
				return nil, unix.E2BIG
			}
			if total += len(s) + 1; total >= exeq.MaxRequestBytes {
				return nil, unix.E2BIG
			}
			out = append(out, exeq.EncodeBytes(s))
		}
		at += uint64(got &^ 7)
		if got < 8 {
			return nil, unix.EFAULT
		}
	}
}

// mapFile decides on a file that is about to be mapped executable. A mapping
// of what is approved continues; of what is not, the descriptor is replaced by
// one of the store's copy, from a mount that allows it. The kernel refuses to
// map anything else executable from a noexec mount.
func (n *notifier) mapFile(q *notification) {
	fd := int(int32(q.args[4]))
	p := programs.Process{PID: int(q.pid)}
	f, err := p.Resolve(fd, "", programs.FollowLast)
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer f.Close()
	if f.Foreign {
		n.deny(foreign(exeq.ActionMap, f))
		n.fail(q, unix.EPERM)
		return
	}
	if !f.Noexec {
		// Approved, or of a tree that is executable as it is.
		a := exeq.Activity{Action: exeq.ActionMap, PID: int(q.pid), Resource: exeq.Resource{Type: "Program", ID: exeq.EncodeBytes(f.Path)}}
		switch a.Resource.SHA256, err = n.store.Digest(f, n.going(q)); {
		case err == nil:
			if err := n.vouchInPlace(q, a, f); err != nil {
				n.failAs(q, err)
				return
			}
			n.gate.Seen(a, true)
		case f.Regular():
			n.failAs(q, n.unread(a, err)) // or it would run without being on record
			return
		}
		n.mu.Lock()
		n.mapped[f.ID] = true
		n.mu.Unlock()
		n.resume(q)
		return
	}
	if !f.Regular() || f.Path == "" || f.Process() {
		n.resume(q) // the kernel refuses
		return
	}
	a := exeq.Activity{Action: exeq.ActionMap, PID: int(q.pid), Resource: exeq.Resource{Type: "Program", ID: exeq.EncodeBytes(f.Path)}}
	c, err := n.store.Put(f, n.going(q))
	if err != nil {
		n.failAs(q, n.unread(a, err))
		return
	}
	defer c.File.Close()
	a.Resource.SHA256 = c.Digest
	n.mapCopy(q, fd, a, c)
}

// mapCopy has a mapping be of the copy that was decided on.
func (n *notifier) mapCopy(q *notification, fd int, a exeq.Activity, c *programs.Copy) {
	switch access := n.rights.Lookup(a.Resource.ID); {
	case access.Exec == exeq.ExecAll:
		n.gate.Seen(a, true)
	case !n.valid(q):
		n.forget(q)
		return
	case !n.ask(a) || access.Exec == exeq.ExecNo:
		n.fail(q, unix.EPERM)
		return
	}
	if n.vouches(a.Action) {
		if err := n.vouch(q, a, c.File); err != nil {
			n.failAs(q, err)
			return
		}
	}
	exe, err := n.approver.Executable(c)
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer unix.Close(exe)
	flags, err := fdFlags(int(q.pid), fd)
	if err != nil {
		n.failAs(q, err)
		return
	}
	if e := n.give(q, exe, fd, flags&unix.O_CLOEXEC != 0); e != 0 {
		n.fail(q, e)
		return
	}
	n.resume(q)
}

// fdFlags reads the flags of another process's descriptor.
func fdFlags(pid, fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	var pos, flags int
	if _, err := fmt.Sscanf(string(b), "pos:\t%d\nflags:\t%o", &pos, &flags); err != nil {
		return 0, fmt.Errorf("fdinfo: %w", err)
	}
	return flags, nil
}

// memfd makes the memory file that was asked for, sealed against execution.
func (n *notifier) memfd(q *notification) {
	name, err := readString(int(q.pid), q.args[0], 250)
	if err != nil {
		n.failAs(q, err)
		return
	}
	const execFlags = unix.MFD_EXEC
	flags := int(q.args[1])
	if flags&execFlags != 0 {
		n.fail(q, unix.EPERM)
		return
	}
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL|unix.MFD_CLOEXEC)
	if err != nil {
		n.failAs(q, err)
		return
	}
	defer unix.Close(fd)
	if e := n.give(q, fd, -1, flags&unix.MFD_CLOEXEC != 0); e != 0 {
		n.fail(q, e)
		return
	}
	n.forget(q)
}
