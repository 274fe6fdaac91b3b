//go:build linux

package node

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// TestEncloseBeforeAdmitted: a permit that is still being checked is none. Who
// sends a bad one and at once asks for its enclosure has neither that, nor the
// node's word on it.
func TestEncloseBeforeAdmitted(t *testing.T) {
	w := newWorld(t)
	d := w.draft()
	a := d.issue(t)
	other := *a.Rights
	other.Quotas.Processes = 7
	a.Rights = &other // refused, after its window was looked at
	x := newWaiting(t)
	dir := w.config.Cgroup + "/" + d.permit.Body.ID
	enclosed := make(chan error, 1)
	var once sync.Once
	w.node.burnt.mu.Lock()
	w.node.burnt.now = func() time.Time {
		once.Do(func() {
			go func() {
				_, err := w.ask(wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID}}, int(x.init.Fd()), int(x.command.Fd()))
				enclosed <- err
			}()
			for len(enclosed) == 0 { // the one or the other
				if _, err := os.Stat(dir); err == nil {
					t.Error("processes are taken in for a permit that was not checked")
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
		return time.Now()
	}
	w.node.burnt.mu.Unlock()
	_, err := w.ask(wire.Request{Admit: a})
	refused(t, err, permit.ErrRights)
	refused(t, <-enclosed, wire.ErrState)
}

// TestEndWhileEnclosing: what comes in while the execution is being ended does
// not outlive it.
func TestEndWhileEnclosing(t *testing.T) {
	w := newWorld(t)
	d := w.draft()
	_, err := w.ask(wire.Request{Admit: d.issue(t)})
	must(t, err)
	p := newWaiting(t)
	x, err := w.node.find(d.permit.Body.ID)
	must(t, err)
	x.approving.Add(1) // the end stands still behind its killing
	must(t, x.begin())
	over := make(chan error, 1)
	go func() { over <- w.node.end(x, "") }()
	for ends := false; !ends; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		ends = x.state == ending
		x.mu.Unlock()
	}
	time.Sleep(100 * time.Millisecond) // it may get further; the test holds without
	if _, err := w.node.close(x, netip.AddrPort{}, nil, p.init, p.command); err == nil {
		t.Error("the node signs for an execution that it ends")
	}
	x.approving.Done()
	x.approving.Done()
	must(t, <-over)
	p.gone(t, endTime)
	w.lifted()
}

// lifted waits until nothing is governed: what an execution took is given back
// by and by.
func (w *world) lifted() {
	w.t.Helper()
	for end := time.Now().Add(endTime); ; time.Sleep(time.Millisecond) {
		states, err := w.node.gate.Governed()
		must(w.t, err)
		if len(states) == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("left governed: %v", states)
		}
	}
}

// TestHeldDoesNotRun: a lease is suspended as long as everything stands still,
// and not because it was asked to.
func TestHeldDoesNotRun(t *testing.T) {
	w := newWorld(t)
	d, p := w.enclosed()
	named := &wire.Named{Permit: d.permit.Body.ID}
	_, err := w.ask(wire.Request{Hold: named})
	must(t, err)
	x, err := w.node.find(named.Permit)
	must(t, err)
	must(t, x.freeze("0")) // what the kernel cannot freeze goes on so
	p.gone(t, exeq.DefaultLease+endTime)
	_, err = w.ask(wire.Request{Resume: named})
	refused(t, err, exeq.ErrRevoked)
}

// TestMovedOutDies: before Linux 6.13 the kernel cannot kill what another moves
// out of its cgroup, and tells.
func TestMovedOutDies(t *testing.T) {
	w := newWorld(t)
	d, p := w.enclosed()
	x, err := w.node.find(d.permit.Body.ID)
	must(t, err)
	moved, later := exec.Command("sleep", "30"), exec.Command("sleep", "1000")
	must(t, moved.Start())
	at := boottime()
	time.Sleep(2 * time.Second / ticks)
	must(t, later.Start())
	defer later.Wait()
	defer later.Process.Kill()
	w.node.saw(bpf.Event{Cgroup: x.cgroup, Verb: "move", Why: "left", Alive: true, PID: later.Process.Pid, At: at})
	w.node.saw(bpf.Event{Cgroup: x.cgroup, Verb: "move", Why: "left", Alive: true, PID: moved.Process.Pid, At: at})
	if err := moved.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("what was moved out: %v", err)
	}
	p.gone(t, endTime)
	if !alive(pidfd(t, later.Process.Pid)) {
		t.Error("a stranger who got the number later was killed")
	}
}

