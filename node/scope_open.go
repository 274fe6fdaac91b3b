//go:build linux

package node

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/node/wire"
)

const openingsFile = "openings"

// breakGlass opens a scope to everything for a time, to one whom its statement
// names. It is durable before the scope opens; the kernel closes it by itself.
func (s *scopes) breakGlass(p *peer, r *wire.Open) (*exeq.Opening, error) {
	reason, err := exeq.DecodeBytes(r.Reason)
	if err != nil || len(reason) > wire.MaxReason {
		return nil, fmt.Errorf("%w: a reason of at most %d bytes", wire.ErrProtocol, wire.MaxReason)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.held[r.Scope]
	switch {
	case x == nil || !x.active():
		return nil, wire.ErrNoScope
	case !x.body.BreakGlass.Opens(p.uid):
		return nil, fmt.Errorf("%w: the statement does not name user %d", wire.ErrBreakGlass, p.uid)
	}
	if err := s.outside(p, x); err != nil {
		return nil, err
	}
	switch {
	case r.Millis != 0 && len(bytes.TrimSpace([]byte(reason))) == 0:
		return nil, fmt.Errorf("%w: without a reason", wire.ErrBreakGlass)
	case r.Millis < 0 || r.Millis > x.body.BreakGlass.MaxMillis:
		return nil, fmt.Errorf("%w: for at most %s", wire.ErrBreakGlass, time.Duration(x.body.BreakGlass.MaxMillis)*time.Millisecond)
	case x.body.Mode != exeq.ScopeEnforce:
		return nil, fmt.Errorf("%w: it is only rehearsed", wire.ErrBreakGlass)
	}
	o := &exeq.Opening{Version: 1, ID: exeq.NewID(), Scope: r.Scope, Serial: x.body.Serial, UID: p.uid, Reason: r.Reason,
		Millis: r.Millis, Time: exeq.At(s.n.burnt.clock()), BootID: s.n.id.audience.BootID, Node: s.n.id.audience.Node}
	msg, err := o.Signable()
	if err != nil {
		return nil, err
	}
	o.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(s.n.id.key, msg))
	if err := s.writeOpening(o); err != nil {
		return nil, fmt.Errorf("%w: it could not be recorded: %w", wire.ErrBreakGlass, err)
	}
	s.n.log.Warn("scope: break-glass", "scope", r.Scope, "uid", p.uid, "ms", r.Millis, "reason", r.Reason, "opening", o.ID)
	x.until = 0
	if r.Millis > 0 {
		x.until = boottime() + time.Duration(r.Millis)*time.Millisecond
	}
	if x.at.Kind == 0 {
		return o, nil
	}
	if err := s.kernel.Set(x.at, x.rule()); err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrGate, err)
	}
	return o, nil
}

// outside refuses whoever is held: who is in the scope, by a user, a cgroup or
// because he descends from it, would open it from within, and who is in another
// that is enforced is none of the people that a statement means. What cannot be
// told counts as held.
func (s *scopes) outside(p *peer, x *scope) error {
	if s.kernel == nil { // nothing is in force
		return nil
	}
	in, err := s.kernel.Where(p.pid)
	if err == nil && !alive(p.pidfd) {
		err = errors.New("whoever asked is gone")
	}
	if err != nil {
		return fmt.Errorf("%w: whether you are held cannot be told: %w", wire.ErrBreakGlass, err)
	}
	for _, at := range in {
		if at == x.at {
			return fmt.Errorf("%w: you are in it, by your user, your cgroup or what you descend from: ask from a session that is not", wire.ErrBreakGlass)
		}
		held := s.lost[at].Enforce
		for _, y := range s.held {
			held = held || y.at == at && y.active() && y.body.Mode == exeq.ScopeEnforce
		}
		if held {
			return fmt.Errorf("%w: you are held by another scope, by your user, your cgroup or what you descend from: ask from a session that is not", wire.ErrBreakGlass)
		}
	}
	return nil
}

// writeOpening appends a line, durably.
func (s *scopes) writeOpening(o *exeq.Opening) error {
	b, err := canon.Marshal(o)
	if err != nil {
		return err
	}
	name := filepath.Join(s.dir, openingsFile)
	_, err = os.Lstat(name)
	first := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size()+int64(len(b)) >= maxOpeningsFile {
		return fmt.Errorf("%s is full", name)
	}
	// A line that a full disk cut short stays apart from the next.
	if _, err = f.Write(append(b, '\n')); err != nil {
		f.Write([]byte("\n"))
		return err
	}
	if err := f.Sync(); err != nil || !first {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// openings tells what was opened, of the scopes that concern whoever asks.
func (s *scopes) openings(p *peer, after string) ([]exeq.Opening, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := readOwned(filepath.Join(s.dir, openingsFile), maxOpeningsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []exeq.Opening
	size := 0
	if after != "" {
		if _, rest, found := bytes.Cut(b, []byte(`"id":"`+after+`"`)); found {
			_, b, _ = bytes.Cut(rest, []byte("\n"))
		}
	}
	for line := range bytes.Lines(b) {
		var o exeq.Opening
		if json.Unmarshal(line, &o) != nil { // cut short
			continue
		}
		if x := s.held[o.Scope]; p.uid != 0 && (x == nil || !s.sees(p, x)) {
			continue
		}
		if size += len(line); len(out) >= wire.MaxOpenings || size > wire.MaxAnswer-32<<10 {
			break
		}
		out = append(out, o)
	}
	return out, nil
}
