//go:build linux

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/node/wire"
)

// Where paths lie. What rights say of a path is said of the machine's file
// system, and so of its first process's mount namespace: nobody governed makes
// that, and no mask of an execution's own hides there what the rights leave
// shut. An execution has file systems of its own at ownFileSystems; only for
// these its own namespace is looked at, and only for what is mounted nowhere
// else.

// machine is the process whose mount namespace paths are looked up in.
const machine = 1

var ownFileSystems = []string{"/proc", "/dev"}

// sees says why the rights' paths would mean other files to whoever asks: then
// places could not be right for both.
func (n *Node) sees(p *peer) error {
	if n.tier() < exeq.TierKernel {
		return nil
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", p.pid))
	if err != nil {
		return fmt.Errorf("%w: its mount namespace cannot be seen: %w", wire.ErrPeer, err)
	}
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", machine))
	if err != nil {
		return fmt.Errorf("%w: the machine's mount namespace cannot be seen: %w", wire.ErrPeer, err)
	}
	if its != ours {
		return fmt.Errorf("%w: its mount namespace is not the machine's, so paths mean other files there", wire.ErrPeer)
	}
	return nil
}

// place has the gate hold the files of an execution to the permit's rights,
// less what the supervisor wants shut besides. It says where less holds than
// the rights give.
func (n *Node) place(x *execution, init *os.File, shut []string) (narrowed []string, err error) {
	if n.tier() < exeq.TierKernel {
		return nil, nil
	}
	if err := n.sees(x.owner); err != nil {
		return nil, err
	}
	view, err := bpf.OpenView(machine)
	if err != nil {
		return nil, err
	}
	defer view.Close()
	pid, err := pidOf(init)
	if err != nil {
		return nil, err
	}
	own, err := bpf.OpenView(pid)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if !alive(init) {
		return nil, errors.New("process 1 ended meanwhile")
	}
	all, narrowed, err := compile(x.rights, shut, view)
	if err != nil {
		return nil, err
	}
	fresh, _, err := compile(x.rights, nil, own)
	if err != nil {
		return nil, err
	}
	var inside []bpf.Place
	for _, p := range fresh {
		if within(p.Path, ownFileSystems...) {
			inside = append(inside, p)
		}
	}
	if err := n.roomForPlaces(x, len(all)+len(inside)); err != nil {
		return nil, err
	}
	return narrowed, n.gate.SetPlacesIn(x.cgroup, view, all, own, inside)
}

// compile gives the places that rights make in a view. Of a directory for which
// the rights tell it from what lies below, and of what is not there yet and may
// become one, what both give: a place knows no difference.
func compile(r *exeq.Rights, shut []string, view *bpf.View) (all []bpf.Place, narrowed []string, err error) {
	bits := func(a exeq.Access) (out bpf.Access) {
		if a.Read { // labelled or not: labels are the supervisor's to commit
			out |= bpf.Read
		}
		if a.Write {
			out |= bpf.Write
		}
		return out
	}
	closed := map[string]bool{}
	for _, s := range shut {
		raw, err := exeq.DecodeBytes(s)
		if err != nil || exeq.CheckPath(s) != nil {
			return nil, nil, fmt.Errorf("%w: shut: %.200q is no path", wire.ErrProtocol, s)
		}
		closed[raw] = true
		all = append(all, bpf.Place{Path: raw})
	}
	for _, c := range r.Cells {
		raw, err := exeq.DecodeBytes(c.Path)
		if err != nil {
			return nil, nil, err
		}
		if below(raw, closed) {
			continue
		}
		st, err := view.Stat(raw)
		there := err == nil
		if unreachable(err) {
			// It decides in its directory, if that is there.
			if st, err = view.Stat(path.Dir(raw)); unreachable(err) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.Path, err)
		}
		at, under := bits(c.At), bits(c.Under)
		p := bpf.Place{Path: raw, Access: at & under}
		if there && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			p.Access = at
		} else if p.Access != at|under {
			narrowed = append(narrowed, fmt.Sprintf("%s: policy tells it from what lies below it, and only what holds for both is given", c.Path))
		}
		all = append(all, p)
	}
	return all, narrowed, nil
}

// unreachable: nothing is at the path, or it leads through a link, so that no
// file has it for its own path.
func unreachable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// below reports whether p is one of the directories or below one.
func below(p string, dirs map[string]bool) bool {
	for ; p != "/"; p = path.Dir(p) {
		if dirs[p] {
			return true
		}
	}
	return false
}

func within(p string, dirs ...string) bool {
	for _, d := range dirs {
		if p == d || strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	return false
}

// roomForPlaces counts what an execution's places take.
func (n *Node) roomForPlaces(x *execution, places int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if uid := x.owner.uid; places > maxPlaces || uid != 0 && n.places[uid]+places > maxUserPlaces {
		return fmt.Errorf("%w: %d places are set for this user, and this permit needs %d", wire.ErrBusy, n.places[uid], places)
	}
	n.places[x.owner.uid] += places
	x.placed = places
	return nil
}
