package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Whatever is accepted has one spelling, that spelling is accepted as itself,
// and nothing that an address parser would read is left a name.
func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"example.com:443", "EXAMPLE.com.:443", "[::1]:80", "[::ffff:127.0.0.1]:1", "127.0.0.1:80",
		"0x7f.1:80", "2130706433:80", "a@b:80", "[fe80::1%eth0]:80", "xn--bcher-kva.example:80", "1.2.3.4.:80", "a..b:80", "0x:1", "a.0x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAuthority(s, 0)
		if err != nil {
			return
		}
		again, err := parseAuthority(a.String(), 0)
		if err != nil || again != a {
			t.Fatalf("%q → %q → %q, %v", s, a, again, err)
		}
		if a.host != strings.ToLower(a.host) || strings.HasSuffix(a.host, ".") || a.port < 1 || a.port > 65535 {
			t.Fatalf("%q → %q is not canonical", s, a)
		}
		ip, err := netip.ParseAddr(a.host)
		if err == nil && (ip.String() != a.host || ip.Zone() != "" || ip.Is4In6()) {
			t.Fatalf("%q → address %q is not canonical", s, a.host)
		}
		last := a.host[strings.LastIndexByte(a.host, '.')+1:]
		if err != nil && (strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "") {
			t.Fatalf("%q → name %q that some resolver reads as an address", s, a.host)
		}
	})
}

// A head that checkHead accepts is read by net/http to the same method and
// target, with framing that leaves no choice.
func FuzzHead(f *testing.F) {
	f.Add([]byte("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"))
	f.Add([]byte("POST http://e/ HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("POST http://e/ HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("CONNECT e:1 HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := peekHead(bufio.NewReaderSize(bytes.NewReader(b), 32<<10))
		if err != nil {
			return
		}
		h, err := checkHead(raw)
		if err != nil {
			return
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if req.Method != h.method || req.RequestURI != h.uri {
			t.Fatalf("net/http reads %s %s, we read %s %s", req.Method, req.RequestURI, h.method, h.uri)
		}
		if n := len(req.TransferEncoding); n > 1 || n == 1 && (req.TransferEncoding[0] != "chunked" || req.ContentLength != -1) {
			t.Fatalf("framing: %v %d", req.TransferEncoding, req.ContentLength)
		}
	})
}

// Whatever crypto/tls takes for a ClientHello is read to the same server name
// or refused; what it cannot read may not pass as a hello with a name.
func FuzzHello(f *testing.F) {
	f.Add(hello(f, "example.com"))
	f.Add(hello(f, ""))
	f.Add(fragment(hello(f, "example.com"), 9))
	f.Add(hello(f, "a.example", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, n, err := parseHello(b)
		if err != nil {
			return
		}
		if n > len(b) {
			t.Fatalf("%d bytes of %d", n, len(b))
		}
		var oracle *tls.ClientHelloInfo
		stop := errors.New("seen")
		tls.Server(&replay{r: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			oracle = i
			return nil, stop
		}}).HandshakeContext(context.Background())
		if oracle != nil && !strings.EqualFold(oracle.ServerName, name) {
			t.Fatalf("crypto/tls reads %q, we read %q", oracle.ServerName, name)
		}
	})
}

// replay is a connection that delivers bytes and swallows answers.
type replay struct{ r io.Reader }

func (c *replay) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c *replay) Write(b []byte) (int, error)      { return len(b), nil }
func (c *replay) Close() error                     { return nil }
func (c *replay) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *replay) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *replay) SetDeadline(time.Time) error      { return nil }
func (c *replay) SetReadDeadline(time.Time) error  { return nil }
func (c *replay) SetWriteDeadline(time.Time) error { return nil }