// TestOrdersLost: where the gate had no room to say what is to be killed,
// everything is.
func TestOrdersLost(t *testing.T) {
	w := newWorld(t)
	d, p := w.enclosed()
	w.challenge(d)
	m, err := ebpf.LoadPinnedMap(filepath.Join(w.config.Pins, "map-dropped"), nil)
	must(t, err)
	defer m.Close()
	must(t, m.Put(uint32(1), uint64(1)))
	p.gone(t, 20*time.Second)
	if err := w.node.lostOrders(); err != nil {
		t.Errorf("said again: %v", err)
	}
}

// TestPace: of a flood, so many are read in a glance.
func TestPace(t *testing.T) {
	p, now := pace{most: 3}, time.Hour
	for i, want := range []time.Duration{0, 0, 0, glance - 1, 0, 0, glance} {
		if i == 3 {
			now++
		}
		if got := p.wait(now); got != want {
			t.Errorf("event %d waits %s, not %s", i, got, want)
		}
		now += want * time.Duration(min(i, 1)) // it waited
	}
	for all := (pace{}); all.read < 10000; {
		if all.wait(now) != 0 {
			t.Fatal("an order waits")
		}
	}
}

// TestLivesOutside: as long as anything lives that the execution governs, also
// outside of its cgroup, everything stays refused to it, beyond a restart too.
func TestLivesOutside(t *testing.T) {
	w := newWorld(t)
	d, p := w.enclosed()
	x, err := w.node.find(d.permit.Body.ID)
	must(t, err)
	marks, err := ebpf.LoadPinnedMap(filepath.Join(w.config.Pins, "map-marks"), nil)
	must(t, err)
	defer marks.Close()
	somebody := uint64(1) // no process has this address
	must(t, marks.Put(somebody, [4]uint64{uint64(x.cgroup)}))
	_, err = w.ask(wire.Request{Over: &wire.Named{Permit: d.permit.Body.ID}})
	must(t, err)
	p.gone(t, endTime)
	revoked := func() {
		t.Helper()
		time.Sleep(100 * time.Millisecond) // for one who would lift it
		states, err := w.node.gate.Governed()
		must(t, err)
		if len(states) != 1 || !states[0].Revoked {
			t.Errorf("what lives outside is free: %v", states)
		}
	}
	revoked()
	w.stop()
	w.start()
	revoked()
	w.stop()
	must(t, marks.Delete(somebody))
	w.start()
	w.lifted()
}

