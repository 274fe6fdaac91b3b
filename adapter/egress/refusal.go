package egress

import (
	"fmt"
	"net/http"
	"strings"
)

// refusal is an answer of the proxy itself: the status, RFC 9209's error type
// for the Proxy-Status field, and the one line for whoever reads it.
type refusal struct {
	status int
	kind   string
	line   string
}

func (r *refusal) Error() string { return r.line }

func bad(format string, a ...any) *refusal {
	return &refusal{http.StatusBadRequest, "http_request_error", "exeq: request refused: " + fmt.Sprintf(format, a...)}
}

func denied(kind, line string) *refusal {
	return &refusal{http.StatusForbidden, kind, "exeq: " + strings.TrimPrefix(line, "exeq: ")}
}

func failed(status int, kind, format string, a ...any) *refusal {
	return &refusal{status, kind, "exeq: " + fmt.Sprintf(format, a...)}
}

// bytes is the whole response; the connection closes after it.
func (r *refusal) bytes(method string) []byte {
	body := strings.ReplaceAll(strings.ReplaceAll(r.line, "\r", " "), "\n", " ") + "\n"
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.status, http.StatusText(r.status))
	fmt.Fprintf(&b, "Proxy-Status: exeq; error=%s\r\n", r.kind)
	if r.status == http.StatusProxyAuthRequired {
		b.WriteString("Proxy-Authenticate: Basic realm=\"exeq\"\r\n")
	}
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(body))
	if method != http.MethodHead {
		b.WriteString(body)
	}
	return []byte(b.String())
}
