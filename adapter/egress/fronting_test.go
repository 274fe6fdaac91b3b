package egress

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// hello gives the ClientHello that a TLS client sends for name.
func hello(t testing.TB, name string, change ...func(*tls.Config)) []byte {
	t.Helper()
	a, b := net.Pipe()
	cfg := &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}
	for _, c := range change {
		c(cfg)
	}
	go func() {
		tls.Client(a, cfg).Handshake()
		a.Close()
	}()
	defer b.Close()
	buf := make([]byte, 64<<10)
	n, err := io.ReadAtLeast(b, buf, 5)
	if err != nil {
		t.Fatal(err)
	}
	for size := 5 + int(buf[3])<<8 + int(buf[4]); n < size; {
		m, err := b.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	return buf[:n]
}

// fragment spreads a hello over records of size bytes.
func fragment(hello []byte, size int) []byte {
	var out []byte
	for p := hello[5:]; len(p) > 0; {
		n := min(size, len(p))
		out = append(out, 22, 3, 1, byte(n>>8), byte(n))
		out = append(out, p[:n]...)
		p = p[n:]
	}
	return out
}

// sink is a server that tells what arrives on each connection.
func sink(t *testing.T) (string, chan []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan []byte, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				got <- b
			}()
		}
	}()
	return l.Addr().String(), got
}

// Inside a tunnel to example.com nothing may name another server in clear: not
// one byte of it reaches upstream.
func TestDomainFronting(t *testing.T) {
	addr, got := sink(t)
	f := start(t, anyPort("example.com"), func(c *Config) { c.HeadTimeout = 500 * time.Millisecond })
	f.route("example.com", 443, addr)
	evil, good := hello(t, "evil.example"), hello(t, "example.com")
	ssl2 := append([]byte{}, good...)
	ssl2[1] = 2
	for name, text := range map[string][]byte{
		"another name":          evil,
		"fragmented":            fragment(evil, 7),
		"one byte a record":     fragment(evil, 1),
		"name below":            hello(t, "www.example.com"),
		"odd record version":    ssl2,
		"unfinished":            good[:len(good)-1],
		"empty record":          append([]byte{22, 3, 1, 0, 0}, good...),
		"not a hello":           {22, 3, 1, 0, 4, 2, 0, 0, 0},
		"early second hello":    append(append([]byte{}, good...), evil...),
		"Host in clear":         []byte("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
		"Host after blank line": []byte("\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
		"odd method":            []byte("brew / http/1.1\r\nHost: evil.example\r\n\r\n"),
		"HTTP/2 in clear":       []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
		"request line trickles": []byte("GET / HT"),
		"CONNECT in clear":      []byte("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := f.open("example.com:443")
			c.Write(text)
			reply, _ := io.ReadAll(c)
			if bytes.HasPrefix(reply, []byte("HTTP/1.1 2")) {
				t.Errorf("answered %q", reply)
			}
			sent := <-got
			if bytes.Contains(sent, []byte("evil")) || len(sent) != 0 && name != "early second hello" {
				t.Errorf("upstream got %d bytes: %q", len(sent), sent)
			}
		})
	}
	// The controls: these do pass.
	for name, text := range map[string][]byte{
		"its own name": good,
		"upper case":   hello(t, "EXAMPLE.com"),
		"fragmented":   fragment(good, 7),
		"no name":      hello(t, ""),
		"no TLS":       []byte("SSH-2.0-x\r\n"),
	} {
		t.Run("control "+name, func(t *testing.T) {
			c := f.open("example.com:443")
			c.Write(text)
			c.(*net.TCPConn).CloseWrite()
			io.ReadAll(c)
			if sent := <-got; !bytes.Equal(sent, text) {
				t.Errorf("upstream got %q, want what was sent", sent)
			}
		})
	}
}

// A second hello after a HelloRetryRequest, in clear, is held to the name too.
func TestSecondHelloFronting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	good, evil := hello(t, "example.com"), hello(t, "evil.example")
	got := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.ReadFull(c, make([]byte, len(good)))
		retry := append([]byte{22, 3, 3, 0, 38 + 4, 2, 0, 0, 38, 3, 3}, retryRandom...)
		c.Write(append(retry, 0, 0x13, 1, 0))
		b, _ := io.ReadAll(c)
		got <- b
	}()
	f := start(t, anyPort("example.com"))
	f.route("example.com", 443, l.Addr().String())
	c := f.open("example.com:443")
	c.Write(good)
	if _, err := io.ReadFull(c, make([]byte, 47)); err != nil {
		t.Fatal(err)
	}
	changeCipher := []byte{20, 3, 3, 0, 1, 1}
	c.Write(append(changeCipher, evil...))
	io.ReadAll(c)
	if b := <-got; bytes.Contains(b, []byte("evil")) {
		t.Errorf("upstream got the second hello: %q", b)
	}
}
