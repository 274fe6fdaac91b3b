// Package wire is what exeq-node and those who ask it say to each other: one
// request and one answer a connection of a unix socket, each a length of four
// bytes (big endian) and so much JSON, read strictly. Descriptors travel with the first byte.
//
// Nothing hangs on a connection: an execution lives by its lease, which is
// renewed by what the issuer signed, whoever brings it.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Version of what is said here.
const Version = 1

// Limits of what is read.
const (
	// MaxMessage bounds one message: a permit with its record, the request and
	// the rights that it binds.
	MaxMessage = exeq.MaxRequestBytes + exeq.MaxRightsBytes + 4*exeq.MaxPermitBytes
	// MaxSmall bounds what is read without asking for room.
	MaxSmall = 128 << 10
	// MaxDescriptors is how many descriptors come with a message.
	MaxDescriptors = 2
	// MaxAnswer bounds an answer.
	MaxAnswer = 256 << 10
)

// DefaultSocket is where the node listens; Variable names another for clients.
const (
	DefaultSocket = "/run/exeq-node.sock"
	Variable      = "EXEQ_NODE"
)

// Request has exactly one member beside its version.
type Request struct {
	Version int `json:"v"`
	// Hello asks who the node is.
	Hello *struct{} `json:"hello,omitempty"`
	// Admit asks for a permit to be taken. Whoever asks is from then on the
	// supervisor of the execution.
	Admit *Admit `json:"admit,omitempty"`
	// Enclose brings the pidfds of the execution's process 1 and of its command,
	// which waits to execute.
	Enclose *Enclose `json:"enclose,omitempty"`
	// Approve brings a descriptor of a program that was decided on.
	Approve *Approve `json:"approve,omitempty"`
	// Withdraw takes back what was approved.
	Withdraw *Withdraw `json:"withdraw,omitempty"`
	// Challenge asks for what the next renewal has to answer.
	Challenge *Named `json:"challenge,omitempty"`
	// Renew and Revoke bring what the issuer signed; anybody may.
	Renew  *exeq.Renewal    `json:"renew,omitempty"`
	Revoke *exeq.Revocation `json:"revoke,omitempty"`
	// Hold stops every process and suspends the lease; Resume goes on with what
	// was left of it.
	Hold   *Named `json:"hold,omitempty"`
	Resume *Named `json:"resume,omitempty"`
	// Over says that nothing of it is alive. What is, dies.
	Over *Named `json:"over,omitempty"`
	// Status asks what the node holds.
	Status *struct{} `json:"status,omitempty"`
	// Declare, Scopes, Report, Open and Openings are about mandatory scopes.
	Declare  *Declare    `json:"declare,omitempty"`
	Scopes   *struct{}   `json:"scopes,omitempty"`
	Report   *exeq.Scope `json:"report,omitempty"`
	Open     *Open       `json:"open,omitempty"`
	Openings *Openings   `json:"openings,omitempty"`
}

// Named names an execution by its permit.
type Named struct {
	Permit string `json:"permit"`
}

// Admit is a permit with everything that it binds.
type Admit struct {
	Envelope []byte             `json:"envelope"`
	Record   *exeq.PermitRecord `json:"record"`
	Request  *exeq.Request      `json:"request"`
	Rights   *exeq.Rights       `json:"rights"`
}

// Enclose names the one address that the execution may connect to by itself,
// its proxy's; empty: none. Shut are paths that are shut beside what the rights
// leave shut (tier kernel): whoever asks can only narrow.
type Enclose struct {
	Permit string   `json:"permit"`
	Proxy  string   `json:"proxy,omitempty"`
	Shut   []string `json:"shut,omitempty"` // EncodeBytes
}

// Approve says what the file stands for: a program, or (tier kernel) what is
// mapped executable and not executed.
type Approve struct {
	Permit string `json:"permit"`
	Path   string `json:"path"` // EncodeBytes
	Map    bool   `json:"map,omitempty"`
}

// Withdraw names what was approved as it was then. It can only narrow.
type Withdraw struct {
	Permit string      `json:"permit"`
	Path   string      `json:"path"` // EncodeBytes
	SHA256 exeq.Digest `json:"sha256"`
}

// Answer has Error, or what was asked for.
type Answer struct {
	Version   int             `json:"v"`
	Error     *Error          `json:"error,omitempty"`
	Hello     *Identity       `json:"hello,omitempty"`
	Enclosure *exeq.Enclosure `json:"enclosure,omitempty"`
	SHA256    *exeq.Digest    `json:"sha256,omitempty"`    // Approve: of the bytes that may be executed
	Challenge string          `json:"challenge,omitempty"` // hexadecimal
	// Denied, after Challenge and Over: what the kernel's gate refused since the
	// last of them; More counts what was too much to tell.
	Denied []Denied `json:"denied,omitempty"`
	More   int      `json:"more,omitempty"`
	// Ended, after Over: why the node ended the execution; empty if it did not.
	// Revoked: by a revocation that its issuer signed.
	Ended   string  `json:"ended,omitempty"`
	Revoked bool    `json:"revoked,omitempty"`
	Status  *Status `json:"status,omitempty"`
	// About scopes.
	Scopes   []HeldScope       `json:"scopes,omitempty"`
	Report   *exeq.ScopeReport `json:"report,omitempty"`
	Openings []exeq.Opening    `json:"openings,omitempty"`
}

