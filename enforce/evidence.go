//go:build linux

package enforce

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// Evidence implements exeq.Running. What cannot be measured is a fault, never
// a guess.
func (r *running) Evidence(ctx context.Context) (*exeq.Evidence, error) {
	if r.isGone() {
		return nil, exeq.ErrGone
	}
	ev := &exeq.Evidence{Time: exeq.At(time.Now()), Supervisor: true}
	r.mu.Lock()
	r.sequence++
	ev.Sequence = r.sequence
	ev.WallMillis = (now() - r.released) / int64(time.Millisecond)
	ev.Stopped = r.suspended
	r.mu.Unlock()
	r.notify.tick()
	var err error
	answers := r.agent.Answers()
	awake := r.agent.Wake()
	ev.Environment, ev.Faults = r.environmentNow()
	ev.Programs, ev.Processes = r.programsNow(&ev.Faults)
	if !ev.Stopped && r.tty != nil {
		r.unstick(&ev.Faults)
	}
	if awake == nil {
		ev.Watchdog = r.answered(answers)
	}
	if len(ev.Environment.Namespaces) == 0 {
		// Nothing alive was met: it is just ending, which init's end will tell.
		p := []unix.PollFd{{Fd: int32(r.initFD), Events: unix.POLLIN}}
		unix.Poll(p, int(r.launch.Lease.Milliseconds())/2)
		ev.Faults = append(ev.Faults, "no process is alive and init is")
	}
	if r.launch.Rights.Quotas.OutputBytes > 0 && outputKnown() {
		ev.OutputBytes = r.outputNow(&ev.Faults)
	}
	slices.Sort(ev.Faults)
	if r.isGone() {
		return nil, exeq.ErrGone
	}
	r.mu.Lock()
	r.challenge, r.challenged = "", now()
	r.mu.Unlock()
	// A warden's challenge is as fresh: one renewal answers for both leases.
	if ev.Challenge, err = r.newChallenge(ctx); err != nil {
		return nil, r.unlessGone(err)
	}
	r.mu.Lock()
	r.challenge = ev.Challenge
	r.mu.Unlock()
	return ev, nil
}

// unlessGone gives an error unless the execution is gone: what failed because it
// ended by itself says nothing against it. r.mu is not held.
func (r *running) unlessGone(err error) error {
	if err != nil && r.isGone() {
		return exeq.ErrGone
	}
	return err
}

