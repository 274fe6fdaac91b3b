//go:build linux

package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/node/wire"
	"github.com/exeq/exeq/permit"
)

// world is a node in this process and an issuer that it trusts.
type world struct {
	t      *testing.T
	config Config
	node   *Node
	socket string
	ring   *keyring.Ring
	log    *lockedBuffer
	stop   func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "exeq-node-world-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	for _, d := range []string{"bpf", "state", "trust"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	if err := unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount a bpf file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH) })
	root, err := DefaultCgroup()
	if err != nil {
		t.Skip(err)
	}
	w := &world{t: t, socket: filepath.Join(dir, "sock"), log: &lockedBuffer{}}
	w.ring, err = keyring.Create(filepath.Join(dir, "keys"))
	must(t, err)
	w.config = Config{State: filepath.Join(dir, "state"), Trust: filepath.Join(dir, "trust"), Pins: filepath.Join(dir, "bpf", "gate"),
		Cgroup: filepath.Join(filepath.Dir(root), filepath.Base(dir)), Log: slog.New(slog.NewTextHandler(w.log, nil))}
	w.trustIssuer("issuer", w.ring, 0)
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
		left, _ := os.ReadDir(w.config.Cgroup)
		for _, d := range left {
			if d.IsDir() {
				killAll(filepath.Join(w.config.Cgroup, d.Name()), endTime)
				removeCgroup(filepath.Join(w.config.Cgroup, d.Name()))
			}
		}
		os.Remove(w.config.Cgroup)
	})
	w.start()
	return w
}

func (w *world) trustIssuer(name string, r *keyring.Ring, uids ...int) {
	w.t.Helper()
	b, err := json.Marshal(Trust{Version: 1, Issuer: r.Public(exeq.RoleIssuer), Promise: r.VerifierKey(exeq.RolePromise), UIDs: uids})
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(w.config.Trust, name+".json"), b, 0o600))
}

// start opens the node and serves.
func (w *world) start() {
	w.t.Helper()
	n, err := Open(w.config)
	var lacks *bpf.FeatureError
	if errors.As(err, &lacks) {
		w.t.Skip(err)
	}
	must(w.t, err)
	w.node = n
	l, err := Listen(w.socket)
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx, l) }()
	w.stop = func() {
		cancel()
		if err := errors.Join(<-served, n.Close()); err != nil {
			w.t.Error(err)
		}
		w.stop = nil
	}
}

// ask sends one request with descriptors.
func (w *world) ask(r wire.Request, fds ...int) (*wire.Answer, error) {
	w.t.Helper()
	r.Version = wire.Version
	b, err := wire.Frame(r)
	must(w.t, err)
	return send(w.socket, b, fds...)
}

func send(socket string, b []byte, fds ...int) (*wire.Answer, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	a, rerr := wire.ReadAnswer(c)
	if rerr == nil || errors.As(rerr, new(*wire.Error)) {
		return a, rerr
	}
	return nil, errors.Join(err, rerr)
}

// draft is a permit with what it binds, before it is bent.
type draft struct {
	audience exeq.Audience
	request  *exeq.Request
	rights   *exeq.Rights
	now      time.Time
	window   time.Duration
	ring     *keyring.Ring

	permit *exeq.Permit
	record *exeq.PermitRecord
}

func (w *world) draft() *draft {
	return &draft{
		audience: w.node.Identity().Audience, now: time.Now(), ring: w.ring,
		request: &exeq.Request{
			Subject: exeq.Entity{Type: "Agent", ID: "local"}, Action: "run",
			Resource: exeq.Resource{Type: "Program", ID: "/usr/bin/sleep", SHA256: exeq.LeafHash([]byte("sleep"))},
			Argv:     []string{"sleep", "1000"}, Dir: "/",
			Context: exeq.Context{Workspace: "/work", Home: "/home/x", Tmp: "/tmp/x", Command: "sleep 1000"},
		},
		rights: &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/", At: exeq.Access{}, Under: exeq.Access{}},
			{Path: "/usr", At: exeq.Access{Read: true, Exec: exeq.ExecAsk}, Under: exeq.Access{Read: true, Exec: exeq.ExecAsk}}}},
	}
}

// issue has the permit made and put on record.
func (d *draft) issue(t *testing.T) *wire.Admit {
	t.Helper()
	i, err := permit.NewIssuer(permit.IssuerConfig{Key: d.ring.Signer(exeq.RoleIssuer), Audience: d.audience, Window: d.window, Now: func() time.Time { return d.now }})
	must(t, err)
	decision := &exeq.Decision{Verdict: exeq.Allow, Policies: []string{"p"}}
	d.permit, err = i.Issue(exeq.NewID(), d.request, &exeq.Inputs{Tier: exeq.TierKernelLite, Time: exeq.At(d.now)}, decision, d.rights, "")
	must(t, err)
	return d.recorded(t, d.permit)
}

