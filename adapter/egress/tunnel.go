package egress

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/exeq/exeq"
)

// tunnel joins the execution's connection and an upstream one.
type tunnel struct {
	s    *session
	f    *flow
	up   net.Conn
	done chan struct{} // the upstream's bytes have ended

	spoke  atomic.Bool // upstream has sent a byte; set before it is passed on
	retry  atomic.Bool // … and asks for a second ClientHello
	parted atomic.Bool // the client's connection is no longer this tunnel's
}

// accessDenied is a fatal TLS alert (RFC 8446, 6.2), so that a TLS client says
// more than "connection closed".
var accessDenied = []byte{21, 3, 3, 0, 2, 2, 49}

// connect serves CONNECT for a target that was decided on.
func (s *session) connect(f *flow) {
	up, err := s.p.dial(f.ctx, f.to)
	if err != nil {
		var r *refusal
		if !errors.As(err, &r) {
			r = failed(502, "proxy_internal_error", "cannot connect to %s", f.to)
		}
		s.refuse(r, "CONNECT")
		return
	}
	defer up.Close()
	f.own(up)
	if _, err := io.WriteString(s.c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	t := &tunnel{s: s, f: f, up: up, done: make(chan struct{})}
	go t.down()
	plain, err := t.inspect()
	switch {
	case err != nil:
		t.refuse(err)
	case plain:
		// Served as HTTP from here on: this connection is not needed, each
		// request names its Host and goes through the pool.
		t.parted.Store(true)
		up.Close()
		<-t.done
		if !t.spoke.Load() {
			s.fixed = &f.to
			s.loop(f.ctx)
		}
		return
	default:
		if _, err := io.Copy(up, struct{ io.Reader }{s.br}); err != nil {
			s.c.Close()
			up.Close()
		}
		closeWrite(up)
	}
	<-t.done
}

func (t *tunnel) refuse(err error) {
	var r *refusal
	if errors.As(err, &r) {
		t.s.p.cfg.Gate.Seen(exeq.Activity{Action: exeq.ActionConnect, Resource: exeq.Resource{Type: "Endpoint", ID: t.f.to.String()}}, false)
		t.s.p.say(r)
		t.s.p.cfg.Logger.Warn("egress tunnel refused", "endpoint", t.f.to.String(), "line", r.line)
		if !t.spoke.Load() {
			t.s.c.SetWriteDeadline(time.Now().Add(time.Second))
			t.s.c.Write(accessDenied)
		}
	}
	t.parted.Store(true)
	t.up.Close()
	t.s.c.Close()
}

// down passes on what upstream sends. Its first bytes tell whether a second
// ClientHello will follow.
func (t *tunnel) down() {
	defer close(t.done)
	first := make([]byte, 4096)
	n, err := t.up.Read(first)
	for err == nil && first[0] == recordHandshake && n < retryBytes {
		var m int
		m, err = t.up.Read(first[n:])
		n += m
	}
	if n > 0 {
		t.retry.Store(asksRetry(first[:n]))
		t.spoke.Store(true)
		if t.parted.Load() {
			return
		}
		if _, werr := t.s.c.Write(first[:n]); werr != nil {
			t.up.Close()
			return
		}
	}
	if err == nil {
		_, err = io.Copy(t.s.c, struct{ io.Reader }{t.up})
	}
	switch {
	case t.parted.Load():
	case err == nil || errors.Is(err, io.EOF):
		closeWrite(t.s.c)
	default:
		t.s.c.Close()
		t.up.Close()
	}
}

// inspect looks at what the client sends first, which may be after the server
// has spoken: a TLS hello must name the target, and plain is true for HTTP in
// clear. When it returns neither, what was inspected has been forwarded and
// the rest may be copied.
func (t *tunnel) inspect() (plain bool, err error) {
	br := t.s.br
	b, err := br.Peek(1)
	if err != nil {
		return false, nil // the copy sees the same
	}
	t.s.c.SetReadDeadline(time.Now().Add(t.s.p.cfg.HeadTimeout))
	defer t.s.c.SetReadDeadline(time.Time{})
	switch c := b[0]; {
	case c == recordHandshake:
		return false, t.hellos()
	case c == '\r' || c == '\n' || c >= ' ' && c < 0x7f:
		return t.speaksHTTP()
	}
	return false, nil
}

// hellos checks every ClientHello that travels in clear: the first, and the
// one that answers a HelloRetryRequest, whenever the client sends it.
func (t *tunnel) hellos() error {
	for first := true; ; first = false {
		head, err := t.peek(5)
		if err != nil {
			return err
		}
		if !first && t.spoke.Load() && !t.retry.Load() {
			return nil // from here on the handshake is encrypted or names nothing
		}
		n := 5 + int(head[3])<<8 + int(head[4])
		if first || head[0] == recordHandshake {
			if n, err = t.hello(); err != nil {
				return err
			}
		} else if n > maxPlaintext+2048 {
			return denied("http_request_denied", "tunnel to "+t.f.to.String()+" refused: a TLS record is too large")
		}
		last := !first && t.retry.Load() && head[0] == recordHandshake
		if _, err := io.CopyN(t.up, t.s.br, int64(n)); err != nil {
			return err
		}
		if last {
			return nil
		}
		// Between the hellos a client may wait as long as its server does.
		t.s.c.SetReadDeadline(time.Time{})
	}
}

// hello peeks one ClientHello and holds its name against the target.
func (t *tunnel) hello() (int, error) {
	for want := 5; ; {
		b, err := t.peek(want)
		if err != nil {
			return 0, err
		}
		b, _ = t.s.br.Peek(t.s.br.Buffered())
		name, n, err := parseHello(b)
		if errors.Is(err, errMore) {
			want = len(b) + 1
			if want > exeq.MaxProxyHeadBytes {
				err = errTooLarge
			} else {
				continue
			}
		}
		if err != nil {
			return 0, denied("tls_protocol_error", "tunnel to "+t.f.to.String()+" refused: "+err.Error())
		}
		if name != "" && name != t.f.to.host {
			return 0, denied("http_request_denied", "tunnel to "+t.f.to.String()+" refused: its TLS ClientHello names "+name+" (domain fronting)")
		}
		return n, nil
	}
}

// peek is bufio's, with the end of the client's patience told apart from the
// end of the connection.
func (t *tunnel) peek(n int) ([]byte, error) {
	b, err := t.s.br.Peek(n)
	if err != nil && isTimeout(err) {
		return nil, denied("tls_protocol_error", "tunnel to "+t.f.to.String()+" refused: its first bytes took too long")
	}
	return b, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// maxFirstLine bounds the line in which plain HTTP is looked for.
const maxFirstLine = 8 << 10

// speaksHTTP reports whether a printable first line is an HTTP request's.
func (t *tunnel) speaksHTTP() (bool, error) {
	for n := 1; ; n++ {
		b, err := t.peek(n)
		if err != nil {
			return false, err
		}
		b, _ = t.s.br.Peek(t.s.br.Buffered())
		n = len(b)
		line := bytes.TrimLeft(b, "\r\n")
		end := bytes.IndexByte(line, '\n')
		if end >= 0 {
			line = line[:end]
		}
		for _, c := range bytes.TrimSuffix(line, []byte("\r")) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return false, nil // no request line holds it: some binary protocol
			}
		}
		if bytes.Contains(bytes.ToUpper(line), []byte(" HTTP/")) {
			return true, nil
		}
		if end >= 0 {
			return false, nil
		}
		if n >= maxFirstLine {
			return false, denied("http_request_denied", "tunnel to "+t.f.to.String()+" refused: its first line does not end")
		}
	}
}
