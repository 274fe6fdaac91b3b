package nested

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

// pipe gives a wire and the other end of it.
func pipe(t testing.TB) (*wire, net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return newWire(a), b
}

// received sends raw bytes and gives what the wire makes of them.
func received(t testing.TB, raw []byte, v any, limit int) error {
	t.Helper()
	w, far := pipe(t)
	go func() { far.Write(raw); far.Close() }()
	return w.receive(v, limit)
}

// TestReceiveIsStrict: what comes from inside is read in one way or not at all.
func TestReceiveIsStrict(t *testing.T) {
	const limit = 1 << 10
	for name, c := range map[string]struct{ line, want string }{
		"unknown member":   {`{"v":1,"program":"/bin/true","argv":[],"dir":"/","within":"x","extra":1}`, "extra"},
		"member twice":     {`{"v":1,"v":1,"program":"/bin/true","argv":[],"dir":"/","within":"x"}`, "v"},
		"not JSON":         {`run /bin/true`, ""},
		"nothing":          {``, ""},
		"two values":       {`{"v":1} {"v":1}`, ""},
		"deep":             {strings.Repeat("[", limit/2), ""},
		"over the limit":   {`{"intent":"` + strings.Repeat("x", 2*limit) + `"}`, "over the limit"},
		"another type":     {`{"v":"1"}`, "v"},
		"invalid in UTF-8": {"{\"intent\":\"\xff\"}", ""},
	} {
		var a ask
		err := received(t, []byte(c.line+"\n"), &a, limit)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

// seen is a Sight of processes that all hold the connection.
type seen struct{ Processes []Process }

func (s *seen) Living() ([]Process, error) { return s.Processes, nil }
func (s *seen) Holders(int) ([]Process, error) {
	if len(s.Processes) == 0 {
		return nil, errors.New("nobody")
	}
	return s.Processes, nil
}

// fromInside gives a pipe the address of a TCP connection.
type fromInside struct{ net.Conn }

func (fromInside) RemoteAddr() net.Addr { return &net.TCPAddr{Port: 1} }

// TestServeRefuses: a client that asks for nonsense is told so and starts
// nothing; one that says nothing is not waited for.
func TestServeRefuses(t *testing.T) {
	started := false
	p := &Parent{
		ID: "parent", Request: &exeq.Request{}, Rights: &exeq.Rights{},
		Digest: func(string) (exeq.Digest, error) { return exeq.Digest{}, nil },
		Governor: func(exeq.Enforcer) (*exeq.Governor, error) {
			started = true
			return nil, errors.New("no run was to be begun")
		},
		Status: func(*exeq.Outcome, error) int { return 125 },
	}
	for name, c := range map[string]struct{ line, want string }{
		"garbage":             {"GET / HTTP/1.1", "nested run"},
		"another version":     {`{"v":2,"program":"/bin/true","argv":["true"],"dir":"/","within":"parent"}`, "version 2"},
		"relative program":    {`{"v":1,"program":"true","argv":["true"],"dir":"/","within":"parent"}`, "program"},
		"a path that climbs":  {`{"v":1,"program":"/bin/../true","argv":["true"],"dir":"/","within":"parent"}`, "program"},
		"relative directory":  {`{"v":1,"program":"/bin/true","argv":["true"],"dir":".","within":"parent"}`, "working directory"},
		"somebody else's run": {`{"v":1,"program":"/bin/true","argv":["true"],"dir":"/","within":"other"}`, `stand in execution "other"`},
		"nobody who is seen":  {`{"v":1,"program":"/bin/true","argv":["true"],"dir":"/","within":"unseen"}`, "cannot be seen"},
	} {
		near, far := net.Pipe()
		p.Sight = &seen{Processes: []Process{{PID: 2, Parent: 1, Began: 2}}}
		if strings.Contains(c.line, "unseen") {
			p.Sight = &seen{}
		}
		go p.Serve(context.Background(), fromInside{near})
		far.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := far.Write([]byte(c.line + "\n")); err != nil {
			t.Fatal(err)
		}
		var m message
		if err := newWire(far).receive(&m, exeq.MaxLeafBytes); err != nil || m.Result == nil {
			t.Errorf("%s: no result (%v)", name, err)
		} else if m.Result.Status != 125 || m.Result.State != exeq.Failed || !strings.Contains(m.Result.Error, c.want) {
			t.Errorf("%s: %+v, want an error with %q", name, m.Result, c.want)
		}
		far.Close()
	}
	if started {
		t.Error("a run was begun")
	}
	near, far := net.Pipe()
	defer far.Close()
	done := make(chan struct{})
	go func() { p.Serve(context.Background(), near); close(done) }()
	go func() {
		b := make([]byte, 1<<10)
		for {
			if _, err := far.Read(b); err != nil {
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(3 * exeq.DefaultLease):
		t.Error("a client that says nothing is waited for")
	}
}

// FuzzReceive: whatever comes from inside is refused, or means one thing.
func FuzzReceive(f *testing.F) {
	for _, v := range []any{
		ask{Version: 1, Program: "/bin/true", Argv: []string{"true"}, Dir: "/", Within: "x", Intent: "y"},
		message{Pong: "00"}, message{Running: true}, message{Exit: &exeq.Exit{Code: 3}},
		message{Start: &start{ID: "x", Rights: &exeq.Rights{Version: 1}}}, message{Result: &Outcome{Error: "no"}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[:i]
		}
		line := append(bytes.Clone(b), '\n')
		_ = received(t, line, new(message), exeq.MaxLeafBytes)
		var a, again ask
		if received(t, line, &a, exeq.MaxRequestBytes) != nil || a.Argv == nil {
			return // what lacks a list is refused later, by what it lacks
		}
		spelt, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := received(t, append(spelt, '\n'), &again, exeq.MaxRequestBytes); err != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("%q reads as %+v and that as %+v (%v)", b, a, again, err)
		}
	})
}