// recorded promises the permit's leaf and gives what goes to the node.
func (d *draft) recorded(t *testing.T, p *exeq.Permit) *wire.Admit {
	t.Helper()
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPermit, Execution: p.Body.ID, Time: exeq.At(d.now), Body: exeq.LeafBody{Verdict: exeq.Allow, Policies: p.Body.Policies}},
		map[string]any{"permit": string(p.Envelope)}, nil)
	must(t, err)
	key := d.ring.NoteSigner(exeq.RolePromise)
	h := exeq.LeafHash(e.Bytes)
	b, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n1\n%s\ntime %d\n", key.Name(), base64.StdEncoding.EncodeToString(h[:]), d.now.UnixMilli())}, key)
	must(t, err)
	d.record = &exeq.PermitRecord{Leaf: e.Bytes, Promise: exeq.Promise{Note: string(b), Path: []exeq.Digest{}}, Permit: e.Disclosures[0]}
	return &wire.Admit{Envelope: p.Envelope, Record: d.record, Request: d.request, Rights: d.rights}
}

// waiting is an execution's processes without what would hold them: an agent
// (which is this process's child), process 1 and a command.
type waiting struct {
	cmd           *exec.Cmd
	init, command *os.File
	pids          [2]int
}

func newWaiting(t *testing.T) *waiting {
	t.Helper()
	x := waitingBehind(t, "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 1000 & echo; wait")
	for comm := ""; comm != "sleep\n"; time.Sleep(time.Millisecond) { // its own execution is behind it
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", x.pids[1]))
		must(t, err)
		comm = string(b)
	}
	return x
}

// waitingBehind has the given agent, whose child's child says when it is there.
func waitingBehind(t *testing.T, agent ...string) *waiting {
	t.Helper()
	x := &waiting{cmd: exec.Command(agent[0], agent[1:]...)}
	out, err := x.cmd.StdoutPipe()
	must(t, err)
	must(t, x.cmd.Start())
	t.Cleanup(func() {
		for _, f := range []*os.File{x.command, x.init} {
			if f != nil {
				unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
			}
		}
		x.cmd.Process.Kill()
		x.cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	x.pids[0] = child(t, x.cmd.Process.Pid)
	x.pids[1] = child(t, x.pids[0])
	x.init, x.command = pidfd(t, x.pids[0]), pidfd(t, x.pids[1])
	return x
}

// child gives the one child of a process.
func child(t *testing.T, of int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", of))
	must(t, err)
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatalf("process %d has no child", of)
	}
	return pid
}

func pidfd(t *testing.T, pid int) *os.File {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "pidfd")
	t.Cleanup(func() { f.Close() })
	return f
}

// enclosed brings an execution behind the gate.
func (w *world) enclosed() (*draft, *waiting) {
	w.t.Helper()
	d := w.draft()
	if _, err := w.ask(wire.Request{Admit: d.issue(w.t)}); err != nil {
		w.t.Fatal(err)
	}
	x := newWaiting(w.t)
	a, err := w.ask(wire.Request{Enclose: &wire.Enclose{Permit: d.permit.Body.ID}}, int(x.init.Fd()), int(x.command.Fd()))
	must(w.t, err)
	if a.Enclosure == nil || a.Enclosure.Permit != d.permit.Body.ID {
		w.t.Fatalf("%+v", a.Enclosure)
	}
	return d, x
}

func (w *world) challenge(d *draft) string {
	w.t.Helper()
	a, err := w.ask(wire.Request{Challenge: &wire.Named{Permit: d.permit.Body.ID}})
	must(w.t, err)
	if len(a.Denied) > 0 || a.More > 0 {
		w.t.Errorf("denied, and nothing was tried but canaries: %+v", a.Denied)
	}
	return a.Challenge
}

// renewal signs as the issuer does.
func (d *draft) renewal(t *testing.T, sequence uint64, challenge string) *exeq.Renewal {
	t.Helper()
	i, err := permit.NewIssuer(permit.IssuerConfig{Key: d.ring.Signer(exeq.RoleIssuer), Audience: d.audience})
	must(t, err)
	n, err := i.Renew(d.permit.Body.ID, sequence, challenge, exeq.DefaultLease)
	must(t, err)
	return &n
}

// gone waits until nothing of the execution lives.
func (x *waiting) gone(t *testing.T, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); alive(x.init) || alive(x.command); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it still lives after %s", within)
		}
	}
}

// refused wants one refusal by its own error.
func refused(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want: %v", err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bend changes the payload of a permit and signs it again, so that only what
// was changed is wrong.
func (d *draft) bend(t *testing.T, change func(payload string) string) *exeq.Permit {
	t.Helper()
	var e exeq.Envelope
	must(t, json.Unmarshal(d.permit.Envelope, &e))
	b, err := base64.StdEncoding.DecodeString(e.Payload)
	must(t, err)
	bent := change(string(b))
	if bent == string(b) {
		t.Fatal("nothing was bent")
	}
	sig := d.ring.Signer(exeq.RoleIssuer).Sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(bent), bent))
	e.Payload, e.Signatures[0].Sig = base64.StdEncoding.EncodeToString([]byte(bent)), base64.StdEncoding.EncodeToString(sig)
	p := *d.permit
	p.Envelope, err = json.Marshal(e)
	must(t, err)
	return &p
}
