//go:build linux

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
)

// Config of a node. Everything in it belongs to this node alone.
type Config struct {
	State  string // directory of the key, mode 0700
	Trust  string // directory of whom is believed; see Trust
	Pins   string // directory in a bpf file system, made by the node
	Cgroup string // directory of the cgroup v2 hierarchy, made by the node
	Log    *slog.Logger
}

// Node is a running node.
type Node struct {
	c     Config
	log   *slog.Logger
	id    *identity
	burnt *burnt
	gate  *bpf.Gate
	lock  *os.File
	under string // the executions' cgroup, as /proc/PID/cgroup has it
	top   string // where the cgroups' hierarchy is mounted
	found []string
	above string // why the gate is not of the next tier; empty if it is of the highest

	scopes *scopes

	ordersLost uint64 // counted by the gate; keep's own

	warming atomic.Bool // see warm

	ended chan struct{} // closed by Close
	done  sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	connections map[int]int // by user
	all         int
	large       map[int]int // messages that are being read, by user
	stuck       map[int]int // descriptors that do not close, by user
	programs    map[int]int // approved, by user
	places      map[int]int // set, by user
	executions  map[string]*execution
	cgroups     map[bpf.Cgroup]*execution
	rights      int64 // what their rights take, as they travelled
	hashes      map[bpf.File]exeq.Digest

	remembered sync.Mutex // what follows, which is read again when it is old
	trust      []*trusted
	trustRead  time.Duration // CLOCK_BOOTTIME; 0: never
	gateErr    error
	gateSeen   time.Duration
}

// Open makes a node ready to serve: it takes the state for itself, ends what an
// earlier node held, and has the gate in place. An error leaves the gate as it
// was, and what it governs governed.
func Open(c Config) (*Node, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{c: c, log: c.Log, burnt: newBurnt(), ended: make(chan struct{}),
		connections: map[int]int{}, large: map[int]int{}, stuck: map[int]int{}, programs: map[int]int{}, places: map[int]int{}, executions: map[string]*execution{}, cgroups: map[bpf.Cgroup]*execution{},
		hashes: map[bpf.File]exeq.Digest{}}
	n.scopes = newScopes(n)
	if err := n.open(); err != nil {
		n.Close()
		return nil, fmt.Errorf("node: %w", err)
	}
	return n, nil
}

func (n *Node) open() error {
	d, err := openOwned(n.c.State, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	n.lock = d
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("state %s: another node has it: %w", n.c.State, err)
	}
	if n.id, err = openIdentity(n.c.State); err != nil {
		return err
	}
	if _, err := readTrust(n.c.Trust); err != nil {
		return err
	}
	if err := n.recover(); err != nil {
		return err
	}
	if err := n.scopes.recover(); err != nil {
		return err
	}
	events, err := n.gate.Events()
	if err != nil {
		return err
	}
	orders, err := n.gate.Orders()
	if err == nil {
		_, n.ordersLost, err = n.gate.Dropped()
	}
	if err != nil {
		events.Close()
		return err
	}
	n.done.Go(func() { n.watch(events, maxEvents) })
	n.done.Go(func() { n.watch(orders, 0) })
	n.done.Go(n.keep)
	n.done.Go(n.scopes.keep)
	return nil
}

// Identity is who the node is now.
func (n *Node) Identity() wire.Identity {
	return wire.Identity{Audience: n.id.audience, PublicKey: n.id.public(), Tier: n.tier(), Above: n.above, Missing: n.gate.Missing()}
}

// tier is what the gate gives on top of the tier rootless.
func (n *Node) tier() exeq.Tier {
	if n.gate.Kernel() {
		return exeq.TierKernel
	}
	return exeq.TierKernelLite
}

// Found says what an earlier node had left, and what became of it.
func (n *Node) Found() []string { return n.found }

// use counts something that uses the gate and that Close waits for, unless the
// node is being closed.
func (n *Node) use() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.done.Add(1)
	}
	return !n.closed
}

// Close lets go. What is governed stays so: its leases go on nowhere, and the
// next node ends it.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	close(n.ended)
	n.done.Wait()
	errs := []error{n.scopes.close()}
	if n.gate != nil {
		errs = append(errs, n.gate.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// Listen makes the node's socket, which anybody may connect to: who is served
// is decided by the kernel's word on who it is.
func Listen(path string) (*net.UnixListener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and no socket", path)
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: another node serves there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o666)
}

// Serve answers until the context ends or the listener fails.
func (n *Node) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) {
				n.log.Warn("accept", "err", err)
				time.Sleep(glance)
				continue
			}
			return err
		}
		p, err := n.welcome(c)
		if err != nil {
			// Whatever it has to say is not read.
			go func() {
				n.answer(c, nil, err)
				c.Close()
			}()
			continue
		}
		n.done.Go(func() {
			defer n.leave(c, p)
			a, err := n.hear(c, p)
			n.answer(c, a, err)
		})
	}
}

