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
)

// Evidence implements exeq.Running. What cannot be measured is a fault, never
// a guess.
func (r *running) Evidence(ctx context.Context) (*exeq.Evidence, error) {
	if r.isGone() {
		return nil, exeq.ErrGone
	}
	ev := &exeq.Evidence{Time: exeq.At(time.Now()), Supervisor: true, Challenge: newChallenge()}
	r.mu.Lock()
	r.sequence++
	ev.Sequence = r.sequence
	ev.WallMillis = (now() - r.released) / int64(time.Millisecond)
	ev.Stopped = r.suspended
	r.mu.Unlock()
	answers := r.agent.Answers()
	awake := r.agent.Wake()
	ev.Environment, ev.Faults = r.environmentNow()
	ev.Programs, ev.Processes = r.programsNow(&ev.Faults)
	if !ev.Stopped {
		r.unstick(&ev.Faults)
	}
	if awake == nil {
		ev.Watchdog = r.answered(answers)
	}
	ev.OutputBytes = 0
	slices.Sort(ev.Faults)
	if r.isGone() {
		return nil, exeq.ErrGone
	}
	r.mu.Lock()
	r.challenge, r.challenged = ev.Challenge, now()
	r.mu.Unlock()
	return ev, nil
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
	if _, err := f.WriteTo(h); err != nil {
		return false
	}
	return exeq.Digest(h.Sum(nil)) == want
}

var namespaceNames = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

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
	for _, pid := range pids {
		if err := r.inspect(pid, &env); err != nil && !gone(err) {
			fault("a process", err)
		}
	}
	return env, faults
}

func gone(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ESRCH, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// inspect holds one process against the others.
func (r *running) inspect(pid int, env *exeq.Environment) error {
	p := strconv.Itoa(pid)
	status, err := r.readProc(p + "/status")
	if err != nil {
		return err
	}
	field := func(name string) string {
		for line := range strings.Lines(status) {
			if s, ok := strings.CutPrefix(line, name+":"); ok {
				return strings.TrimSpace(s)
			}
		}
		return ""
	}
	if s := field("State"); strings.HasPrefix(s, "Z") || strings.HasPrefix(s, "X") {
		return nil
	}
	if field("Seccomp") != "2" {
		env.Seccomp = "off in process " + p
	}
	if field("NoNewPrivs") != "1" {
		env.NoNewPrivs = false
	}
	for _, id := range strings.Fields(field("Uid")) {
		if n, err := strconv.Atoi(id); err != nil || n != r.who.uid {
			env.UID = -1
		}
	}
	for _, name := range namespaceNames {
		buf := make([]byte, 64)
		n, err := unix.Readlinkat(r.procFD, p+"/ns/"+name, buf)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
		switch got := string(buf[:n]); env.Namespaces[name] {
		case "", got:
			env.Namespaces[name] = got
		default:
			env.Namespaces[name] = "differs"
		}
	}
	return nil
}

// mountsNow digests the mount table, the mounts of approved programs and of
// their remains aside.
func (r *running) mountsNow() (exeq.Digest, error) {
	if r.tier == exeq.TierNested {
		return exeq.Digest{}, nil // none are Exeq's
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", r.agent.PID))
	if err != nil {
		return exeq.Digest{}, err
	}
	h := sha256.New()
	grave := r.slotPath()
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			return exeq.Digest{}, fmt.Errorf("mount table: a line of %d fields", len(f))
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return exeq.Digest{}, fmt.Errorf("mount table: %w", err)
		}
		if r.binds.owns(id) || f[4] == grave {
			continue
		}
		h.Write([]byte(line))
	}
	return exeq.Digest(h.Sum(nil)), nil
}
