package egress

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// body is a request's body on its way to the transport, which may go on
// reading after RoundTrip has returned; nobody else may touch the client's
// reader until abandon has returned.
type body struct {
	s    *session
	r    io.Reader // nil: none
	mu   sync.Mutex
	gone bool
	eof  bool
	idle chan struct{} // closed at the end of the body: the reader is free
	once sync.Once
}

func newBody(s *session, req *http.Request) *body {
	b := &body{s: s, idle: make(chan struct{})}
	if req.ContentLength != 0 {
		b.r = req.Body
	} else {
		b.end()
	}
	return b
}

func (b *body) end() {
	b.eof = true
	b.once.Do(func() { close(b.idle) })
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.eof {
		return 0, io.EOF
	}
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		b.end()
	}
	return n, err
}

// Close is the transport's; what is left of the body is abandon's business.
func (b *body) Close() error { return nil }

// abandon ends the transport's use of the reader and reports whether the body
// was read to its end, so that the next request can follow it.
func (b *body) abandon() bool {
	select {
	case <-b.idle:
	default: // a read may be waiting for the client
		b.s.c.SetReadDeadline(time.Unix(1, 0))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	return b.eof
}

// watch calls gone when the client closes while the proxy has nothing to read
// from it. The function that it returns ends the watch and frees the reader.
func (b *body) watch(gone func()) func() {
	quit := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-quit:
			return
		case <-b.idle:
		}
		// Whatever arrives early stays in the buffer for the next request.
		if _, err := b.s.br.Peek(1); err != nil {
			select {
			case <-quit:
			default:
				gone()
			}
		}
	}()
	return func() {
		close(quit)
		b.s.c.SetReadDeadline(time.Unix(1, 0))
		<-done
		b.s.c.SetReadDeadline(time.Time{})
	}
}
