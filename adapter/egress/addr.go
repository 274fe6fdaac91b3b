package egress

import (
	"net"
	"net/netip"
)

// class is what an address is to the machine that dials it.
type class string

const (
	classPublic    class = "public"
	classLoopback  class = "loopback"
	classLinkLocal class = "link-local"
	classMetadata  class = "cloud metadata"
	classPrivate   class = "private"
	classOwn       class = "this machine's own"
	classSpecial   class = "special-purpose" // unspecified, multicast, reserved, transition
)

// special lists the ranges that are no public destination: IANA's
// special-purpose registries and the metadata services of the large clouds,
// some of which stand on addresses that look public or private. The longest
// prefix decides.
var special = []struct {
	prefix netip.Prefix
	class  class
}{
	{netip.MustParsePrefix("0.0.0.0/8"), classSpecial},
	{netip.MustParsePrefix("10.0.0.0/8"), classPrivate},
	{netip.MustParsePrefix("100.64.0.0/10"), classPrivate},
	{netip.MustParsePrefix("100.100.100.200/32"), classMetadata}, // Alibaba
	{netip.MustParsePrefix("127.0.0.0/8"), classLoopback},
	{netip.MustParsePrefix("168.63.129.16/32"), classMetadata}, // Azure wire server
	{netip.MustParsePrefix("169.254.0.0/16"), classLinkLocal},
	{netip.MustParsePrefix("169.254.169.254/32"), classMetadata},
	{netip.MustParsePrefix("172.16.0.0/12"), classPrivate},
	{netip.MustParsePrefix("192.0.0.0/24"), classSpecial},
	{netip.MustParsePrefix("192.0.0.192/32"), classMetadata}, // Oracle
	{netip.MustParsePrefix("192.0.2.0/24"), classSpecial},
	{netip.MustParsePrefix("192.88.99.0/24"), classSpecial}, // 6to4 relay
	{netip.MustParsePrefix("192.168.0.0/16"), classPrivate},
	{netip.MustParsePrefix("198.18.0.0/15"), classPrivate},
	{netip.MustParsePrefix("198.51.100.0/24"), classSpecial},
	{netip.MustParsePrefix("203.0.113.0/24"), classSpecial},
	{netip.MustParsePrefix("224.0.0.0/4"), classSpecial},
	{netip.MustParsePrefix("240.0.0.0/4"), classSpecial},

	{netip.MustParsePrefix("::/8"), classSpecial}, // unspecified, IPv4-compatible
	{netip.MustParsePrefix("::1/128"), classLoopback},
	{netip.MustParsePrefix("64:ff9b::/96"), classPublic},    // NAT64: by the embedded address
	{netip.MustParsePrefix("64:ff9b:1::/48"), classSpecial}, // local NAT64
	{netip.MustParsePrefix("100::/64"), classSpecial},
	{netip.MustParsePrefix("2001::/23"), classSpecial}, // Teredo, ORCHID, benchmarking
	{netip.MustParsePrefix("2001:db8::/32"), classSpecial},
	{netip.MustParsePrefix("2002::/16"), classSpecial}, // 6to4
	{netip.MustParsePrefix("3fff::/20"), classSpecial},
	{netip.MustParsePrefix("5f00::/16"), classSpecial},
	{netip.MustParsePrefix("fc00::/7"), classPrivate},
	{netip.MustParsePrefix("fd00:ec2::254/128"), classMetadata}, // AWS
	{netip.MustParsePrefix("fd20:ce::254/128"), classMetadata},  // Google
	{netip.MustParsePrefix("fe80::/10"), classLinkLocal},
	{netip.MustParsePrefix("fec0::/10"), classPrivate},
	{netip.MustParsePrefix("ff00::/8"), classSpecial},
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// classify judges one address; own lists the addresses of this machine's
// interfaces. An address that carries another (IPv4-mapped, NAT64) is judged
// by the one that the packet would reach.
func classify(a netip.Addr, own []netip.Addr) class {
	if !a.IsValid() || a.Zone() != "" {
		return classSpecial
	}
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		if c := classify(netip.AddrFrom4([4]byte(b[12:])), own); c != classPublic {
			return c
		}
	}
	// ISATAP: the interface identifier ::0:5efe:a.b.c.d under any prefix.
	if a.Is6() {
		b := a.As16()
		if b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe && b[8]&^2 == 0 {
			return classSpecial
		}
	}
	best, bits := classPublic, -1
	for _, s := range special {
		if s.prefix.Contains(a) && s.prefix.Bits() > bits {
			best, bits = s.class, s.prefix.Bits()
		}
	}
	if best == classPublic {
		for _, o := range own {
			if o.Unmap() == a {
				return classOwn
			}
		}
	}
	return best
}

// interfaceAddrs lists this machine's own addresses.
func interfaceAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, n := range list {
		if ip, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(ip.IP); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out, nil
}

// opens reports whether the rights open an address of class c that target t
// resolved to. Public addresses need no more than the decision; anything else
// must be named exactly, host and port, never by "*" or a suffix:
//
//   - the very address and port: always;
//   - a private address or one of this machine's: also by the exact name, as
//     names inside an organisation are;
//   - loopback: also by an exact localhost name. Any other name that resolves
//     to loopback, link-local or metadata is a rebinding.
//
// An observed run (learn) may reach loopback, private and own addresses that
// it states itself, so that they can be learnt.
func (p *Proxy) opens(t target, a netip.Addr, c class) bool {
	if c == classPublic || p.named(a.Unmap().String(), t.port) {
		return true
	}
	named := p.named(t.host, t.port)
	if p.cfg.Observe && (t.literal() || t.local()) {
		named = true
	}
	switch c {
	case classPrivate, classOwn:
		return named
	case classLoopback:
		return named && (t.local() || t.literal())
	}
	return false
}

// named reports whether the rights name exactly this host and port.
func (p *Proxy) named(host string, port int) bool {
	for _, e := range p.cfg.Rights.Endpoints {
		if e.Host == host && e.Port == port {
			return true
		}
	}
	return false
}
