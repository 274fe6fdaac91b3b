package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/exeq/exeq"
)

// head is what the strict reader found in a request's head, before net/http
// interprets it: the fields in which two parsers could disagree.
type head struct {
	method, uri string
	minor       int // of HTTP/1.minor
	host        string
	hasHost     bool
	auth        string // Proxy-Authorization
}

var (
	errTooLarge = fmt.Errorf("head is over %d bytes", exeq.MaxProxyHeadBytes)
	errHTTP2    = errors.New("HTTP/2 is not spoken here (prior knowledge)")
)

// peekHead waits until br holds a whole head and returns it without consuming
// it. br's buffer holds MaxProxyHeadBytes.
func peekHead(br *bufio.Reader) ([]byte, error) {
	for from := 0; ; {
		b, _ := br.Peek(br.Buffered())
		if bytes.HasPrefix(b, []byte("PRI * HTTP/2")) {
			return nil, errHTTP2
		}
		if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
			return b[:from+i+4], nil
		}
		// A head that only a lenient parser would see the end of.
		if bytes.Contains(b[from:], []byte("\n\n")) {
			return nil, errors.New("head has a bare line feed")
		}
		from = max(0, len(b)-3)
		if len(b) >= exeq.MaxProxyHeadBytes {
			return nil, errTooLarge
		}
		if _, err := br.Peek(len(b) + 1); err != nil {
			return nil, err
		}
	}
}

// checkHead refuses every spelling on which parsers differ (RFC 9112 sections
// 2.2, 5 and 6, which let a server be lenient): bare CR or LF, folded lines,
// space before the colon, control characters, repeated or conflicting framing
// fields, any transfer coding but chunked, and an upgrade to HTTP/2.
func checkHead(b []byte) (head, error) {
	lines := strings.Split(strings.TrimSuffix(string(b), "\r\n\r\n"), "\r\n")
	var h head
	parts := strings.Split(lines[0], " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" {
		return h, errors.New("request line is not METHOD TARGET VERSION")
	}
	h.method, h.uri = parts[0], parts[1]
	for i := range len(h.uri) {
		if h.uri[i] <= ' ' || h.uri[i] >= 0x7f {
			return h, errors.New("request target holds a character that must be escaped")
		}
	}
	switch parts[2] {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		return h, errors.New("version is neither HTTP/1.1 nor HTTP/1.0")
	}
	if len(lines)-1 > exeq.MaxProxyHeaders {
		return h, fmt.Errorf("more than %d header fields", exeq.MaxProxyHeaders)
	}
	seen := map[string]string{}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return h, errors.New("header field has no clean name (folded line, or space before the colon)")
		}
		value = strings.Trim(value, " \t")
		for i := range len(value) {
			if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
				return h, fmt.Errorf("header field %s holds a control character", clip(name))
			}
		}
		// Some servers read an underscore as a hyphen.
		key := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch key {
		case "host", "content-length", "transfer-encoding", "proxy-authorization":
			if strings.Contains(name, "_") {
				return h, fmt.Errorf("header field %s imitates another", clip(name))
			}
			if _, twice := seen[key]; twice {
				return h, fmt.Errorf("header field %s is repeated", name)
			}
			seen[key] = value
		case "upgrade":
			for v := range strings.SplitSeq(value, ",") {
				if proto, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(v)), "/"); proto == "h2c" || proto == "h2" || proto == "http" {
					return h, errors.New("upgrade to HTTP/2 is refused")
				}
			}
		case "http2-settings":
			return h, errors.New("upgrade to HTTP/2 is refused")
		}
	}
	h.host, h.hasHost = seen["host"], hasKey(seen, "host")
	h.auth = seen["proxy-authorization"]
	if !h.hasHost && h.minor == 1 {
		return h, errors.New("HTTP/1.1 without a Host field")
	}
	return h, checkFraming(seen, h.minor)
}

func checkFraming(seen map[string]string, minor int) error {
	te, chunked := seen["transfer-encoding"]
	cl, sized := seen["content-length"]
	switch {
	case chunked && sized:
		return errors.New("both Content-Length and Transfer-Encoding")
	case chunked && (minor == 0 || !strings.EqualFold(te, "chunked")):
		return errors.New("a transfer coding other than chunked, or under HTTP/1.0")
	case sized && (cl == "" || len(cl) > 18 || strings.Trim(cl, "0123456789") != ""):
		return errors.New("Content-Length is not a plain number")
	}
	return nil
}

func hasKey(m map[string]string, k string) bool { _, ok := m[k]; return ok }

// isToken is RFC 9110's token.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