// MaxDenied is how many denials an answer tells.
const MaxDenied = 64

// Denied is one denial of the kernel's gate.
type Denied struct {
	Verb string `json:"verb"` // as the gate has them
	Why  string `json:"why"`  // absent, changed, revoked, left
	PID  int    `json:"pid"`  // as the node sees it
	Dev  uint32 `json:"dev,omitempty"`
	Ino  string `json:"ino,omitempty"` // decimal
	Addr string `json:"addr,omitempty"`
	// Refused: it failed with EPERM; otherwise, of an exec, the process died.
	Refused bool `json:"refused,omitempty"`
}

// Activity is the denial as it is recorded. The kernel tells an inode, and no
// path.
func (d *Denied) Activity() exeq.Activity {
	a := exeq.Activity{Action: exeq.ActionConnect, PID: d.PID}
	file := fmt.Sprintf("inode %s of device %d (%s): refused by the kernel", d.Ino, d.Dev, d.Why)
	switch d.Verb {
	case "exec":
		if d.Refused {
			a.Action, a.Resource = exeq.ActionExec, exeq.Resource{Type: "Program", ID: file}
			break
		}
		a.Action, a.Resource = exeq.ActionExec, exeq.Resource{Type: "Program", ID: fmt.Sprintf("inode %s of device %d (%s): killed by the kernel", d.Ino, d.Dev, d.Why)}
	case "move":
		a.Action, a.Resource = exeq.ActionExec, exeq.Resource{Type: "Program", ID: "a process that left its cgroup: killed by the kernel"}
	case "map":
		a.Action, a.Resource = exeq.ActionMap, exeq.Resource{Type: "Program", ID: file}
	case "open":
		a.Action, a.Resource = exeq.ActionRead, exeq.Resource{Type: "Path", ID: file}
	case "change":
		a.Action, a.Resource = exeq.ActionWrite, exeq.Resource{Type: "Path", ID: file}
	case "trace", "signal", "mount", "system":
		// No activity of policy's has a name for it: what it would have been good
		// for is running something else.
		a.Action, a.Resource = exeq.ActionExec, exeq.Resource{Type: "Program", ID: d.Verb + " (" + d.Why + "): refused by the kernel"}
	default:
		a.Resource = exeq.Resource{Type: "Endpoint", ID: strings.TrimSpace(d.Verb+" "+d.Addr) + " (" + d.Why + "): refused by the kernel"}
	}
	return a
}

// Identity is who the node is: what a permit's audience must be.
type Identity struct {
	Audience  exeq.Audience `json:"audience"`
	PublicKey []byte        `json:"publicKey"`
	Tier      exeq.Tier     `json:"tier"` // that it gives every execution
	// Above says why it gives no higher one.
	Above   string   `json:"above,omitempty"`
	Missing []string `json:"missing,omitempty"`
	// Serves: permits are taken from whoever asks. Refusal may say why not.
	Serves  bool   `json:"serves"`
	Refusal string `json:"refusal,omitempty"`
}

// Status is what the node holds.
type Status struct {
	Executions []Held `json:"executions"`
	// Found says what an earlier run had left and what became of it.
	Found   []string `json:"found,omitempty"`
	Dropped uint64   `json:"dropped"` // events of the gate that nobody has read
}

// Held is one execution.
type Held struct {
	Permit      string `json:"permit"`
	UID         int    `json:"uid"`
	State       string `json:"state"`
	LeaseMillis int64  `json:"leaseMillis"` // left
	Programs    int    `json:"programs"`
	Denials     int    `json:"denials"`
}

// Limits of every message's JSON.
func limits(n int) canon.Limits { return canon.Limits{Bytes: n, Depth: exeq.MaxDepth} }

// DecodeRequest reads a request strictly.
func DecodeRequest(b []byte) (*Request, error) {
	var r Request
	if err := canon.Decode(b, &r, limits(MaxMessage)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if r.Version != Version {
		return nil, fmt.Errorf("%w: version %d, this node speaks %d", ErrProtocol, r.Version, Version)
	}
	n := 0
	for _, set := range []bool{r.Hello != nil, r.Admit != nil, r.Enclose != nil, r.Approve != nil, r.Withdraw != nil, r.Challenge != nil, r.Renew != nil,
		r.Revoke != nil, r.Hold != nil, r.Resume != nil, r.Over != nil, r.Status != nil,
		r.Declare != nil, r.Scopes != nil, r.Report != nil, r.Open != nil, r.Openings != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return nil, fmt.Errorf("%w: it asks for %d things, not one", ErrProtocol, n)
	}
	return &r, nil
}

// Frame gives v as it travels.
func Frame(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes are over the limit of %d", ErrProtocol, len(b), MaxMessage)
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...), nil
}

// ReadAnswer reads an answer; one that is an error is given as that.
func ReadAnswer(from io.Reader) (*Answer, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxAnswer {
		return nil, fmt.Errorf("%w: an answer of %d bytes", ErrProtocol, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, err
	}
	var a Answer
	if err := canon.Decode(b, &a, limits(MaxAnswer)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case a.Version != Version:
		return nil, fmt.Errorf("%w: an answer of version %d", ErrProtocol, a.Version)
	case a.Error != nil:
		return nil, a.Error
	}
	return &a, nil
}
