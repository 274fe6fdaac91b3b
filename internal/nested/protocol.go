// Package nested makes a run inside an execution its child. Inside, Exeq's
// state does not exist; the one way out is the execution's proxy, where the
// supervisor answers at [Host]. The child is decided by the supervisor's policy
// as its parent's agent, gets a permit of its own with rights that lie within
// its parent's, and is on record as its child.
//
// The kernel holds the child to its parent's rights, whatever it does. Where
// its own are narrower, the client puts Landlock in force before it starts the
// command: a caller that skips this only keeps what it has anyway, and the child's start
// says that its client alone holds it. Who a client is, in which run it stands
// and what of it is alive the supervisor sees for itself ([Sight]).
package nested

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Host is the name at which the proxy hands a tunnel to the supervisor; no
// name below .invalid resolves (RFC 6761).
const Host = "exeq.invalid"

// ask is what a client wants to run.
type ask struct {
	Version int      `json:"v"`       // 1
	Program string   `json:"program"` // resolved path, EncodeBytes
	Argv    []string `json:"argv"`    // EncodeBytes
	Dir     string   `json:"dir"`     // EncodeBytes
	// Within is the execution that the client stands in: the parent, or a
	// nested run of it that is alive. Whoever names another than the innermost
	// that the supervisor sees around it is refused.
	Within string `json:"within"`
	Intent string `json:"intent,omitempty"`
}

// message goes either way; one member is set.
type message struct {
	// From the supervisor.
	Start  *start   `json:"start,omitempty"`  // the permit is admitted: run it
	Ping   string   `json:"ping,omitempty"`   // a challenge
	Kill   string   `json:"kill,omitempty"`   // trust ended, with the reason
	Result *Outcome `json:"result,omitempty"` // the last message
	// From the client.
	Running bool       `json:"running,omitempty"` // the command is released
	Pong    string     `json:"pong,omitempty"`
	Exit    *exeq.Exit `json:"exit,omitempty"` // nothing of it is alive
}

// start carries what the client needs.
type start struct {
	ID string `json:"id"`
	// Rights, where they are narrower than what the kernel holds already.
	Rights *exeq.Rights `json:"rights,omitempty"`
	// Bound, beside Rights: those of the parent.
	Bound *exeq.Rights `json:"bound,omitempty"`
}

// Outcome is what became of a nested run.
type Outcome struct {
	ID     string     `json:"id"`
	State  exeq.State `json:"state"`
	Code   string     `json:"code,omitempty"`
	Exit   exeq.Exit  `json:"exit"`
	Status int        `json:"status"` // what the client exits with
	Error  string     `json:"error,omitempty"`
}

// wire sends and receives messages, one a line.
type wire struct {
	net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
	wait time.Duration
}

func newWire(c net.Conn) *wire {
	return &wire{Conn: c, in: bufio.NewReaderSize(c, 64<<10), wait: exeq.DefaultLease}
}

func (w *wire) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.SetWriteDeadline(time.Now().Add(w.wait))
	_, err = w.Write(append(b, '\n'))
	return err
}

// receive reads one message of at most limit bytes, strictly.
func (w *wire) receive(v any, limit int) error {
	var line []byte
	for {
		part, err := w.in.ReadSlice('\n')
		if line = append(line, part...); len(line) > limit {
			return fmt.Errorf("a message is over the limit of %d bytes", limit)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return err
		}
		return canon.Decode(line, v, canon.Limits{Bytes: limit, Depth: exeq.MaxDepth})
	}
}
