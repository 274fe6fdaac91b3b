//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
	"github.com/exeq/exeq/enforce/spawn"
	"github.com/exeq/exeq/internal/osfile"
)

// Enforcer holds a prepared mount agent.
type Enforcer struct {
	opt   Options
	agent *spawn.Agent
	who   identity
	tier  exeq.Tier
	was   schedAttr // the priority that we came with
	// outside is the mount table that the agent got a copy of.
	outside []byte

	ready    sync.Once
	readyErr error
	egress   net.Listener
	launched bool
	staged   *launching // nil: none
}

// identity is what the execution runs as.
type identity struct {
	uid, gid int
	groups   []int
	change   bool // the supervisor is root and this is somebody else
}

// namespaces of the agent; init adds a pid namespace.
const agentNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET

// eventListener brings the egress listener out of the network namespace.
const eventListener = spawn.EventReady + 1

// Prepare clones the mount agent into namespaces of its own. It must be the
// first thing that a program does: the agent is a copy of this process, and
// what is not yet in memory (keys, policy, store) can never leak through it.
// An error means that this user cannot have the tier on this machine.
func Prepare(o Options) (*Enforcer, error) {
	if o.Messages == nil {
		o.Messages = os.Stderr
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	who, err := identify(o.Workspace)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exeq.ErrEnforce, err)
	}
	return choose(o, who)
}

func prepareRootless(o Options, who identity) (*Enforcer, error) {
	var err error
	e := &Enforcer{opt: o, who: who, was: raise()}
	if e.outside, err = os.ReadFile("/proc/self/mountinfo"); err != nil {
		return nil, fmt.Errorf("%w: rootless: %w", exeq.ErrEnforce, err)
	}
	if e.agent, err = spawn.Start(agentNamespaces, prepareList); err != nil {
		return nil, fmt.Errorf("%w: rootless: namespaces: %w", exeq.ErrEnforce, err)
	}
	if err := e.mapUsers(); err != nil {
		e.agent.Close()
		return nil, fmt.Errorf("%w: rootless: user namespace: %w", exeq.ErrEnforce, err)
	}
	// The agent waits for its map; it goes on beside us.
	if err := e.agent.Wake(); err != nil {
		e.agent.Close()
		return nil, fmt.Errorf("%w: rootless: %w", exeq.ErrEnforce, err)
	}
	return e, nil
}

// prepareList is what the agent does before it knows what for.
func prepareList(g *spawn.Agent, l *spawn.List) {
	buf := l.Arena.Addr(l.Arena.Reserve(8))
	l.Do("wait for the user map", unix.SYS_READ, g.Control(), v(buf), v(8))
	// Loopback up.
	ifreq := l.Arena.Reserve(40)
	copy(l.Arena.At(ifreq, 16), "lo")
	l.Arena.PutInt(ifreq+16, unix.IFF_UP|unix.IFF_RUNNING)
	s := l.Result(l.Do("socket", unix.SYS_SOCKET, v(unix.AF_INET), v(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), v(0)))
	l.Do("loopback up", unix.SYS_IOCTL, load(s), v(unix.SIOCSIFFLAGS), v(l.Arena.Addr(ifreq)))
	l.Do("close", unix.SYS_CLOSE, load(s))
	// The listener through which the proxy is reached.
	addr := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte{127, 0, 0, 1}}
	at := l.Do("socket", unix.SYS_SOCKET, v(unix.AF_INET), v(unix.SOCK_STREAM|unix.SOCK_CLOEXEC), v(0))
	ln := l.Result(at)
	l.Do("bind", unix.SYS_BIND, load(ln), v(l.Arena.Struct(unsafe.Pointer(&addr), unsafe.Sizeof(addr))), v(unsafe.Sizeof(addr)))
	l.Do("listen", unix.SYS_LISTEN, load(ln), v(1024))
	dup := l.Do("dup", unix.SYS_DUP, load(ln))
	dup.Out = l.Send("send listener", g.Events(), eventListener, 0)
	sent := dup.Out
	l.Do("close", unix.SYS_CLOSE, load(sent))
	l.Do("close", unix.SYS_CLOSE, load(ln))
}

// identify says whom an execution in the workspace runs as.
func identify(workspace string) (who identity, err error) {
	if workspace == "" {
		workspace = "."
	}
	if who.uid, who.gid, who.change, err = osfile.RunAs(workspace); err != nil {
		return who, fmt.Errorf("workspace: %w", err)
	}
	if !who.change {
		if who.uid != 0 {
			who.groups, err = os.Getgroups()
		}
		return who, err
	}
	if u, err := user.LookupId(strconv.Itoa(who.uid)); err == nil {
		if gid, err := strconv.Atoi(u.Gid); err == nil {
			who.gid = gid
		}
		if ids, err := u.GroupIds(); err == nil {
			for _, id := range ids {
				if n, err := strconv.Atoi(id); err == nil && n != 0 {
					who.groups = append(who.groups, n)
				}
			}
		}
	}
	return who, nil
}