func (r *running) isGone() bool {
	select {
	case <-r.gone:
		return true
	default:
	}
	p := []unix.PollFd{{Fd: int32(r.initFD), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	if err == nil && n > 0 {
		<-r.gone
		return true
	}
	return false
}

// answered waits a moment for the agent to count on. One that is late because
// the machine is busy has until the end of a lease: it holds the lease by
// itself, and its death is everyone's.
func (r *running) answered(before int64) bool {
	for start := now(); now()-start < int64(r.launch.Lease)/10; {
		if r.agent.Answers() != before {
			r.mu.Lock()
			r.heard = now()
			r.mu.Unlock()
			return true
		}
		unix.Poll(nil, 1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return now()-max(r.heard, r.released) < int64(r.launch.Lease)
}

// processes lists what lives inside, process 1 aside, by the ids of the
// execution's own /proc.
func (r *running) processes() ([]int, error) {
	fd, err := unix.Openat(r.procFD, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), "proc")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid > 1 && (r.mark == 0 || r.member(pid)) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// readProc reads a file of the execution's /proc.
func (r *running) readProc(name string) (string, error) {
	fd, err := unix.Openat(r.procFD, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var b strings.Builder
	_, err = f.WriteTo(&b)
	return b.String(), err
}

// executes gives the inode that a process executes.
func (r *running) executes(pid int, st *unix.Stat_t) error {
	return unix.Fstatat(r.procFD, strconv.Itoa(pid)+"/exe", st, 0)
}

// programsNow compares what runs with what was decided on.
func (r *running) programsNow(faults *[]string) ([]exeq.Program, int) {
	pids, err := r.processes()
	if err != nil {
		*faults = append(*faults, "processes: "+err.Error())
		return nil, 0
	}
	seen := map[string]exeq.Program{}
	alive := 0
	for _, pid := range pids {
		var st unix.Stat_t
		if err := r.executes(pid, &st); err != nil {
			if err != unix.ENOENT && err != unix.ESRCH { // gone, or a zombie
				*faults = append(*faults, fmt.Sprintf("program of a process: %v", err))
			}
			continue
		}
		alive++
		p, ok := r.programOf(pid, &st)
		if !ok {
			continue
		}
		if old, again := seen[p.Path]; again {
			p.Intact = p.Intact && old.Intact
		}
		seen[p.Path] = p
	}
	out := make([]exeq.Program, 0, len(seen))
	for _, p := range seen {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b exeq.Program) int { return strings.Compare(a.Path, b.Path) })
	return out, alive
}

func (r *running) programOf(pid int, st *unix.Stat_t) (exeq.Program, bool) {
	d, intact, known := r.notify.decided.find(st)
	if known {
		if !intact {
			intact = r.sameBytes(pid, d.SHA256)
		}
		return exeq.Program{Path: d.ID, SHA256: d.SHA256, Intact: intact}, true
	}
	var own unix.Stat_t
	if unix.Stat("/proc/self/exe", &own) == nil && own.Dev == st.Dev && own.Ino == st.Ino {
		return exeq.Program{}, false // the command, before its first execve
	}
	path := "unknown"
	buf := make([]byte, exeq.MaxPathBytes)
	if n, err := unix.Readlinkat(r.procFD, strconv.Itoa(pid)+"/exe", buf); err == nil {
		path = exeq.EncodeBytes(string(buf[:n]))
	}
	return exeq.Program{Path: path}, true
}

// sameBytes: a new link or a changed mode alters an inode and not its bytes.
func (r *running) sameBytes(pid int, want exeq.Digest) bool {
	fd, err := unix.Openat(r.procFD, strconv.Itoa(pid)+"/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "exe")
	defer f.Close()
	h := sha256.New()
	if err := programs.CopyBytes(h, f, f.Name(), nil, r.ctx.Err); err != nil {
		return false
	}
	return exeq.Digest(h.Sum(nil)) == want
}

var namespaceNames = [...]string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

// environmentNow measures what must stay as it was at the start, over every
// process inside.
func (r *running) environmentNow() (exeq.Environment, []string) {
	var faults []string
	fault := func(what string, err error) { faults = append(faults, fmt.Sprintf("%s: %v", what, err)) }
	env := exeq.Environment{UID: r.who.uid, Namespaces: map[string]string{}, Seccomp: "filter", NoNewPrivs: true, Landlock: r.report.ABI}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		fault("boot id", err)
	}
	env.BootID = strings.TrimSpace(string(boot))
	if env.Mounts, err = r.mountsNow(); err != nil {
		fault("mounts", err)
	}
	pids, err := r.processes()
	if err != nil {
		fault("processes", err)
	}
	// What is measured here a process cannot change of itself once it has its
	// filter and no capabilities, so each is looked at once: many processes
	// must not make the tick late.
	before, after := r.inspected, make(map[inspectedKey]inspected, len(pids))
	for _, pid := range pids {
		var st unix.Stat_t
		if err := unix.Fstatat(r.procFD, strconv.Itoa(pid), &st, 0); err != nil {
			continue // gone
		}
		key := inspectedKey{pid, st.Ino}
		p, known := before[key]
		if !known {
			if p, err = r.inspect(pid); err != nil {
				if !gone(err) {
					fault("a process", err)
				}
				continue
			}
		}
		after[key] = p
		p.into(&env, r.who.uid)
	}
	r.inspected = after
	return env, faults
}

// inspectedKey tells processes apart: proc makes an inode for each anew.
type inspectedKey struct {
	pid int
	ino uint64
}

// inspected is what one process was found to be.
type inspected struct {
	dead       bool
	seccomp    string
	noNewPrivs bool
	uids       string
	namespaces [len(namespaceNames)]string
}

// into holds one process against the others.
func (p *inspected) into(env *exeq.Environment, uid int) {
	if p.dead {
		return
	}
	if p.seccomp != "2" {
		env.Seccomp = "not in every process"
	}
	env.NoNewPrivs = env.NoNewPrivs && p.noNewPrivs
	for _, id := range strings.Fields(p.uids) {
		if n, err := strconv.Atoi(id); err != nil || n != uid {
			env.UID = -1
		}
	}
	for i, name := range namespaceNames {
		switch got := p.namespaces[i]; env.Namespaces[name] {
		case "", got:
			env.Namespaces[name] = got
		default:
			env.Namespaces[name] = "differs"
		}
	}
}

func gone(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ESRCH, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// inspect looks at one process.
func (r *running) inspect(pid int) (inspected, error) {
	var out inspected
	p := strconv.Itoa(pid)
	status, err := r.readProc(p + "/status")
	if err != nil {
		return out, err
	}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			out.dead = strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X")
		case "Seccomp":
			out.seccomp = value
		case "NoNewPrivs":
			out.noNewPrivs = value == "1"
		case "Uid":
			out.uids = value
		}
	}
	if out.dead {
		return out, nil
	}
	for i, name := range namespaceNames {
		buf := make([]byte, 64)
		n, err := unix.Readlinkat(r.procFD, p+"/ns/"+name, buf)
		if err != nil {
			if r.ending(p) {
				out.dead = true
				return out, nil
			}
			return out, fmt.Errorf("namespace %s: %w", name, err)
		}
		out.namespaces[i] = string(buf[:n])
	}
	return out, nil
}

// ending reports whether a process is past its last instruction: it has left
// its namespaces, and what it was is no evidence any more.
func (r *running) ending(pid string) bool {
	stat, err := r.readProc(pid + "/stat")
	if err != nil {
		return gone(err)
	}
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 7 {
		return false
	}
	const exiting = 0x4 // PF_EXITING
	flags, err := strconv.ParseUint(f[6], 10, 64)
	return f[0] == "Z" || f[0] == "X" || err == nil && flags&exiting != 0
}

// hostMounts gives, of an execution's mounts, the lines by id of those that are
// copies of the host's: of what it has, or had when the copy was made.
func hostMounts(mounts []mountLine, before []byte) (map[uint64]string, error) {
	was, err := parseMounts(before)
	if err != nil {
		return nil, err
	}
	all, err := mountTable(os.Getpid())
	if err != nil {
		return nil, err
	}
	all = append(all, was...)
	type place struct{ device, root, point string }
	outside := make(map[place]bool, len(all))
	for _, m := range all {
		outside[place{m.device, m.root, m.point}] = true
	}
	host := make(map[uint64]string, len(all))
	for _, m := range mounts {
		if outside[place{m.device, m.root, m.point}] {
			host[m.id] = m.text
		}
	}
	return host, nil
}

// mountsNow digests the mount table, the mounts of approved programs and of
// their remains aside, and those that were the host's as long as they are as
// they were at the start: one goes when somebody removes its directory outside
// (a container that ends), and nothing is laid bare by that.
func (r *running) mountsNow() (exeq.Digest, error) {
	if r.tier == exeq.TierNested {
		return exeq.Digest{}, nil // none are Exeq's
	}
	mounts, err := r.binds.others()
	if err != nil {
		return exeq.Digest{}, err
	}
	if r.host == nil {
		if r.host, err = hostMounts(mounts, r.outside); err != nil {
			return exeq.Digest{}, err
		}
	}
	h := sha256.New()
	grave := r.slotPath()
	kept := []mountLine{}
	for _, m := range mounts {
		if m.point != grave && r.host[m.id] != m.text {
			h.Write([]byte(m.text))
			kept = append(kept, m)
		}
	}
	if r.mounts == nil {
		r.mounts = kept
	}
	digest := exeq.Digest(h.Sum(nil))
	if at := r.applied.Environment.Mounts; at != (exeq.Digest{}) && digest != at {
		return digest, errors.New(changedMounts(r.mounts, kept))
	}
	return digest, nil
}

// changedMounts says which mounts came and went.
func changedMounts(before, after []mountLine) string {
	was, is := map[string]bool{}, map[string]bool{}
	for _, m := range before {
		was[m.text] = true
	}
	var out []string
	for _, m := range after {
		is[m.text] = true
		if !was[m.text] {
			out = append(out, m.point+" is new")
		}
	}
	for _, m := range before {
		if !is[m.text] {
			out = append(out, m.point+" is gone")
		}
	}
	return exeq.EncodeBytes(strings.Join(out[:min(len(out), 4)], ", "))
}