// welcome admits a connection, or says why not.
func (n *Node) welcome(c *net.UnixConn) (*peer, error) {
	p, err := whoIs(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrPeer, err)
	}
	at, err := cgroupOf(p.pid)
	switch {
	case err != nil || !alive(p.pidfd):
		err = fmt.Errorf("%w: the caller is gone", wire.ErrPeer)
	case at == n.under || strings.HasPrefix(at, n.under+"/"):
		err = wire.ErrInside
	case p.uid != 0 && !n.serves(p.uid) && !n.scopes.opens(p.uid):
		err = fmt.Errorf("%w: no trusted issuer permits executions of user %d here", wire.ErrPeer, p.uid)
	}
	if err != nil {
		p.pidfd.Close()
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all >= maxConnections || p.uid != 0 && n.connections[p.uid] >= maxUserConnections {
		p.pidfd.Close()
		return nil, fmt.Errorf("%w: too many connections", wire.ErrBusy)
	}
	if n.stuck[p.uid] >= maxStuck {
		p.pidfd.Close()
		return nil, fmt.Errorf("%w: %d descriptors that came from this user do not close", wire.ErrBusy, n.stuck[p.uid])
	}
	n.all++
	n.connections[p.uid]++
	return p, nil
}

func (n *Node) leave(c *net.UnixConn, p *peer) {
	c.Close()
	p.pidfd.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all--
	if n.connections[p.uid]--; n.connections[p.uid] == 0 {
		delete(n.connections, p.uid)
	}
}

// serves: some trusted issuer permits executions of the user.
func (n *Node) serves(uid int) bool {
	n.remembered.Lock()
	defer n.remembered.Unlock()
	if now := boottime(); n.trustRead == 0 || now-n.trustRead > trustTime {
		var err error
		if n.trust, err = readTrust(n.c.Trust); err != nil {
			n.log.Error("nobody is served", "err", err)
		}
		n.trustRead = now
	}
	return slices.ContainsFunc(n.trust, func(t *trusted) bool { return t.serves(uid) })
}

// gateHolds looks at the gate's hooks, or at what was seen a moment ago.
func (n *Node) gateHolds() error {
	n.remembered.Lock()
	defer n.remembered.Unlock()
	if now := boottime(); n.gateSeen == 0 || now-n.gateSeen > checkTime {
		if n.gateErr = n.gate.Check(); n.gateErr != nil {
			n.gateErr = fmt.Errorf("%w: %w", wire.ErrGate, n.gateErr)
		}
		n.gateSeen = now
	}
	return n.gateErr
}

