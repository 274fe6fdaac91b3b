package egress

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/exeq/exeq"
)

// session is one connection of the execution to the proxy.
type session struct {
	p  *Proxy
	c  net.Conn
	br *bufio.Reader
	// fixed is, inside a tunnel that carries plain HTTP, the target that the
	// tunnel was decided for; every request must name it.
	fixed *target
}

func (p *Proxy) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	// The end of Serve unblocks whatever waits for the client.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s := &session{p: p, c: c, br: bufio.NewReaderSize(c, exeq.MaxProxyHeadBytes)}
	s.loop(ctx)
}

// loop serves request after request until one ends the connection.
func (s *session) loop(ctx context.Context) {
	for {
		h, req, err := s.next()
		if err != nil {
			if r := headRefusal(err); r != nil {
				s.refuse(r, "")
			}
			return
		}
		if !s.serve(ctx, h, req) {
			return
		}
	}
}

// next waits for a request within the idle time, and for its whole head within
// the head time, so that a trickle of bytes holds nothing for long.
func (s *session) next() (head, *http.Request, error) {
	s.c.SetReadDeadline(time.Now().Add(s.p.cfg.IdleTimeout))
	if _, err := s.br.Peek(1); err != nil {
		return head{}, nil, io.EOF
	}
	s.c.SetReadDeadline(time.Now().Add(s.p.cfg.HeadTimeout))
	raw, err := peekHead(s.br)
	if err != nil {
		return head{}, nil, err
	}
	h, err := checkHead(raw)
	if err != nil {
		return head{}, nil, bad("%v", err)
	}
	req, err := http.ReadRequest(s.br)
	if err != nil {
		return head{}, nil, bad("head does not parse")
	}
	s.c.SetReadDeadline(time.Time{})
	return h, req, nil
}

// headRefusal is the answer to a head that did not come through; nil where
// nobody listens any more.
func headRefusal(err error) *refusal {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, errTooLarge):
		return failed(http.StatusRequestHeaderFieldsTooLarge, "http_request_error", "request refused: %v", err)
	case errors.Is(err, errHTTP2):
		return failed(http.StatusHTTPVersionNotSupported, "http_protocol_error", "request refused: %v", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failed(http.StatusRequestTimeout, "http_request_error", "request refused: its head took too long")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return nil
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return nil
	}
	return bad("%v", err)
}

// refuse answers and lingers for a moment, so that the answer reaches a client
// that is still sending.
func (s *session) refuse(r *refusal, method string) {
	s.p.say(r)
	s.p.cfg.Logger.Info("egress refused", "status", r.status, "line", r.line)
	s.c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := s.c.Write(r.bytes(method)); err != nil {
		return
	}
	closeWrite(s.c)
	io.CopyN(io.Discard, s.br, 256<<10)
}

// serve handles one request and reports whether the connection can take the
// next.
func (s *session) serve(ctx context.Context, h head, req *http.Request) bool {
	if s.fixed == nil && !s.p.admits(h.auth) {
		s.refuse(&refusal{http.StatusProxyAuthRequired, "http_request_denied", "exeq: this proxy serves one execution, and this is not it"}, req.Method)
		return false
	}
	t, err := s.target(h, req)
	if err != nil {
		var r *refusal
		if !errors.As(err, &r) {
			r = bad("%v", err)
		}
		s.refuse(r, req.Method)
		return false
	}
	if s.p.cfg.Inside != nil && t.host == s.p.cfg.InsideHost && req.Method == http.MethodConnect {
		s.inside()
		return false
	}
	if s.p.cfg.Bound != nil {
		if r := s.p.cfg.Bound(s.c); r != nil && !r.Reaches(t.host, t.port) {
			if s.p.cfg.Gate != nil {
				s.p.cfg.Gate.Seen(exeq.Activity{Action: exeq.ActionConnect, Resource: exeq.Resource{Type: "Endpoint", ID: t.String()}}, false)
			}
			s.refuse(denied("http_request_denied", "connect to "+t.String()+" denied: outside the rights of the nested run that asks"), req.Method)
			return false
		}
	}
	f := s.p.begin(ctx, t)
	defer s.p.end(f)
	if r := s.p.decide(f.ctx, t); r != nil {
		s.refuse(r, req.Method)
		return false
	}
	f.own(s.c)
	if req.Method == http.MethodConnect {
		s.connect(f)
		return false
	}
	return s.forward(f, req)
}

// inside hands the connection to the supervisor's own service. What the client
// sent ahead of the answer would be lost, so it is refused.
func (s *session) inside() {
	if s.br.Buffered() > 0 {
		s.refuse(bad("data before the tunnel stands"), http.MethodConnect)
		return
	}
	if _, err := io.WriteString(s.c, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
		s.p.cfg.Inside(s.c)
	}
}

// admits holds a Proxy-Authorization field against the secret.
func (p *Proxy) admits(auth string) bool {
	if p.cfg.Secret == "" {
		return true
	}
	credentials, ok := cutPrefixFold(auth, "Basic ")
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials))
	_, password, _ := strings.Cut(string(b), ":")
	return ok && err == nil && subtle.ConstantTimeCompare([]byte(password), []byte(p.cfg.Secret)) == 1
}