// may reports whether the user's permissions on a file include want (R_OK,
// X_OK). The kernel will ask that of a copy only, and access itself answers no
// on every noexec mount.
func (who identity) may(f *programs.File, want uint32) bool {
	var st unix.Stat_t
	if err := unix.Fstat(f.FD(), &st); err != nil {
		return false
	}
	bits := st.Mode & 7
	switch {
	case int(st.Uid) == who.uid:
		bits = st.Mode >> 6 & 7
	case int(st.Gid) == who.gid, slices.Contains(who.groups, int(st.Gid)):
		bits = st.Mode >> 3 & 7
	}
	return bits&want == want
}

// mapUsers maps an ordinary user to itself and nobody else, and for root every
// id to itself: whoever the command is, its files keep their owners.
func (e *Enforcer) mapUsers() error {
	dir := fmt.Sprintf("/proc/%d/", e.agent.PID)
	if os.Geteuid() != 0 {
		if err := os.WriteFile(dir+"setgroups", []byte("deny"), 0); err != nil {
			return err
		}
		gid := os.Getegid()
		if err := os.WriteFile(dir+"gid_map", fmt.Appendf(nil, "%d %d 1", gid, gid), 0); err != nil {
			return err
		}
		uid := os.Geteuid()
		return os.WriteFile(dir+"uid_map", fmt.Appendf(nil, "%d %d 1", uid, uid), 0)
	}
	for _, name := range []string{"gid_map", "uid_map"} {
		b, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return err
		}
		var m strings.Builder
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 {
				fmt.Fprintf(&m, "%s %s %s\n", f[0], f[0], f[2])
			}
		}
		if err := os.WriteFile(dir+name, []byte(m.String()), 0); err != nil {
			return err
		}
	}
	return nil
}

// await returns when the agent stands, and takes the egress listener over.
func (e *Enforcer) await() error {
	e.ready.Do(func() {
		if e.readyErr = e.agent.Wait(); e.readyErr != nil {
			return
		}
		ev, err := receive(e.agent.EventFD())
		if err == nil && (ev.kind != eventListener || len(ev.fds) != 1) {
			err = errors.New("the agent sent no listener")
		}
		if err != nil {
			e.readyErr = err
			return
		}
		f := os.NewFile(uintptr(ev.fds[0]), "egress")
		defer f.Close()
		e.egress, e.readyErr = net.FileListener(f)
	})
	return e.readyErr
}

// Close ends an agent that was prepared and never launched. After Launch it
// does nothing.
func (e *Enforcer) Close() error {
	if e.launched {
		return nil
	}
	e.launched = true
	if e.staged != nil {
		<-e.staged.built
		e.staged.undo()
		return nil
	}
	if e.await() == nil && e.egress != nil {
		e.egress.Close()
	}
	return e.agent.Close()
}

// Tier implements exeq.Enforcer: the namespaces stand or they do not.
func (e *Enforcer) Tier() exeq.Tier {
	if err := e.await(); err != nil {
		e.opt.Logger.Warn("tier is not to be had", "tier", e.tier, "error", err)
		return exeq.TierNone
	}
	return e.achieved()
}

// achieved is what the tier and whoever holds it from above give together.
func (e *Enforcer) achieved() exeq.Tier {
	if e.opt.Warden != nil {
		return e.opt.Warden.Tier()
	}
	return e.tier
}

// event is what init or the command reports.
type event struct {
	kind, datum uint32
	fds         []int
}

// receive reads one event. io.EOF: nobody is left who could send.
func receive(sock int) (event, error) {
	var b [8]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	for {
		n, on, _, _, err := unix.Recvmsg(sock, b[:], oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return event{}, fmt.Errorf("event: %w", err)
		}
		if n == 0 {
			return event{}, io.EOF
		}
		if n != 8 {
			return event{}, fmt.Errorf("event of %d bytes", n)
		}
		ev := event{kind: *(*uint32)(unsafe.Pointer(&b[0])), datum: *(*uint32)(unsafe.Pointer(&b[4]))}
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			return event{}, fmt.Errorf("event: %w", err)
		}
		for i := range msgs {
			fds, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				return event{}, fmt.Errorf("event: %w", err)
			}
			ev.fds = append(ev.fds, fds...)
		}
		return ev, nil
	}
}
