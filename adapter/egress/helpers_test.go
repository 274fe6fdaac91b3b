package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// gate is a decision point of a test: it allows what allow says and remembers
// what it was asked and told.
type gate struct {
	mu        sync.Mutex
	allow     func(id string) bool
	cacheable bool
	asked     []string
	refused   []string
}

func (g *gate) Ask(ctx context.Context, a exeq.Activity) exeq.Ruling {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, a.Resource.ID)
	if ctx.Err() != nil || a.Action != exeq.ActionConnect || a.Resource.Type != "Endpoint" || !g.allow(a.Resource.ID) {
		return exeq.Ruling{Message: "connect to " + a.Resource.ID + " denied by policy test-forbid; to allow: permit it"}
	}
	return exeq.Ruling{Allow: true, Cacheable: g.cacheable}
}

// Explain implements exeq.Gate.
func (g *gate) Explain(_ context.Context, a exeq.Activity) string {
	return a.Action + " " + a.Resource.ID + " denied: by the test"
}

func (g *gate) Seen(a exeq.Activity, allowed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !allowed {
		g.refused = append(g.refused, a.Resource.ID)
	}
}

func (g *gate) set(allow func(string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allow = allow
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

func everything(string) bool { return true }

// names is a resolver that knows what it is told and remembers each question.
type names struct {
	mu    sync.Mutex
	hosts map[string][]string
	asked []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	host = strings.TrimSuffix(host, ".")
	n.asked = append(n.asked, host)
	var out []netip.Addr
	for _, a := range n.hosts[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if len(out) == 0 {
		return nil, errors.New("no such host")
	}
	return out, nil
}

// fixture is a proxy on loopback. Dials to the public addresses of test names
// are led to real servers on loopback, after the proxy has judged them.
type fixture struct {
	t     *testing.T
	p     *Proxy
	g     *gate
	names *names
	addr  string
	l     net.Listener
	done  chan struct{}

	mu     sync.Mutex
	routes map[string]string // judged ip:port → loopback ip:port
	dialed []string
}

// public is an address that stands for some server of the internet.
const public = "93.184.216.34"

func start(t *testing.T, endpoints []exeq.Endpoint, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, g: &gate{allow: everything}, names: &names{hosts: map[string][]string{}}, routes: map[string]string{}, done: make(chan struct{})}
	cfg := Config{
		Gate:     f.g,
		Rights:   &exeq.Rights{Version: 1, Endpoints: endpoints},
		Resolver: f.names,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			f.mu.Lock()
			f.dialed = append(f.dialed, address)
			if to, ok := f.routes[address]; ok {
				address = to
			}
			f.mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	f.p = New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.l, f.addr = l, l.Addr().String()
	go func() { f.p.Serve(l); close(f.done) }()
	t.Cleanup(func() {
		l.Close()
		<-f.done
		noneLeft(t)
	})
	return f
}

// noneLeft waits until no goroutine of the proxy is left; it fails if they do
// not go.
func noneLeft(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		left := ""
		for g := range strings.SplitSeq(stacks, "\n\n") {
			if strings.Contains(g, "egress.(*Proxy)") || strings.Contains(g, "egress.(*session)") || strings.Contains(g, "egress.(*tunnel)") || strings.Contains(g, "egress.(*body)") {
				left = g
			}
		}
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a goroutine of the proxy is left:\n%s", left)
		}
	}
}

// route leads name:port to the server at loopback.
func (f *fixture) route(name string, port int, server string) {
	f.names.mu.Lock()
	f.names.hosts[name] = []string{public}
	f.names.mu.Unlock()
	f.mu.Lock()
	f.routes[fmt.Sprintf("%s:%d", public, port)] = server
	f.mu.Unlock()
}

func (f *fixture) dials() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dialed)
}

func (f *fixture) client() *http.Client {
	u := &url.URL{Scheme: "http", Host: f.addr}
	tr := &http.Transport{Proxy: http.ProxyURL(u)}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// raw sends bytes and reads the response's head and whole text.
func (f *fixture) raw(text string) (int, string) {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		f.t.Fatalf("no response to %q: %v", text, err)
	}
	if strings.HasPrefix(text, "CONNECT") && resp.StatusCode == 200 {
		return 200, ""
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// open asks for a tunnel and returns its connection.
func (f *fixture) open(to string) net.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	head := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))
	if _, err := io.ReadFull(c, head); err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 200 ") {
		f.t.Fatalf("CONNECT %s: %q %v", to, head, err)
	}
	return c
}

// echo is a plain server that says which Host it was asked for.
func echo(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		for _, h := range []string{"Proxy-Authorization", "Connection", "Te", "Keep-Alive", "X-Hop", "X-End"} {
			if v := r.Header.Get(h); v != "" {
				fmt.Fprintf(w, "%s=%s ", h, v)
			}
		}
		fmt.Fprintf(w, "%s %s%s %s", r.Method, r.Host, r.URL.RequestURI(), b)
	}))
	t.Cleanup(s.Close)
	return s
}

// parrot is a TCP server that sends back what it gets.
func parrot(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

func hostPort(t *testing.T, s string) (string, int) {
	t.Helper()
	a := netip.MustParseAddrPort(strings.TrimPrefix(strings.TrimPrefix(s, "http://"), "https://"))
	return a.Addr().String(), int(a.Port())
}

func anyPort(hosts ...string) []exeq.Endpoint {
	var out []exeq.Endpoint
	for _, h := range hosts {
		out = append(out, exeq.Endpoint{Host: h})
	}
	return out
}
