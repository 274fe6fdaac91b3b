package nested

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/permit"
)

// Process is a living process of the parent, as the supervisor sees it.
type Process struct {
	PID, Parent int
	Began       uint64 // tells it from a later one of the same number
}

// Sight is what the supervisor itself sees inside the parent. A client's word
// is not believed about who it is, or about what is alive.
type Sight interface {
	// Living gives what lives inside; exeq.ErrGone once nothing does.
	Living() ([]Process, error)
	// Holders gives who holds the other end of a connection from this port.
	Holders(port int) ([]Process, error)
}

// key names a process for good.
type key struct {
	pid   int
	began uint64
}

func (p Process) key() key { return key{p.PID, p.Began} }

// kin tells which processes are of a nested run. Its client, what that started
// and what has been seen below it are. What began after it is in doubt, and
// counts as its, unless an unbroken line of parents leads to a process that
// was there before and takes nobody in: one whose parents are dead may have
// come from anywhere.
type kin struct {
	client []key
	before map[key]bool // alive when it was released
	takes  map[key]bool // of before: clients around it, to whom orphans come
	seen   map[key]bool // met below the client
}

// of gives those of all that are of the run; certain: and no other's.
func (k *kin) of(all []Process, certain bool) []key {
	byPID := make(map[int]Process, len(all))
	for _, p := range all {
		byPID[p.PID] = p
	}
	var out []key
	for _, p := range all {
		if k.has(p, byPID, certain) {
			out = append(out, p.key())
		}
	}
	return out
}

func (k *kin) has(p Process, byPID map[int]Process, certain bool) bool {
	cleared := false
	for range len(byPID) + 1 { // a table read while it changes may hold a loop
		id := p.key()
		if k.seen[id] || slices.Contains(k.client, id) {
			return true
		}
		cleared = cleared || k.before[id]
		up, ok := byPID[p.Parent]
		if !ok || !cleared && k.takes[up.key()] {
			break
		}
		p = up
	}
	return !certain && !cleared
}

// see remembers what is below the client now.
func (k *kin) see(all []Process) {
	for _, id := range k.of(all, true) {
		k.seen[id] = true
	}
}

// meet finds the client of a connection and the runs that it stands in.
func (p *Parent) meet(c net.Conn) (client []Process, all []Process, err error) {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || p.Sight == nil {
		return nil, nil, errors.New("its client cannot be seen")
	}
	if client, err = p.Sight.Holders(a.Port); err != nil {
		return nil, nil, fmt.Errorf("its client cannot be seen: %w", err)
	}
	all, err = p.Sight.Living()
	return client, all, err
}

// bound gives the rights within which a run lies that client asks for: those of
// every run that it stands in, or may. within is where it says that it stands:
// the innermost.
func (p *Parent) bound(within string, client, all []Process) (*exeq.Rights, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rights, around := p.around(client, all)
	if len(around) == 0 && within == p.ID {
		return p.Rights, nil
	}
	if !around[within] {
		return nil, fmt.Errorf("nested run: it does not stand in execution %q", within)
	}
	for id := range around {
		if p.live[id].within == within {
			return nil, fmt.Errorf("nested run: it stands in an execution inside %q", within)
		}
	}
	return rights, nil
}

// Bound gives the rights of the runs that whoever holds a connection stands in,
// or may; nil where no run that is alive has fewer endpoints than its parent.
func (p *Parent) Bound(c net.Conn) *exeq.Rights {
	p.mu.Lock()
	narrower := false
	for _, e := range p.live {
		narrower = narrower || !slices.Equal(e.launch.Rights.Endpoints, p.Rights.Endpoints)
	}
	p.mu.Unlock()
	if !narrower {
		return nil
	}
	client, all, err := p.meet(c)
	if err != nil {
		return permit.Attenuate(nil, nil) // nobody's: nothing
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	rights, _ := p.around(client, all)
	return rights
}

// around gives the runs that client stands in or may, and the rights that all
// of them leave.
func (p *Parent) around(client, all []Process) (*exeq.Rights, map[string]bool) {
	byPID := make(map[int]Process, len(all))
	for _, q := range all {
		byPID[q.PID] = q
	}
	rights, around := p.Rights, map[string]bool{}
	for id, e := range p.live {
		if slices.ContainsFunc(client, func(q Process) bool { return e.kin.has(q, byPID, false) }) {
			around[id] = true
			rights = permit.Attenuate(rights, e.launch.Rights)
		}
	}
	return rights, around
}

// begin notes what is there when a run is released.
func (e *inside) begin() error {
	all, err := e.parent.Sight.Living()
	if err != nil {
		return err
	}
	k := &kin{before: map[key]bool{}, takes: map[key]bool{}, seen: map[key]bool{}}
	byPID := make(map[int]Process, len(all))
	for _, p := range all {
		k.before[p.key()], byPID[p.PID] = true, p
	}
	for _, p := range e.client {
		if !k.before[p.key()] {
			return errors.New("its client is gone")
		}
		k.client = append(k.client, p.key())
	}
	e.parent.mu.Lock()
	defer e.parent.mu.Unlock()
	above := &kin{} // whoever has our client below it is around us
	for _, other := range e.parent.live {
		above.client = other.kin.client
		for _, c := range e.client {
			if above.has(c, byPID, true) {
				for _, id := range other.kin.client {
					k.takes[id] = true
				}
			}
		}
	}
	if e.parent.live == nil {
		e.parent.live = map[string]*inside{}
	}
	e.kin = k
	e.parent.live[e.launch.ID] = e
	return nil
}

// end forgets the run as one that others can stand in.
func (e *inside) end() {
	e.parent.mu.Lock()
	defer e.parent.mu.Unlock()
	delete(e.parent.live, e.launch.ID)
}

// look notes what is below the client.
func (e *inside) look() {
	if all, err := e.parent.Sight.Living(); err == nil {
		e.parent.mu.Lock()
		e.kin.see(all)
		e.parent.mu.Unlock()
	}
}

// over reports whether nothing of the run is alive, its client (which still
// waits for the result) aside unless it is asked for. Where doubt is to count,
// so does what may be of it.
func (e *inside) over(doubt, client bool) (bool, error) {
	all, err := e.parent.Sight.Living()
	if errors.Is(err, exeq.ErrGone) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	e.parent.mu.Lock()
	defer e.parent.mu.Unlock()
	for _, id := range e.kin.of(all, !doubt) {
		if client || !slices.Contains(e.kin.client, id) {
			return false, nil
		}
	}
	return true, nil
}

// awaitOver waits until nothing of the run is alive, and ends the parent where
// that does not come about within the time.
func (e *inside) awaitOver(doubt, client bool, within time.Duration, reason string) {
	for end := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		over, err := e.over(doubt, client)
		if over {
			return
		}
		if time.Now().After(end) {
			if err != nil {
				reason += ": " + err.Error()
			}
			e.parent.End(reason)
			return
		}
	}
}
