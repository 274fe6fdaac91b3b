package egress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// TLS record and handshake types (RFC 8446).
const (
	recordHandshake = 22
	clientHello     = 1
	serverHello     = 2
	maxPlaintext    = 1 << 14
)

// errMore says that the bytes so far are the beginning of a ClientHello.
var errMore = errors.New("incomplete ClientHello")

// parseHello reads the ClientHello that b begins with, in as many records as
// it takes. It gives the server name, empty where none is stated, and the
// number of bytes that the hello's records span. It is strict: what it cannot
// read is an error, never "no name".
func parseHello(b []byte) (name string, n int, err error) {
	var msg []byte
	for {
		if len(b)-n < 5 {
			return "", 0, errMore
		}
		h := b[n:]
		size := int(binary.BigEndian.Uint16(h[3:]))
		if h[0] != recordHandshake || h[1] != 3 || size == 0 || size > maxPlaintext {
			return "", 0, errors.New("not a plain TLS handshake record")
		}
		if len(h) < 5+size {
			return "", 0, errMore
		}
		msg = append(msg, h[5:5+size]...)
		n += 5 + size
		if msg[0] != clientHello {
			return "", 0, errors.New("not a ClientHello")
		}
		if len(msg) < 4 {
			continue
		}
		want := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
		if len(msg) > want {
			return "", 0, errors.New("bytes after the ClientHello in its record")
		}
		if len(msg) == want {
			name, err = helloName(msg[4:])
			return name, n, err
		}
	}
}

// helloName walks a ClientHello's body to its server_name.
func helloName(body []byte) (string, error) {
	r := reader{b: body}
	r.take(2 + 32)               // version, random
	r.vector(1)                  // session id
	r.vector(2)                  // cipher suites
	r.vector(1)                  // compression methods
	if !r.bad && len(r.b) == 0 { // TLS 1.2 without extensions
		return "", nil
	}
	ext := reader{b: r.vector(2)}
	if r.bad || len(r.b) != 0 {
		return "", errors.New("malformed ClientHello")
	}
	name := ""
	seen := map[uint16]bool{}
	for len(ext.b) > 0 {
		kind := ext.uint16()
		data := ext.vector(2)
		if ext.bad || seen[kind] {
			return "", errors.New("malformed or repeated extension in the ClientHello")
		}
		seen[kind] = true
		if kind != 0 {
			continue
		}
		outer := reader{b: data}
		list := reader{b: outer.vector(2)}
		typ := list.take(1)
		host := list.vector(2)
		if outer.bad || list.bad || len(outer.b) != 0 || len(list.b) != 0 || typ[0] != 0 || len(host) == 0 {
			return "", errors.New("malformed server_name in the ClientHello")
		}
		if bytes.HasSuffix(host, []byte(".")) {
			return "", errors.New("server_name ends in a dot")
		}
		var err error
		if name, err = canonicalHost(string(host), false); err != nil {
			return "", fmt.Errorf("server_name: %w", err)
		}
	}
	return name, nil
}

// retryRandom marks a ServerHello as HelloRetryRequest: SHA-256 of that word.
var retryRandom = []byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

// retryBytes is how much of a server's first record tells a retry request.
const retryBytes = 5 + 4 + 2 + 32

// asksRetry reports whether a server's first bytes are a HelloRetryRequest,
// after which a second ClientHello follows in clear.
func asksRetry(b []byte) bool {
	return len(b) >= retryBytes && b[0] == recordHandshake && b[5] == serverHello && bytes.Equal(b[11:retryBytes], retryRandom)
}

// reader consumes big-endian fields; after the first shortage it is bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, min(n, 64))
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }

// vector takes a length of size bytes (1 or 2) and as many bytes as it says.
func (r *reader) vector(size int) []byte {
	n := 0
	for _, b := range r.take(size) {
		n = n<<8 | int(b)
	}
	if r.bad || len(r.b) < n {
		r.bad = true
		return nil
	}
	return r.take(n)
}
