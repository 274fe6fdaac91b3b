//go:build linux

package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
)

// What SelfTest tries in each execution's own cgroup.
const (
	canaries       = "exec of a program and a connection that the kernel's gate does not have, in the execution's own cgroup"
	kernelCanaries = canaries + ", and an executable mapping of a file that it does not have and an open of its pins"
)

func (n *Node) canaries() string {
	if n.tier() == exeq.TierKernel {
		return kernelCanaries
	}
	return canaries
}

// enclose closes the gate around an execution that waits: from the moment that
// it returns nothing executes there but what is approved, and the lease runs.
func (n *Node) enclose(p *peer, r *wire.Enclose, init, command *os.File) (*exeq.Enclosure, error) {
	x, err := n.owned(p, r.Permit)
	if err != nil {
		return nil, err
	}
	proxy, err := proxyOf(r.Proxy)
	if err != nil {
		return nil, err
	}
	if len(r.Shut) > maxShut {
		return nil, fmt.Errorf("%w: %d paths to shut, at most %d", wire.ErrProtocol, len(r.Shut), maxShut)
	}
	if err := x.begin(); err != nil {
		return nil, err
	}
	e, err := n.close(x, proxy, r.Shut, init, command)
	x.approving.Done()
	if err != nil {
		n.log.Warn("not enclosed", "permit", x.permit, "err", err)
		if eerr := n.end(x, "it could not be enclosed"); eerr != nil {
			err = errors.Join(err, eerr)
		}
		return nil, err
	}
	return e, nil
}

// begin makes the execution's cgroup; x.approving is to be told when what
// follows is done.
func (x *execution) begin() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(admitted); err != nil {
		return err
	}
	if err := os.Mkdir(x.dir, 0o755); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	x.state, x.since = enclosing, boottime()
	x.approving.Add(1)
	return nil
}

// close moves the processes first and governs second: until they are known to
// be those that were meant, nothing can happen to them. They wait, so nothing
// executes meanwhile.
func (n *Node) close(x *execution, proxy netip.AddrPort, shut []string, init, command *os.File) (*exeq.Enclosure, error) {
	if err := moveIn(x, init, command); err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrProcess, err)
	}
	cgroup, err := n.gate.Govern(x.dir, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	x.mu.Lock()
	x.cgroup = cgroup
	x.mu.Unlock()
	n.mu.Lock()
	n.cgroups[cgroup] = x
	n.mu.Unlock()
	if err := n.gate.SetEndpoints(cgroup, endpoints(proxy)); err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	narrowed, err := n.place(x, init, shut)
	if err != nil {
		return nil, fmt.Errorf("%w: places: %w", wire.ErrGate, err)
	}
	if err := n.gate.SelfTest(x.dir); err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	e, err := n.id.sign(exeq.Enclosure{Permit: x.permit, Tier: n.tier(), Canary: n.canaries(), Gate: n.gate.Build(),
		Missing: slices.Concat(n.gate.Missing(), narrowed), Time: exeq.At(n.burnt.clock())})
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(enclosing); err != nil {
		return nil, err
	}
	x.state, x.since = enclosed, boottime()
	x.deadline = x.since + x.lease
	return e, nil
}

// moveIn moves the two processes into the execution's cgroup, which is not
// governed yet. A number may have become a stranger's between being read and
// being written: then nothing was done to that but to move it, and it is moved
// back.
func moveIn(x *execution, init, command *os.File) error {
	i, err := pidOf(init)
	if err != nil {
		return err
	}
	c, err := pidOf(command)
	if err != nil {
		return err
	}
	if err := isOf(x.owner, i, c); err != nil {
		return err
	}
	from, err := cgroupOf(i)
	if err != nil {
		return err
	}
	procs := filepath.Join(x.dir, "cgroup.procs")
	for _, pid := range []int{i, c} {
		if err == nil {
			err = os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0)
		}
	}
	if err == nil {
		err = isOf(x.owner, i, c)
	}
	if err == nil && (!alive(init) || !alive(command) || !alive(x.owner.pidfd)) {
		err = errors.New("they ended meanwhile")
	}
	if err == nil {
		return nil
	}
	_, top, terr := inHierarchy(x.dir)
	if terr != nil {
		return errors.Join(err, terr)
	}
	for _, pid := range []int{i, c} {
		if at, aerr := cgroupOf(pid); aerr == nil && strings.HasSuffix(at, "/"+x.permit) {
			os.WriteFile(filepath.Join(top, from, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) // one that is gone is gone
		}
	}
	return err
}

