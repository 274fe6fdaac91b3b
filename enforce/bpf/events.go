//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// The verbs and reasons of gate.c.
const (
	verbConnect = 2
	verbBind    = 4
	verbSocket  = 7
	notKilled   = 0x80
)

var (
	verbs = [...]string{"", "exec", "connect", "send", "bind", "connect-unix", "send-unix", "socket", "move",
		"map", "open", "change", "listen", "trace", "signal", "mount", "system"}
	whys = [...]string{"allowed", "absent", "changed", "revoked", "left"}
)

// Event is one decision: each denial, and each execution that was allowed in a
// cgroup that is observed.
type Event struct {
	At     time.Duration // CLOCK_BOOTTIME
	Cgroup Cgroup        // the governed one
	PID    int           // in the host's pid namespace; of a move, the process that was moved
	UID    int
	Verb   string // one of verbs
	Why    string // allowed; absent, changed, revoked or left
	// Alive: the kernel could not deliver the signal. An execution that is not
	// allowed may run, or (move) PID lives on outside, where cgroup.kill does not
	// reach it: kill PID and End the cgroup.
	Alive bool

	Dev  uint32 // exec, map, open, change, connect-unix: the file
	Ino  uint64
	Addr netip.AddrPort // connect, send, bind
	// Family, Type and Protocol of the socket, as socket(2) has them. Protocol is
	// the other process in a trace or signal, the capability in system.
	Family, Type, Protocol int
}

// Events reads what the gate decided, or the orders that it gives. There is one
// ring of each a gate: of several readers each gets some. What nobody read stays,
// also across a restart of the reader, until the ring is full; then Dropped
// counts.
type Events struct{ r *ringbuf.Reader }

// Events begins to read all that is not Alive.
func (g *Gate) Events() (*Events, error) { return g.read(gateMapEvents) }

// Orders begins to read what is Alive: no number of other events keeps one from
// its reader.
func (g *Gate) Orders() (*Events, error) { return g.read(gateMapOrders) }

func (g *Gate) read(ring string) (*Events, error) {
	r, err := ringbuf.NewReader(g.maps[ring])
	if err != nil {
		return nil, err
	}
	return &Events{r}, nil
}

// Next waits for an event until the deadline (zero: for ever) and is woken by
// denials alone; os.ErrDeadlineExceeded says that there is none now, and
// os.ErrClosed that Close was called.
func (e *Events) Next(deadline time.Time) (Event, error) {
	e.r.SetDeadline(deadline)
	rec, err := e.r.Read()
	if errors.Is(err, ringbuf.ErrClosed) {
		return Event{}, os.ErrClosed
	}
	if err != nil {
		return Event{}, err
	}
	var x gateEvent
	if n, err := binary.Decode(rec.RawSample, binary.NativeEndian, &x); err != nil || n != len(rec.RawSample) {
		return Event{}, fmt.Errorf("an event of %d bytes", len(rec.RawSample))
	}
	return x.event()
}

// Close ends a Next that waits.
func (e *Events) Close() error { return e.r.Close() }

func (x *gateEvent) event() (Event, error) {
	why := x.Why &^ notKilled
	if x.Verb == 0 || int(x.Verb) >= len(verbs) || int(why) >= len(whys) {
		return Event{}, fmt.Errorf("an event of verb %d, reason %d", x.Verb, x.Why)
	}
	e := Event{
		At: time.Duration(x.At), Cgroup: Cgroup(x.Cgroup), PID: int(x.Pid), UID: int(x.Uid),
		Verb: verbs[x.Verb], Why: whys[why], Alive: x.Why&notKilled != 0,
		Dev: x.Dev, Ino: x.Ino,
		Family: int(x.Family), Type: int(x.Type), Protocol: int(x.Protocol),
	}
	if x.Verb >= verbConnect && x.Verb <= verbBind {
		e.Addr = netip.AddrPortFrom(netip.AddrFrom16(x.Addr).Unmap(), x.Port)
	}
	return e, nil
}
