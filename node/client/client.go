//go:build linux

// Package client speaks to exeq-node for an unprivileged supervisor: it asks
// who the node is, has it take the permit, and puts to it what enforcement
// needs (it is an enforce.Warden). It believes the node what the node signs,
// and fails closed on anything that it does not say in time.
package client

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/node/wire"
)

// How long the node may take for one answer. For what keeps a lease that lies
// below it, so that a node that has stopped ends what it holds no later than
// one that is gone. Meanwhile nothing waits for the rest but a program that is
// not running yet.
const (
	patience      = 2 * time.Second
	startPatience = 10 * time.Second // canaries are started
	readPatience  = time.Minute      // a program is read
)

func patienceFor(r *wire.Request) time.Duration {
	switch {
	case r.Approve != nil, r.Declare != nil:
		return readPatience
	case r.Admit != nil, r.Enclose != nil, r.Revoke != nil:
		return startPatience
	}
	return patience
}

// Client serves one execution at the node.
type Client struct {
	socket string
	id     wire.Identity

	mu     sync.Mutex
	permit string          // admitted
	denied []exeq.Activity // that the node told and nobody took
}

// Dial asks the node behind the socket who it is. A node that does not serve
// this user is an error.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket}
	a, err := c.ask(ctx, &wire.Request{Hello: &struct{}{}})
	if err != nil {
		return nil, err
	}
	if a.Hello == nil || len(a.Hello.PublicKey) != ed25519.PublicKeySize || exeq.KeyID(a.Hello.PublicKey) != a.Hello.Audience.Node {
		return nil, fmt.Errorf("%w: the node does not say who it is", wire.ErrProtocol)
	}
	if !a.Hello.Serves {
		return nil, fmt.Errorf("%w: %.500s", wire.ErrPeer, cmp.Or(a.Hello.Refusal, "no issuer is trusted for it"))
	}
	c.id = *a.Hello
	return c, nil
}

// Audience is what a permit for the node names.
func (c *Client) Audience() exeq.Audience { return c.id.Audience }

// PublicKey is the node's.
func (c *Client) PublicKey() ed25519.PublicKey { return c.id.PublicKey }

// Tier implements enforce.Warden.
func (c *Client) Tier() exeq.Tier { return c.id.Tier }

// Above says why the node gives no higher tier.
func (c *Client) Above() string { return c.id.Above }

// Admit has the node take the permit: it checks everything for itself and burns
// the nonce.
func (c *Client) Admit(ctx context.Context, p *exeq.Permit, on *exeq.PermitRecord, r *exeq.Request, rights *exeq.Rights) error {
	_, err := c.ask(ctx, &wire.Request{Admit: &wire.Admit{Envelope: p.Envelope, Record: on, Request: r, Rights: rights}})
	if err == nil {
		c.mu.Lock()
		c.permit = p.Body.ID
		c.mu.Unlock()
	}
	return err
}

// Enclose implements enforce.Warden.
func (c *Client) Enclose(ctx context.Context, init, command int, proxy netip.AddrPort, shut []string) (*exeq.Enclosure, error) {
	e := wire.Enclose{Permit: c.name(), Shut: shut}
	if proxy.IsValid() {
		e.Proxy = proxy.String()
	}
	a, err := c.ask(ctx, &wire.Request{Enclose: &e}, init, command)
	if err != nil {
		return nil, err
	}
	if err := c.check(a.Enclosure, e.Permit); err != nil {
		return nil, err
	}
	return a.Enclosure, nil
}

// check verifies the node's word before it is put on record.
func (c *Client) check(e *exeq.Enclosure, permit string) error {
	if e == nil || e.Permit != permit || e.Audience != c.id.Audience || e.Key != c.id.Audience.Node || e.Tier != c.id.Tier {
		return fmt.Errorf("%w: an enclosure of something else", wire.ErrProtocol)
	}
	msg, err := e.Signable()
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signature)
	if err != nil || !ed25519.Verify(c.id.PublicKey, msg, sig) {
		return fmt.Errorf("%w: an enclosure that the node did not sign", wire.ErrProtocol)
	}
	return nil
}

// Approve implements enforce.Warden.
func (c *Client) Approve(ctx context.Context, path string, want exeq.Digest, f *os.File, mapped bool) error {
	a, err := c.ask(ctx, &wire.Request{Approve: &wire.Approve{Permit: c.name(), Path: path, Map: mapped}}, int(f.Fd()))
	if err != nil {
		return err
	}
	if a.SHA256 == nil || *a.SHA256 != want {
		return fmt.Errorf("%w: the node found other bytes than were decided on", wire.ErrProgram)
	}
	return nil
}

// Withdraw implements enforce.Warden.
func (c *Client) Withdraw(ctx context.Context, path string, digest exeq.Digest) error {
	_, err := c.ask(ctx, &wire.Request{Withdraw: &wire.Withdraw{Permit: c.name(), Path: path, SHA256: digest}})
	return err
}