// proxyOf reads the proxy's address: only loopback, which the execution has of
// its own.
func proxyOf(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || !a.Addr().IsLoopback() || a.Addr().Zone() != "" || a.Port() == 0 {
		return a, fmt.Errorf("%w: proxy %.60q is no loopback address", wire.ErrProtocol, s)
	}
	return a, nil
}

// endpoints: the proxy, and listening where the kernel picks the port. The
// network namespace has nothing but its loopback.
func endpoints(proxy netip.AddrPort) []bpf.Endpoint {
	var out []bpf.Endpoint
	if proxy.IsValid() {
		out = append(out, bpf.Endpoint{Addr: proxy})
	}
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		for _, datagram := range []bool{false, true} {
			out = append(out, bpf.Endpoint{Addr: netip.AddrPortFrom(a, 0), Bind: true, Datagram: datagram})
		}
	}
	return out
}

// approve lets a program be executed, or a file be mapped executable: the file
// behind the descriptor, in the state in which it was hashed here. That it
// stands for the path is the supervisor's word; whether the path may be executed
// at all is the permit's.
func (n *Node) approve(p *peer, r *wire.Approve, f *os.File) (exeq.Digest, error) {
	x, err := n.owned(p, r.Permit)
	if err != nil {
		return exeq.Digest{}, err
	}
	if err := exeq.CheckPath(r.Path); err != nil {
		return exeq.Digest{}, fmt.Errorf("%w: %w", wire.ErrProgram, err)
	}
	x.mu.Lock()
	err = x.in(enclosed)
	full := len(x.programs) >= maxPrograms
	if err == nil && !full {
		x.approving.Add(1)
		defer x.approving.Done()
	}
	x.mu.Unlock()
	if err != nil {
		return exeq.Digest{}, err
	}
	if full {
		return exeq.Digest{}, fmt.Errorf("%w: %d programs are approved", wire.ErrBusy, maxPrograms)
	}
	if err := n.roomForProgram(x); err != nil {
		return exeq.Digest{}, err
	}
	if x.rights.Lookup(r.Path).Exec == exeq.ExecNo && r.Path != x.resource.ID {
		return exeq.Digest{}, fmt.Errorf("%w: %.200s", wire.ErrProgram, r.Path)
	}
	file, digest, err := n.hash(f)
	if err != nil {
		return digest, err
	}
	if r.Map && n.tier() < exeq.TierKernel {
		return digest, fmt.Errorf("%w: this node's gate does not hold mappings", wire.ErrProtocol)
	}
	if r.Path == x.resource.ID && digest != x.resource.SHA256 && x.rights.Lookup(r.Path).Exec == exeq.ExecNo {
		return digest, fmt.Errorf("%w: %.200s has other bytes than the permit names", wire.ErrProgram, r.Path)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(enclosed); err != nil { // never into the map of what is ended
		return digest, err
	}
	if err := n.allow(x, r, f, file); err != nil {
		return digest, fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	if as := (approved{r.Path, digest}); !slices.Contains(x.programs[file], as) {
		x.programs[file] = append(x.programs[file], as)
	}
	return digest, nil
}

// withdraw takes back whatever was approved as that, also where the file was
// approved as something else besides: whoever wants that asks again.
func (n *Node) withdraw(p *peer, r *wire.Withdraw) error {
	x, err := n.owned(p, r.Permit)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.in(enclosed, held); err != nil {
		return err
	}
	for file, as := range x.programs {
		if !slices.Contains(as, approved{r.Path, r.SHA256}) {
			continue
		}
		if err := n.gate.Forbid(x.cgroup, file); err != nil {
			return fmt.Errorf("%w: %w", wire.ErrGate, err)
		}
		delete(x.programs, file)
	}
	return nil
}

// allow enters what was approved. A copy that stands for the path (the
// supervisor mounts it there, since nobody can change it) lies where no place
// is: it may be read as far as what it stands for may be.
func (n *Node) allow(x *execution, r *wire.Approve, f *os.File, file bpf.File) error {
	if !r.Map {
		return errors.Join(n.gate.Allow(x.cgroup, file), n.allowCopy(x, r.Path, f, file))
	}
	return errors.Join(n.gate.AllowLibrary(x.cgroup, file), n.allowCopy(x, r.Path, f, file))
}

func (n *Node) allowCopy(x *execution, encoded string, f *os.File, file bpf.File) error {
	if n.tier() < exeq.TierKernel || !x.rights.Lookup(encoded).Read {
		return nil
	}
	raw, err := exeq.DecodeBytes(encoded)
	if err != nil {
		return err
	}
	var is, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &is); err != nil {
		return err
	}
	view, err := bpf.OpenView(machine)
	if err != nil {
		return err
	}
	defer view.Close()
	if there, err = view.Stat(raw); err == nil && there.Dev == is.Dev && there.Ino == is.Ino {
		return nil // no copy: where it lies decides
	}
	return n.gate.AllowRead(x.cgroup, file)
}

// roomForProgram counts one more approval.
func (n *Node) roomForProgram(x *execution) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if uid := x.owner.uid; uid != 0 && n.programs[uid] >= maxUserPrograms {
		return fmt.Errorf("%w: %d programs are approved for this user", wire.ErrBusy, maxUserPrograms)
	}
	n.programs[x.owner.uid]++
	x.counted++
	return nil
}