// hear reads one request and does what it asks.
func (n *Node) hear(c *net.UnixConn, p *peer) (*wire.Answer, error) {
	c.SetReadDeadline(time.Now().Add(messageTime))
	b, fds, err := n.read(c, p.uid)
	defer func() {
		for _, f := range fds {
			f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	r, err := wire.DecodeRequest(b)
	if err != nil {
		return nil, err
	}
	a, err := n.do(p, r, int64(len(b)), fds)
	if err != nil {
		n.log.Info("refused", "uid", p.uid, "pid", p.pid, "err", err)
	}
	return a, err
}

// read takes one message and the descriptors that came with its first byte;
// those that come with later ones the kernel closes.
func (n *Node) read(c *net.UnixConn, uid int) (b []byte, fds []*os.File, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*wire.MaxDescriptors))
	got, on, flags, _, err := c.ReadMsgUnix(head[:], oob)
	if on > 0 {
		var derr error
		if fds, derr = n.descriptors(oob[:on], uid); derr != nil {
			return nil, fds, derr
		}
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("more than %d descriptors", wire.MaxDescriptors)
	}
	if err == nil {
		_, err = io.ReadFull(c, head[got:])
	}
	if err != nil {
		return nil, fds, fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > wire.MaxMessage {
		return nil, fds, fmt.Errorf("%w: %d bytes are over the limit of %d", wire.ErrProtocol, size, wire.MaxMessage)
	}
	if size > wire.MaxSmall {
		if err := n.roomForLarge(uid); err != nil {
			return nil, fds, err
		}
		defer n.largeRead(uid)
		c.SetReadDeadline(time.Now().Add(messageTime))
	}
	b, err = io.ReadAll(io.LimitReader(c, int64(size))) // grows with what really comes
	if err == nil && len(b) != int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fds, fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	return b, fds, nil
}

// roomForLarge waits until one more large message of the user may be read.
func (n *Node) roomForLarge(uid int) error {
	for end := time.Now().Add(messageTime); ; time.Sleep(time.Millisecond) {
		n.mu.Lock()
		all := 0
		for _, k := range n.large {
			all += k
		}
		if all < maxLarge && (uid == 0 || n.large[uid] == 0) {
			n.large[uid]++
			n.mu.Unlock()
			return nil
		}
		n.mu.Unlock()
		if time.Now().After(end) {
			return fmt.Errorf("%w: other large messages are being read", wire.ErrBusy)
		}
	}
}

func (n *Node) largeRead(uid int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.large[uid]--; n.large[uid] == 0 {
		delete(n.large, uid)
	}
}

func (n *Node) answer(c *net.UnixConn, a *wire.Answer, err error) {
	if err != nil {
		a = &wire.Answer{Error: wire.Refusal(err)}
	}
	if a == nil {
		a = &wire.Answer{}
	}
	a.Version = wire.Version
	b, err := wire.Frame(a)
	if err != nil {
		n.log.Error("answer", "err", err)
		return
	}
	c.SetWriteDeadline(time.Now().Add(messageTime))
	c.Write(b) // who does not listen does not hear
}

// do does what one request asks.
func (n *Node) do(p *peer, r *wire.Request, size int64, fds []*os.File) (*wire.Answer, error) {
	want := 0
	switch {
	case r.Enclose != nil:
		want = 2
	case r.Approve != nil:
		want = 1
	}
	if len(fds) != want {
		return nil, fmt.Errorf("%w: %d descriptors, not %d", wire.ErrProtocol, len(fds), want)
	}
	switch {
	case r.Hello != nil:
		id := n.Identity()
		id.Serves = n.serves(p.uid)
		if err := n.sees(p); err != nil {
			id.Serves, id.Refusal = false, err.Error()
		}
		if id.Serves {
			n.warm()
		}
		return &wire.Answer{Hello: &id}, nil
	case r.Admit != nil:
		return nil, n.admit(p, r.Admit, size)
	case r.Enclose != nil:
		e, err := n.enclose(p, r.Enclose, fds[0], fds[1])
		return &wire.Answer{Enclosure: e}, err
	case r.Approve != nil:
		d, err := n.approve(p, r.Approve, fds[0])
		return &wire.Answer{SHA256: &d}, err
	case r.Withdraw != nil:
		return nil, n.withdraw(p, r.Withdraw)
	case r.Challenge != nil:
		return n.challenge(p, r.Challenge.Permit)
	case r.Renew != nil:
		return nil, n.renew(r.Renew)
	case r.Revoke != nil:
		return nil, n.revoke(r.Revoke)
	case r.Hold != nil:
		return nil, n.hold(p, r.Hold.Permit)
	case r.Resume != nil:
		return nil, n.resume(p, r.Resume.Permit)
	case r.Over != nil:
		return n.over(p, r.Over.Permit)
	case r.Declare != nil:
		return nil, n.scopes.declare(r.Declare)
	case r.Scopes != nil:
		return &wire.Answer{Scopes: n.scopes.list(p)}, nil
	case r.Report != nil:
		report, err := n.scopes.reportTo(p, *r.Report)
		return &wire.Answer{Report: report}, err
	case r.Open != nil:
		o, err := n.scopes.breakGlass(p, r.Open)
		if err != nil {
			return nil, err
		}
		return &wire.Answer{Openings: []exeq.Opening{*o}}, nil
	case r.Openings != nil:
		o, err := n.scopes.openings(p, r.Openings.After)
		return &wire.Answer{Openings: o}, err
	}
	s, err := n.status(p)
	return &wire.Answer{Status: s}, err
}

// inHierarchy gives a cgroup's path as /proc/PID/cgroup has it, and the
// directory where the hierarchy is mounted.
func inHierarchy(dir string) (under, top string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	dir = path.Clean(dir)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if strings.Contains(line, " - cgroup2 ") && len(f) > 4 && (dir == f[4] || strings.HasPrefix(dir, f[4]+"/")) && f[3] == "/" {
			top = f[4] // of several the last one lies on top
		}
	}
	if top == "" || dir == top {
		return "", "", fmt.Errorf("%s: not below the root of a cgroup v2 hierarchy that is mounted whole", dir)
	}
	return strings.TrimPrefix(dir, top), top, nil
}

// DefaultCgroup is where executions are put unless somebody says otherwise: at
// the root, where no other cgroup's removal or limits reach them.
func DefaultCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.Contains(line, " - cgroup2 ") && len(f) > 4 && f[3] == "/" {
			return path.Join(f[4], "exeq-node"), nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted whole")
}