// TestApproveCoarseTimes: a file system that keeps whole seconds gives two
// changes one time: what is approved meanwhile would stand for both.
func TestApproveCoarseTimes(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	must(t, os.WriteFile(image, make([]byte, 4<<20), 0o600))
	must(t, os.Mkdir(at, 0o755))
	for _, argv := range [][]string{{"mke2fs", "-q", "-F", "-I", "128", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no such file system here: %s: %v %s", argv[0], err, out)
		}
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	file := filepath.Join(at, "program")
	hash := func(text string) exeq.Digest {
		t.Helper()
		must(t, os.WriteFile(file, []byte(text), 0o755))
		f, err := os.Open(file)
		must(t, err)
		defer f.Close()
		_, digest, err := w.node.hash(f)
		must(t, err)
		return digest
	}
	if hash("#!/bin/good") == hash("#!/bin/evil") {
		t.Error("the bytes changed and the digest did not")
	}
}

// TestApproveOverlay: over overlayfs neither a mapping that writes shows, nor
// what it wrote: what others than root could write to is not approved.
func TestApproveOverlay(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	mount := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command("mount", argv...).CombinedOutput(); err != nil {
			t.Skipf("no such file system here: mount %v: %v %s", argv, err, out)
		}
		t.Cleanup(func() { unix.Unmount(argv[len(argv)-1], unix.MNT_DETACH) })
	}
	mount("-t", "tmpfs", "tmpfs", dir) // what overlayfs may lie on
	for _, d := range []string{"lower", "upper", "work", "at"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	at := filepath.Join(dir, "at")
	mount("-t", "overlay", "-o", "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work", "overlay", at)
	file := filepath.Join(at, "program")
	must(t, os.WriteFile(file, []byte("#!/bin/good"), 0o755))
	r, err := os.Open(file)
	must(t, err)
	defer r.Close()
	before, _, err := w.node.hash(r)
	must(t, err)

	// The control: the attack leaves no trace.
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	b, err := unix.Mmap(int(f.Fd()), 0, 11, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, errors.Join(err, f.Close()))
	defer unix.Munmap(b)
	copy(b, "#!/bin/evil")
	if after, err := w.node.gate.Identify(r); err != nil || after != before {
		t.Logf("this kernel shows it: %v %v, then %v", err, before, after)
	}

	for name, change := range map[string]func() error{
		"a user's":       func() error { return errors.Join(os.Chown(file, 1000, 0), os.Chmod(file, 0o755)) },
		"a group's":      func() error { return errors.Join(os.Chown(file, 0, 1000), os.Chmod(file, 0o775)) },
		"everybody's":    func() error { return errors.Join(os.Chown(file, 0, 0), os.Chmod(file, 0o757)) },
		"a user's, 0555": func() error { return errors.Join(os.Chown(file, 1000, 0), os.Chmod(file, 0o555)) },
	} {
		must(t, change())
		if is, _, err := w.node.hash(r); err == nil {
			t.Errorf("%s: approved as %v", name, is)
		}
	}
}

// TestOneUserFillsNoNode: one user's permits, however large, leave room for
// those of others.
func TestOneUserFillsNoNode(t *testing.T) {
	w := newWorld(t)
	admitted := func(uid int) bool {
		t.Helper()
		x := &execution{permit: exeq.NewID(), size: wire.MaxMessage}
		err := w.node.reserve(x, &peer{uid: uid, pidfd: pidfd(t, os.Getpid())})
		if err != nil {
			refused(t, err, wire.ErrBusy)
		}
		return err == nil
	}
	n := 0
	for ; admitted(1000); n++ {
	}
	if n == 0 || !admitted(1001) || !admitted(0) {
		t.Errorf("after %d of one user, others are not taken", n)
	}
	w.node.mu.Lock()
	defer w.node.mu.Unlock()
	for id, x := range w.node.executions { // they were never more than this
		x.owner.pidfd.Close()
		delete(w.node.executions, id)
	}
}

// TestCloseWhileEnding: what is being ended when the node is closed is ended
// before that lets go of the gate, or left to the next node.
func TestCloseWhileEnding(t *testing.T) {
	w := newWorld(t)
	var all []*execution
	for range 4 {
		d, _ := w.enclosed()
		x, err := w.node.find(d.permit.Body.ID)
		must(t, err)
		all = append(all, x)
	}
	var ends sync.WaitGroup
	for i, x := range all {
		if i == 0 {
			must(t, w.node.end(x, "first"))
			continue
		}
		ends.Go(func() { w.node.end(x, "at the end") })
	}
	node := w.node
	w.stop()
	for _, x := range all {
		x.mu.Lock()
		if x.state != ended && x.state != enclosed {
			t.Errorf("%s is left as %s", x.permit, x.state)
		}
		x.mu.Unlock()
	}
	ends.Wait()
	for _, x := range all {
		if err := node.end(x, "after it"); (err == nil) != (x.state == ended) {
			t.Errorf("%s, which is %s: %v", x.permit, x.state, err)
		}
	}
	w.start()
	for _, x := range all {
		if _, err := os.Stat(x.dir); !os.IsNotExist(err) {
			t.Errorf("%s is there yet: %v", x.permit, err)
		}
	}
}
