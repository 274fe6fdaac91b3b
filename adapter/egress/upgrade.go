package egress

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
)

// wantsWebSocket reports the one upgrade that is passed on. The field names it
// alone: in a list a server may choose another.
func wantsWebSocket(req *http.Request) bool {
	return req.Method == http.MethodGet && req.ContentLength == 0 &&
		len(req.Header["Upgrade"]) == 1 && strings.EqualFold(req.Header.Get("Upgrade"), "websocket")
}

// splice passes on what client and server say after the server itself has
// switched protocols, until either ends or the flow is stopped.
func (s *session) splice(f *flow, resp *http.Response) {
	up, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		s.refuse(failed(http.StatusBadGateway, "http_protocol_error", "%s switched to an unasked protocol", f.to), http.MethodGet)
		return
	}
	defer context.AfterFunc(f.ctx, func() { up.Close() })()
	h := resp.Header.Clone()
	stripHop(h)
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	w := bufio.NewWriter(s.c)
	io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\n")
	h.Write(w)
	io.WriteString(w, "\r\n")
	if w.Flush() != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(s.c, struct{ io.Reader }{up})
		s.c.Close() // a WebSocket ends on both sides at once
	}()
	io.Copy(up, struct{ io.Reader }{s.br})
	up.Close()
	<-done
}
