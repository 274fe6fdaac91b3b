package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// target is a destination in its one spelling.
type target struct {
	host string // lower-case ASCII name without trailing dot, or canonical address
	port int    // 1–65535
}

// String is the id of the Endpoint entity: host:port, IPv6 in brackets.
func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(t.port)) }

// hostField is the Host field of an HTTP request to t.
func (t target) hostField() string {
	if t.port == 80 {
		return strings.TrimSuffix(t.String(), ":80")
	}
	return t.String()
}

// literal reports whether the host is an address.
func (t target) literal() bool { _, err := netip.ParseAddr(t.host); return err == nil }

// local reports whether the host is a name that RFC 6761 reserves for loopback.
func (t target) local() bool {
	return t.host == "localhost" || strings.HasSuffix(t.host, ".localhost")
}

// parseAuthority reads host[:port]; a missing port is defaultPort, and an
// error where that is 0. User information, zones, escapes and empty ports are
// refused: they are where two parsers come to read two hosts.
func parseAuthority(s string, defaultPort int) (target, error) {
	host, port, bracketed := s, "", false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return target{}, errors.New("unclosed bracket")
		}
		host, bracketed = s[1:end], true
		switch rest := s[end+1:]; {
		case rest == "":
		case rest[0] == ':' && len(rest) > 1:
			port = rest[1:]
		default:
			return target{}, errors.New("text after the bracket is no port")
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		if port == "" {
			return target{}, errors.New("empty port")
		}
	}
	t := target{port: defaultPort}
	if port != "" {
		n, err := parsePort(port)
		if err != nil {
			return target{}, err
		}
		t.port = n
	}
	if t.port == 0 {
		return target{}, errors.New("no port")
	}
	var err error
	t.host, err = canonicalHost(host, bracketed)
	return t, err
}

// parsePort takes 1–65535 in decimal without sign or leading zero.
func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("port %q is not a number of 1–65535", s)
	}
	return int(n), nil
}

// canonicalHost brings a host to its one spelling: IPv6 (bracketed) compressed
// and lower case, an IPv4-mapped address as the IPv4 address that the kernel
// would dial, names in lower-case ASCII without the trailing dot. What some
// resolver would read as an address in another spelling (127.1, 0x7f000001,
// 2130706433, 0177.0.0.1) is refused, as is any name that is not ASCII: its
// xn-- form is the only one.
func canonicalHost(h string, bracketed bool) (string, error) {
	if bracketed {
		a, err := netip.ParseAddr(h)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", fmt.Errorf("%q is not an IPv6 address", clip(h))
		}
		return a.Unmap().String(), nil
	}
	name := strings.TrimSuffix(h, ".")
	if name == "" || len(name) > 253 {
		return "", errors.New("a host name has 1–253 characters")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 {
			return "", fmt.Errorf("host %q has an empty or overlong label", clip(h))
		}
		for i := range len(l) {
			if !nameByte(l[i]) {
				return "", fmt.Errorf("host %q is not an ASCII name (write an international name in its xn-- form)", clip(h))
			}
		}
		if l[0] == '-' || l[len(l)-1] == '-' {
			return "", fmt.Errorf("host %q has a label that begins or ends with a hyphen", clip(h))
		}
	}
	name = strings.ToLower(name)
	if numeric(strings.ToLower(labels[len(labels)-1])) {
		a, err := netip.ParseAddr(name)
		if err != nil || h != name {
			return "", fmt.Errorf("%q is not an IPv4 address in its one spelling (four decimal numbers)", clip(h))
		}
		return a.String(), nil
	}
	return name, nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// numeric reports whether a last label makes resolvers try the name as an
// address (WHATWG URL, "ends in a number").
func numeric(label string) bool {
	digits := "0123456789"
	if strings.HasPrefix(label, "0x") {
		label, digits = label[2:], "0123456789abcdef"
	}
	return strings.Trim(label, digits) == ""
}

// clip bounds what an error repeats of the other side's text.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
