package egress

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/exeq/exeq"
)

// Resolver turns a name into addresses; *net.Resolver is one. The name ends in
// a dot, so that no search list applies.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config says what a proxy decides by and how it reaches out.
type Config struct {
	// Gate rules on each destination and Rights bound it; without either the
	// proxy denies everything.
	Gate   exeq.Gate
	Rights *exeq.Rights
	// Observe lets an execution that is watched by learn reach loopback,
	// private and own addresses that it states itself, as far as Rights and
	// Gate allow them. Link-local and metadata stay closed.
	Observe bool
	// Secret, where not empty, must come with each request as the password of
	// Proxy-Authorization (Basic, any user): for a listener that others on the
	// machine can reach too. The proxy's URL is then http://exeq:SECRET@HOST:PORT.
	Secret string
	// InsideHost, where not empty, is a name that CONNECT hands to Inside
	// instead of the network: the supervisor's own service to the execution.
	// Inside owns the connection.
	InsideHost string
	Inside     func(net.Conn)
	// Bound, where not nil, gives the narrower rights of whoever in the
	// execution holds the other end of a connection; nil: there are none.
	Bound func(net.Conn) *exeq.Rights
	// Resolver is net.DefaultResolver where nil.
	Resolver Resolver
	// Dial opens a TCP connection to ip:port; net.Dialer where nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger discards where nil.
	Logger *slog.Logger
	// Say, where not nil, gets the one line of each denial ("exeq: connect to
	// …"), each distinct line once: many clients show their user only a 403.
	Say func(line string)
	// Reached, where not nil, gets each host:port that a connection was made to,
	// maybe more than once, from several goroutines.
	Reached func(endpoint string)

	MaxConns    int           // of the execution at once; 0: exeq.MaxProxyConns
	HeadTimeout time.Duration // from the first byte of a head to its end; 0: 10 s
	IdleTimeout time.Duration // between requests of one connection; 0: 2 min
	DialTimeout time.Duration // for a name to resolve, and to connect; 0: 15 s
}

// Proxy is the egress proxy of one execution. Safe for concurrent use.
type Proxy struct {
	cfg       Config
	transport *http.Transport
	ownAddrs  func() ([]netip.Addr, error)
	bytesOut  atomic.Int64

	mu         sync.Mutex
	flows      map[*flow]struct{}
	ruled      map[target]struct{} // allowed until the next Recheck
	generation int
	conns      int
	said       map[string]struct{}
}

// New makes a proxy; it starts nothing.
func New(cfg Config) *Proxy {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = exeq.MaxProxyConns
	}
	if cfg.HeadTimeout == 0 {
		cfg.HeadTimeout = 10 * time.Second
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 2 * time.Minute
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 15 * time.Second
	}
	p := &Proxy{cfg: cfg, ownAddrs: interfaceAddrs, flows: map[*flow]struct{}{}, ruled: map[target]struct{}{}, said: map[string]struct{}{}}
	p.transport = &http.Transport{
		// The transport pools by host:port, which is what was decided on;
		// each new connection is resolved and judged by itself.
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			t, err := parseAuthority(addr, 0)
			if err != nil {
				return nil, err
			}
			return p.dial(ctx, t)
		},
		Proxy:                  nil,
		DisableCompression:     true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: exeq.MaxProxyHeadBytes,
		Protocols:              new(http.Protocols),
	}
	p.transport.Protocols.SetHTTP1(true)
	return p
}

// BytesOut is the number of bytes that left for upstream servers, heads and
// TLS included.
func (p *Proxy) BytesOut() int64 { return p.bytesOut.Load() }

// Serve answers the connections of l, which only the execution may reach,
// until l closes; then it ends every connection, and returns when nothing of
// it runs any more. It is a [exeq.Launch]'s Egress. Serve one listener a
// proxy.
func (p *Proxy) Serve(l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer p.transport.CloseIdleConnections()
	defer wg.Wait()
	defer cancel()
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		if err != nil && !passing(err) {
			if !errors.Is(err, net.ErrClosed) {
				p.cfg.Logger.Error("egress accept", "err", err)
			}
			return
		}
		if err != nil {
			p.cfg.Logger.Warn("egress accept", "err", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		if !p.enter() {
			r := failed(http.StatusServiceUnavailable, "proxy_internal_response", "more than %d connections at once", p.cfg.MaxConns)
			c.SetWriteDeadline(time.Now().Add(time.Second))
			c.Write(r.bytes(""))
			c.Close()
			continue
		}
		wg.Go(func() {
			defer p.leave()
			p.serveConn(ctx, c)
		})
	}
}

// passing reports an accept error after which the next accept may succeed: out
// of descriptors or memory, or the peer was gone at once.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns >= p.cfg.MaxConns {
		return false
	}
	p.conns++
	return true
}

func (p *Proxy) leave() {
	p.mu.Lock()
	p.conns--
	p.mu.Unlock()
}

// Recheck decides again on everything that is open and ends what is now
// denied; when it returns, nothing that the execution sends from then on
// leaves through a denied flow. It is called when the session's labels grow, before labelled data is delivered, and when
// the policy set changes.
func (p *Proxy) Recheck(ctx context.Context) {
	p.mu.Lock()
	p.generation++
	clear(p.ruled)
	open := map[target][]*flow{}
	for f := range p.flows {
		open[f.to] = append(open[f.to], f)
	}
	p.mu.Unlock()
	for t, flows := range open {
		if r := p.decide(ctx, t); r != nil {
			p.cfg.Logger.Info("egress closed", "endpoint", t.String(), "flows", len(flows))
			for _, f := range flows {
				f.stop(errRecheck)
			}
		}
	}
}

// maxSaid bounds how many lines are told apart; what comes after is only in
// the record.
const maxSaid = 256

// say passes a denial's line on, once.
func (p *Proxy) say(r *refusal) {
	if p.cfg.Say == nil || r.status != http.StatusForbidden {
		return
	}
	p.mu.Lock()
	_, again := p.said[r.line]
	if again = again || len(p.said) >= maxSaid; !again {
		p.said[r.line] = struct{}{}
	}
	p.mu.Unlock()
	if !again {
		p.cfg.Say(r.line)
	}
}

// counted counts what is written to an upstream connection.
type counted struct {
	net.Conn
	total *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.total.Add(int64(n))
	return n, err
}

// closeWrite half-closes where the connection can.
func closeWrite(c net.Conn) {
	if u, ok := c.(*counted); ok {
		c = u.Conn
	}
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
		return
	}
	c.Close()
}
