package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

func TestForwardsHTTP(t *testing.T) {
	s := echo(t)
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	c := f.client()
	for i := range 5 {
		req, _ := http.NewRequest("POST", s.URL+"/a%2Fb?q=1", strings.NewReader("body"))
		req.Header.Set("X-End", "1")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("X-End=1 POST %s:%d/a%%2Fb?q=1 body", host, port); string(b) != want {
			t.Fatalf("request %d: got %q, want %q", i, b, want)
		}
	}
	if n := f.dials(); n != 1 {
		t.Errorf("5 requests made %d upstream connections, want 1 kept alive", n)
	}
	if f.p.BytesOut() < 5*100 {
		t.Errorf("BytesOut = %d, want every request counted", f.p.BytesOut())
	}
}

func TestStripsWhatEndsAtAProxy(t *testing.T) {
	s := echo(t)
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	_, body := f.raw(fmt.Sprintf("GET http://%s:%d/ HTTP/1.1\r\nHost: %s:%d\r\nProxy-Authorization: Basic c2VjcmV0\r\n"+
		"Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-End: 1\r\n\r\n", host, port, host, port))
	if want := fmt.Sprintf("X-End=1 GET %s:%d/ ", host, port); body != want {
		t.Errorf("upstream saw %q, want %q", body, want)
	}
}

func TestTunnelsTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello "+r.Host) }))
	defer s.Close()
	_, port := hostPort(t, s.URL)
	f := start(t, anyPort("example.com"))
	f.route("example.com", port, s.Listener.Addr().String())
	c := s.Client()
	tr := c.Transport.(*http.Transport)
	tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: f.addr})
	resp, err := c.Get(fmt.Sprintf("https://example.com:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := fmt.Sprintf("hello example.com:%d", port); string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	tr.CloseIdleConnections()
}

// A server that makes the client say hello twice: the second hello passes too.
func TestTunnelHelloRetry(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }))
	s.TLS = &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}
	s.StartTLS()
	defer s.Close()
	_, port := hostPort(t, s.URL)
	f := start(t, anyPort("example.com"))
	f.route("example.com", port, s.Listener.Addr().String())
	c := s.Client()
	tr := c.Transport.(*http.Transport)
	tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: f.addr})
	resp, err := c.Get(fmt.Sprintf("https://example.com:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	if !resp.TLS.HelloRetryRequest {
		t.Error("the server did not ask for a second hello: the test proves nothing")
	}
	resp.Body.Close()
	tr.CloseIdleConnections()
}

// A server that speaks first (SSH, SMTP) works through a tunnel, both ways and
// with half-closes.
func TestTunnelServerFirst(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "SSH-2.0-server\r\n")
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "got %q", b)
	}()
	host, port := hostPort(t, l.Addr().String())
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	c := f.open(l.Addr().String())
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "SSH-2.0-server\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	io.WriteString(c, "SSH-2.0-client version\r\n\x00\x01")
	c.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(r)
	if want := `got "SSH-2.0-client version\r\n\x00\x01"`; string(rest) != want {
		t.Errorf("got %q (%v), want %q", rest, err, want)
	}
}

// Some clients open tunnels for plain HTTP: served, with each Host checked.
func TestTunnelPlainHTTP(t *testing.T) {
	s := echo(t)
	f := start(t, anyPort("example.com"))
	f.route("example.com", 80, s.Listener.Addr().String())
	c := f.open("example.com:80")
	r := bufio.NewReader(c)
	for range 3 {
		io.WriteString(c, "GET /x HTTP/1.1\r\nHost: example.com\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		if string(b) != "GET example.com/x " {
			t.Errorf("got %q", b)
		}
	}
	io.WriteString(c, "GET /x HTTP/1.1\r\nHost: other.example\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 400 {
		t.Errorf("another Host inside the tunnel: %s, want 400", resp.Status)
	}
}

