package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/exeq/exeq"
)

// flow is one thing that goes out: a tunnel or one HTTP exchange. It is
// registered before its decision is asked for, so that a Recheck that follows
// a new label finds every decision that came before the label.
type flow struct {
	to     target
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

var errRecheck = errors.New("denied on re-decision")

// own adds a connection that ends with the flow; it closes at once if the flow
// has ended.
func (f *flow) own(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		c.Close()
		return
	}
	f.conns = append(f.conns, c)
}

// stop ends the flow: nothing that the execution sends later leaves through it.
func (f *flow) stop(cause error) {
	f.cancel(cause)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, c := range f.conns {
		c.Close()
	}
}

func (p *Proxy) begin(ctx context.Context, t target) *flow {
	f := &flow{to: t}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	p.mu.Lock()
	p.flows[f] = struct{}{}
	p.mu.Unlock()
	return f
}

func (p *Proxy) end(f *flow) {
	p.mu.Lock()
	delete(p.flows, f)
	p.mu.Unlock()
	f.cancel(nil)
}

// decide holds t against the rights and puts it to the gate. What lies outside
// the rights is put to the gate all the same, which records the denial and
// knows the words; its answer can only narrow.
func (p *Proxy) decide(ctx context.Context, t target) *refusal {
	a := exeq.Activity{Action: exeq.ActionConnect, Resource: exeq.Resource{Type: "Endpoint", ID: t.String()}}
	if p.cfg.Gate == nil || p.cfg.Rights == nil {
		return denied("http_request_denied", fmt.Sprintf("connect to %s denied: no policy is in force", t))
	}
	reaches := p.cfg.Rights.Reaches(t.host, t.port)
	p.mu.Lock()
	_, cached := p.ruled[t]
	generation := p.generation
	p.mu.Unlock()
	if reaches && cached {
		p.cfg.Gate.Seen(a, true)
		return nil
	}
	r := p.cfg.Gate.Ask(ctx, a)
	if !r.Allow {
		line := r.Message
		if line == "" {
			line = fmt.Sprintf("connect to %s denied", t)
		}
		return denied("http_request_denied", line)
	}
	if !reaches {
		p.cfg.Gate.Seen(a, false)
		return denied("http_request_denied", fmt.Sprintf(
			"connect to %s denied: outside the rights of this execution's permit; a policy that permits connect to Exeq::Endpoint::%q allows it at the next run", t, t))
	}
	if r.Cacheable {
		p.mu.Lock()
		if p.generation == generation {
			p.ruled[t] = struct{}{}
		}
		p.mu.Unlock()
	}
	return nil
}

// resolve gives the addresses of an allowed target, each judged. One address
// that may not be reached refuses the whole answer: a name server that mixes
// them is rebinding.
func (p *Proxy) resolve(ctx context.Context, t target) ([]netip.Addr, *refusal) {
	addrs, err := p.lookup(ctx, t)
	if err != nil || len(addrs) == 0 {
		// The resolver's own words may carry more than the name.
		p.cfg.Logger.Debug("resolve", "host", t.host, "err", err)
		return nil, failed(http.StatusBadGateway, "dns_error", "cannot resolve %s", t.host)
	}
	own, err := p.ownAddrs()
	if err != nil {
		return nil, failed(http.StatusBadGateway, "proxy_internal_error", "cannot list this machine's addresses")
	}
	for i, a := range addrs {
		a = a.Unmap()
		addrs[i] = a
		if c := classify(a, own); !p.opens(t, a, c) {
			p.cfg.Gate.Seen(exeq.Activity{Action: exeq.ActionConnect, Resource: exeq.Resource{Type: "Endpoint", ID: t.String()}}, false)
			at := target{a.String(), t.port}
			line := fmt.Sprintf("connect to %s denied: %s is a %s address; only a policy that names exactly Exeq::Endpoint::%q allows it", t, a, c, at)
			p.cfg.Logger.Warn("egress address denied", "endpoint", t.String(), "address", a.String(), "class", string(c))
			return nil, denied("destination_ip_prohibited", line)
		}
	}
	return addrs, nil
}

func (p *Proxy) lookup(ctx context.Context, t target) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(t.host); err == nil {
		return []netip.Addr{a}, nil
	}
	if t.local() { // never a question to a name server (RFC 6761)
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	return p.cfg.Resolver.LookupNetIP(ctx, "ip", t.host+".")
}

// dial connects to the first address that answers of those that resolve
// judged, and to no other.
func (p *Proxy) dial(ctx context.Context, t target) (net.Conn, error) {
	addrs, ref := p.resolve(ctx, t)
	if ref != nil {
		return nil, ref
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	for _, a := range addrs {
		c, err := p.cfg.Dial(ctx, "tcp", netip.AddrPortFrom(a, uint16(t.port)).String())
		if err == nil {
			if p.cfg.Reached != nil {
				p.cfg.Reached(t.String())
			}
			return &counted{Conn: c, total: &p.bytesOut}, nil
		}
		p.cfg.Logger.Debug("dial", "endpoint", t.String(), "address", a.String(), "err", err)
		if ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return nil, failed(http.StatusGatewayTimeout, "connection_timeout", "%s does not answer", t)
	}
	return nil, failed(http.StatusBadGateway, "connection_refused", "cannot connect to %s", t)
}