// hash gives what the kernel takes the file for, and the digest that it has in
// that state. It is read unless it was read in that very state before: any
// write, also through a mapping, would have made it another, or leaves a writer
// that Identify refuses.
func (n *Node) hash(f *os.File) (bpf.File, exeq.Digest, error) {
	fail := func(err error) (bpf.File, exeq.Digest, error) {
		return bpf.File{}, exeq.Digest{}, fmt.Errorf("%w: %w", wire.ErrProgram, err)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&(unix.O_ACCMODE|unix.O_PATH) != unix.O_RDONLY {
		return fail(errors.New("a descriptor that is not open for reading alone"))
	}
	if err := n.gate.Ours(int(f.Fd())); err != nil { // it can give other bytes at each reading
		return fail(err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fail(err)
	}
	// Over overlayfs the inode tells neither who has the file below mapped for
	// writing, nor that it was written to by a mapping: nobody but root may be
	// able to. (Below, a user has no FUSE with files of root's either.)
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fail(err)
		}
		if st.Uid != 0 || st.Mode&0o022 != 0 {
			return fail(fmt.Errorf("over overlayfs it does not show who writes to it, and others than root may (owner %d, mode %#o)", st.Uid, st.Mode&0o7777))
		}
	}
	const patience = 3 * time.Second // above what the coarsest times want
	began := boottime()
	for try := 0; ; try++ {
		before, err := n.gate.Identify(f)
		if err != nil {
			return fail(err)
		}
		n.mu.Lock()
		digest, known := n.hashes[before]
		n.mu.Unlock()
		if known {
			return before, digest, nil
		}
		if before.Size > exeq.MaxProgramBytes {
			return fail(fmt.Errorf("%d bytes are over the limit of %d", before.Size, int64(exeq.MaxProgramBytes)))
		}
		if !before.Settled(time.Now()) {
			if boottime()-began > patience {
				return fail(errors.New("it does not stand still"))
			}
			time.Sleep(5 * time.Millisecond)
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, int64(before.Size)+1)); err != nil {
			return fail(err)
		}
		after, err := n.gate.Identify(f)
		if err != nil {
			return fail(err)
		}
		if after != before {
			if try > 20 && boottime()-began > patience {
				return fail(errors.New("it does not stand still"))
			}
			continue
		}
		digest = exeq.Digest(h.Sum(nil))
		n.mu.Lock()
		if len(n.hashes) >= maxHashes {
			clear(n.hashes)
		}
		n.hashes[before] = digest
		n.mu.Unlock()
		return before, digest, nil
	}
}

func containsLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimSuffix(l, "\n") == line {
			return true
		}
	}
	return false
}