// A streamed response arrives piece by piece, as server-sent events need.
func TestStreams(t *testing.T) {
	next := make(chan string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for v := range next {
			fmt.Fprint(w, v)
			w.(http.Flusher).Flush()
		}
	}))
	defer s.Close()
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	go func() { next <- "one\n" }()
	resp, err := f.client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for _, v := range []string{"one\n", "two\n", "three\n"} {
		if v != "one\n" {
			next <- v
		}
		if got, err := r.ReadString('\n'); got != v {
			t.Fatalf("got %q (%v), want %q before the response has ended", got, err, v)
		}
	}
	close(next)
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// A client that leaves ends the upstream exchange, though upstream is silent.
func TestClientLeaves(t *testing.T) {
	reached, left := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(left)
	}))
	defer s.Close()
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	if resp, err := f.client().Do(req); err == nil {
		resp.Body.Close()
		t.Error("the request was cancelled and succeeded")
	}
	<-left
}

func TestRecheckEndsWhatIsDenied(t *testing.T) {
	silent := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			select {
			case <-silent:
			case <-r.Context().Done():
			}
		}
	}))
	defer s.Close()
	defer close(silent)
	host, port := hostPort(t, s.URL)
	f := start(t, append(anyPort("example.com"), exeq.Endpoint{Host: host, Port: port}))
	f.g.cacheable = true
	f.route("example.com", 443, parrot(t))

	tunnel := f.open(s.Listener.Addr().String())
	kept := f.open("example.com:443")
	resp, err := f.client().Get(s.URL + "/wait")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	f.p.Recheck(t.Context()) // nothing changed: everything stays
	io.WriteString(kept, "\x00opaque")
	io.WriteString(tunnel, "\x00opaque")

	f.g.set(func(id string) bool { return id == "example.com:443" })
	f.p.Recheck(t.Context())
	if _, err := io.Copy(io.Discard, tunnel); isTimeout(err) {
		t.Error("the denied tunnel is still open")
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the denied exchange went on to a clean end")
	}
	if status, _ := f.raw("GET " + s.URL + "/ HTTP/1.1\r\nHost: " + s.Listener.Addr().String() + "\r\n\r\n"); status != 403 {
		t.Errorf("a new request after the label: %d, want 403 (the cached ruling is void)", status)
	}
	io.WriteString(kept, "\x00again")
	b := make([]byte, len("\x00opaque\x00again"))
	if _, err := io.ReadFull(kept, b); err != nil || string(b) != "\x00opaque\x00again" {
		t.Errorf("the allowed tunnel: %q %v", b, err)
	}
}

func TestCacheableRulingIsAskedOnce(t *testing.T) {
	s := echo(t)
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	f.g.cacheable = true
	for range 3 {
		f.raw("GET " + s.URL + "/ HTTP/1.1\r\nHost: " + s.Listener.Addr().String() + "\r\nConnection: close\r\n\r\n")
	}
	if n := f.g.count(); n != 1 {
		t.Errorf("asked %d times, want 1", n)
	}
}

func TestConnectionLimit(t *testing.T) {
	f := start(t, nil, func(c *Config) { c.MaxConns = 2 })
	for range 2 {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// The proxy has it once it answers; half a head keeps it.
		io.WriteString(c, "GET ")
	}
	for f.connections() < 2 {
		runtime.Gosched()
	}
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(b), "HTTP/1.1 503 ") {
		t.Errorf("third connection: %q, want 503", b)
	}
}

func (f *fixture) connections() int {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.p.conns
}

// A trickled head ends at the head time, however often a byte comes.
func TestSlowLoris(t *testing.T) {
	f := start(t, nil, func(c *Config) { c.HeadTimeout = 100 * time.Millisecond })
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(c, "X"); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 408 {
		t.Errorf("got %s, want 408", resp.Status)
	}
}

func TestNoGateDeniesEverything(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no gate":   func(c *Config) { c.Gate = nil },
		"no rights": func(c *Config) { c.Rights = nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, anyPort("*"), change)
			if status, _ := f.raw("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"); status != 403 {
				t.Errorf("got %d, want 403", status)
			}
		})
	}
}