// target gives the one destination that the request names: by the URI in
// absolute form or CONNECT, with a Host field that says the same.
func (s *session) target(h head, req *http.Request) (target, error) {
	var t target
	var err error
	defaultPort := 80
	switch {
	case h.method == http.MethodConnect:
		if s.fixed != nil {
			return t, bad("CONNECT inside a tunnel")
		}
		if t, err = parseAuthority(h.uri, 0); err != nil {
			return t, bad("CONNECT target: %v", err)
		}
		if req.ContentLength != 0 {
			return t, bad("CONNECT with a body")
		}
		defaultPort = t.port // clients leave the port out of this Host
	case s.fixed != nil:
		t = *s.fixed
		if !strings.HasPrefix(h.uri, "/") && !(h.uri == "*" && h.method == http.MethodOptions) {
			return t, bad("a request inside a tunnel names no authority but Host")
		}
		if !h.hasHost {
			return t, bad("a request inside a tunnel needs a Host field")
		}
	default:
		authority, ok := cutPrefixFold(h.uri, "http://")
		if !ok {
			if _, https := cutPrefixFold(h.uri, "https://"); https {
				return t, bad("https goes through CONNECT")
			}
			return t, bad("this is a forward proxy: the target must be http://HOST/… or CONNECT HOST:PORT")
		}
		if i := strings.IndexAny(authority, `/?#\`); i >= 0 {
			if authority[i] == '\\' || authority[i] == '#' {
				return t, bad("target holds a character that must be escaped")
			}
			authority = authority[:i]
		}
		if t, err = parseAuthority(authority, 80); err != nil {
			return t, bad("target: %v", err)
		}
		// What net/http understood is what goes upstream.
		if again, err := parseAuthority(req.URL.Host, 80); err != nil || again != t || req.URL.User != nil {
			return t, bad("target can be read in two ways")
		}
	}
	if h.hasHost {
		host, err := parseAuthority(h.host, defaultPort)
		if err != nil {
			return t, bad("Host field: %v", err)
		}
		if host != t {
			return t, bad("Host field names %s but the request goes to %s", host, t)
		}
	}
	return t, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// hopByHop are the fields that end at a proxy (RFC 9110, 7.6.1), with those
// that speak to the proxy itself. Expect is answered here.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authorization", "Proxy-Authenticate", "Proxy-Authentication-Info", "Expect",
}

func stripHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// forward sends one request upstream and its response back; it reports whether
// the connection stays usable.
func (s *session) forward(f *flow, req *http.Request) bool {
	body := newBody(s, req)
	out := (&http.Request{
		Method: req.Method,
		URL: &url.URL{Scheme: "http", Host: f.to.String(), Path: req.URL.Path, RawPath: req.URL.RawPath,
			RawQuery: req.URL.RawQuery, ForceQuery: req.URL.ForceQuery},
		Host:   f.to.hostField(),
		Header: req.Header.Clone(), ContentLength: req.ContentLength,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(f.ctx)
	if out.URL.Path == "" && req.Method == http.MethodOptions {
		out.URL.Opaque = "*" // RFC 9112, 3.2.4
	}
	stripHop(out.Header)
	upgrade := wantsWebSocket(req)
	if upgrade {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", "websocket")
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // not Go's own
	}
	if req.ContentLength != 0 {
		out.Body = body
		if strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
			io.WriteString(s.c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
	}
	// A client that goes away ends the exchange, also while upstream is silent.
	stopWatch := body.watch(func() { f.cancel(net.ErrClosed) })
	resp, err := s.p.transport.RoundTrip(out)
	if err != nil {
		body.abandon()
		stopWatch()
		var r *refusal
		if !errors.As(err, &r) {
			r = failed(http.StatusBadGateway, "connection_terminated", "%s did not answer", f.to)
		}
		if f.ctx.Err() == nil {
			s.refuse(r, req.Method)
		}
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 {
		body.abandon()
		stopWatch()
		if upgrade {
			s.splice(f, resp)
		} else {
			s.refuse(failed(http.StatusBadGateway, "http_protocol_error", "%s switched protocols unasked", f.to), req.Method)
		}
		return false
	}
	keep := !req.Close && req.ProtoAtLeast(1, 1)
	ok := s.respond(resp, req, keep)
	complete := body.abandon()
	stopWatch()
	return ok && complete && keep
}

// respond writes the response, each piece as it comes. It reports false where
// the end of the response could only be told by closing.
func (s *session) respond(resp *http.Response, req *http.Request, keep bool) bool {
	length := resp.ContentLength
	bodyless := req.Method == http.MethodHead || resp.StatusCode == 204 || resp.StatusCode == 304
	h := resp.Header.Clone()
	stripHop(h)
	chunked := length < 0 && !bodyless && req.ProtoAtLeast(1, 1)
	switch {
	case chunked:
		h.Set("Transfer-Encoding", "chunked")
		h.Del("Content-Length")
	case length < 0 && !bodyless:
		keep = false
	}
	if !keep {
		h.Set("Connection", "close")
	}
	w := bufio.NewWriter(s.c)
	io.WriteString(w, "HTTP/1.1 "+resp.Status+"\r\n")
	if err := h.Write(w); err != nil {
		return false
	}
	io.WriteString(w, "\r\n")
	if err := w.Flush(); err != nil {
		return false
	}
	if bodyless {
		return keep
	}
	var dst io.Writer = s.c
	var cw io.WriteCloser
	if chunked {
		cw = httputil.NewChunkedWriter(w)
		dst = flushed{cw, w}
	}
	if _, err := io.Copy(dst, struct{ io.Reader }{resp.Body}); err != nil {
		return false
	}
	if chunked {
		cw.Close()
		io.WriteString(w, "\r\n")
		return w.Flush() == nil && keep
	}
	return keep
}

type flushed struct {
	w io.Writer
	b *bufio.Writer
}

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.b.Flush()
	}
	return n, err
}