// Challenge implements enforce.Warden.
func (c *Client) Challenge(ctx context.Context) (string, error) {
	a, err := c.ask(ctx, &wire.Request{Challenge: &wire.Named{Permit: c.name()}})
	if err == nil && a.Challenge == "" {
		err = fmt.Errorf("%w: no challenge", wire.ErrProtocol)
	}
	if err != nil {
		return "", err
	}
	c.hear(a)
	return a.Challenge, nil
}

// Renew implements enforce.Warden.
func (c *Client) Renew(ctx context.Context, n exeq.Renewal) error {
	_, err := c.ask(ctx, &wire.Request{Renew: &n})
	return err
}

// Hold implements enforce.Warden.
func (c *Client) Hold(ctx context.Context) error {
	_, err := c.ask(ctx, &wire.Request{Hold: &wire.Named{Permit: c.name()}})
	return err
}

// Resume implements enforce.Warden.
func (c *Client) Resume(ctx context.Context) error {
	_, err := c.ask(ctx, &wire.Request{Resume: &wire.Named{Permit: c.name()}})
	return err
}

// Over implements enforce.Warden.
func (c *Client) Over(ctx context.Context) (ended, err error) {
	if c.name() == "" {
		return nil, nil // nothing was admitted
	}
	a, err := c.ask(ctx, &wire.Request{Over: &wire.Named{Permit: c.name()}})
	if err != nil {
		return nil, err
	}
	c.hear(a)
	switch {
	case a.Revoked:
		return fmt.Errorf("%w: %s", exeq.ErrRevoked, a.Ended), nil
	case a.Ended != "":
		return errors.New(a.Ended), nil
	}
	return nil, nil
}

// hear keeps what the node told of denials.
func (c *Client) hear(a *wire.Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range a.Denied {
		c.denied = append(c.denied, a.Denied[i].Activity())
	}
	if a.More > 0 {
		c.denied = append(c.denied, exeq.Activity{Action: exeq.ActionExec,
			Resource: exeq.Resource{Type: "Program", ID: fmt.Sprintf("%d more denials of the kernel's gate", a.More)}})
	}
}

// Denied implements enforce.Warden.
func (c *Client) Denied() []exeq.Activity {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.denied
	c.denied = nil
	return out
}

// Revoke brings a revocation to the node behind the socket: when it returns nil,
// nothing of the execution is alive. One that the node does not hold is
// wire.ErrUnknown.
func Revoke(ctx context.Context, socket string, v *exeq.Revocation) error {
	_, err := (&Client{socket: socket}).ask(ctx, &wire.Request{Revoke: v})
	return err
}

// Renew brings a renewal to the node behind the socket, whoever it is that does.
func Renew(ctx context.Context, socket string, r *exeq.Renewal) error {
	_, err := (&Client{socket: socket}).ask(ctx, &wire.Request{Renew: r})
	return err
}

// Look asks the node behind the socket who it is and what it holds.
func Look(ctx context.Context, socket string) (*wire.Identity, *wire.Status, error) {
	c := &Client{socket: socket}
	who, err := c.ask(ctx, &wire.Request{Hello: &struct{}{}})
	if err != nil {
		return nil, nil, err
	}
	what, err := c.ask(ctx, &wire.Request{Status: &struct{}{}})
	if err == nil && (who.Hello == nil || what.Status == nil) {
		err = fmt.Errorf("%w: no status", wire.ErrProtocol)
	}
	if err != nil {
		return nil, nil, err
	}
	return who.Hello, what.Status, nil
}

func (c *Client) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.permit
}

// ask makes one connection for one question.
func (c *Client) ask(ctx context.Context, r *wire.Request, fds ...int) (*wire.Answer, error) {
	r.Version = wire.Version
	b, err := wire.Frame(r)
	if err != nil {
		return nil, err
	}
	wait := patienceFor(r)
	d := net.Dialer{Timeout: wait}
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("exeq-node: %w", err)
	}
	defer conn.Close()
	u := conn.(*net.UnixConn)
	if err := byRoot(u); err != nil {
		return nil, fmt.Errorf("exeq-node at %s: %w", c.socket, err)
	}
	stop := context.AfterFunc(ctx, func() { u.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	u.SetDeadline(time.Now().Add(wait))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	sent, _, werr := u.WriteMsgUnix(b, rights, nil)
	if werr == nil && sent < len(b) {
		_, werr = u.Write(b[sent:])
	}
	// Who is refused is told so without being heard.
	a, err := wire.ReadAnswer(u)
	if err == nil || errors.As(err, new(*wire.Error)) {
		return a, err
	}
	if err = errors.Join(werr, err); ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, fmt.Errorf("exeq-node does not answer: %w", err)
}

// byRoot refuses a socket that anybody else listens on: whoever sets a variable
// for us, or has a directory on the way, is no node, and what it says would be
// put on record.
func byRoot(u *net.UnixConn) error {
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return errors.Join(cerr, err)
	}
	if cred.Uid != 0 {
		return fmt.Errorf("%w: user %d serves there, and not root", wire.ErrPeer, cred.Uid)
	}
	return nil
}
