//go:build linux

package node

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/permit"
)

// keptScope is a statement as it is kept: with the keys that it was believed by,
// so that a scope does not end because somebody is trusted no more.
type keptScope struct {
	Version  int               `json:"v"` // 1
	Issuer   []byte            `json:"issuer"`
	Promise  string            `json:"promise"`
	Envelope []byte            `json:"envelope"`
	Record   *exeq.ScopeRecord `json:"record"`
}

const statementSuffix = ".scope"

// file names a scope's files in the state directory.
func (s *scopes) file(of exeq.Scope, suffix string) string {
	sum := sha256.Sum256([]byte(of.Subject))
	return filepath.Join(s.dir, of.Kind+"-"+hex.EncodeToString(sum[:8])+suffix)
}

func (s *scopes) write(x *scope) error {
	b, err := json.Marshal(x.kept)
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := writeDurable(s.file(x.body.Scope, statementSuffix), b); err != nil {
		return fmt.Errorf("scope: keep the statement: %w", err)
	}
	return nil
}

// writeDurable replaces a file, or leaves it as it is.
func writeDurable(name string, b []byte) error {
	dir := filepath.Dir(name)
	tmp, err := os.CreateTemp(dir, "new-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// read verifies a statement that was kept.
func (s *scopes) read(path string) (*scope, error) {
	b, err := readOwned(path, maxScopeFile)
	if err != nil {
		return nil, err
	}
	var k keptScope
	if err := canon.Decode(b, &k, canon.Limits{Bytes: maxScopeFile, Depth: exeq.MaxDepth}); err != nil {
		return nil, err
	}
	promise, err := note.NewVerifier(k.Promise)
	if err != nil || k.Version != 1 || len(k.Issuer) != ed25519.PublicKeySize {
		return nil, errors.New("not a statement as this node keeps it")
	}
	body, err := permit.VerifyScope(k.Issuer, promise, s.n.id.audience.Node, k.Envelope, k.Record)
	if err != nil {
		return nil, err
	}
	if s.file(body.Scope, statementSuffix) != path {
		return nil, errors.New("the statement of another scope")
	}
	return &scope{kept: k, body: body}, nil
}

func readOwned(path string, limit int64) ([]byte, error) {
	f, err := openOwned(path, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// recover puts in force what is kept, where the kernel does not hold it already.
// What the kernel holds goes on, whatever became of the statements: a file that
// is gone, damaged or put back from before lifts nothing. Where the kernel holds
// nothing (after a boot) and a statement cannot be read, nothing is served.
func (s *scopes) recover() error {
	_, top, err := inHierarchy(s.n.c.Cgroup)
	if err != nil {
		return err
	}
	s.top = top
	pinned := bpf.ScopesPinned(s.pins())
	files, err := filepath.Glob(filepath.Join(s.dir, "*"+statementSuffix))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	active := false
	for _, path := range files {
		x, err := s.read(path)
		if err != nil {
			err = fmt.Errorf("scope: %s: %w", path, err)
			if !pinned {
				return fmt.Errorf("%w; put it back, or take it away and declare the scope again", err)
			}
			s.n.note("%v", err)
			continue
		}
		s.held[x.body.Scope] = x
		active = active || x.active()
	}
	if !pinned && !active {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	rules, err := s.kernel.Rules()
	if err != nil {
		return err
	}
	s.lost = rules
	for _, x := range s.held {
		if err := s.take(x); err != nil {
			return err
		}
	}
	for at, r := range s.lost {
		h := lostScope(at, r)
		s.n.note("scope %s (serial %d): %s", h.Scope, h.Serial, h.Faults[0])
	}
	return nil
}

// take puts a kept scope in force again, unless the kernel holds a newer
// statement of it.
func (s *scopes) take(x *scope) error {
	at := s.place(x.body.Scope)
	r, there := s.lost[at]
	if there && at.Kind != 0 && r.Serial > x.body.Serial {
		s.n.note("scope %s: the statement that is kept (serial %d) is older than what the kernel holds (%d), which stays", x.body.Scope, x.body.Serial, r.Serial)
		delete(s.held, x.body.Scope)
		return nil
	}
	if there && r.Serial == x.body.Serial {
		x.until = r.OpenUntil // an opening goes on as it was recorded, and ends
	}
	var alive *life
	if x.active() {
		var err error
		if alive, err = s.live(x.body); err != nil {
			return err
		}
		for _, f := range alive.faults {
			s.n.note("scope %s does not live by %s", x.body.Scope, f)
		}
		x.report = s.readReport(x, there)
	}
	return s.apply(x, alive)
}

// keep looks after what is in force: programs that are other files by now,
// cgroups that come and go, hooks, and the reports.
func (s *scopes) keep() {
	t := time.NewTicker(scopeTime)
	defer t.Stop()
	for {
		select {
		case <-s.n.ended:
			s.refresh()
			return
		case <-t.C:
		}
		s.refresh()
	}
}

func (s *scopes) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kernel == nil {
		return
	}
	if err := s.kernel.Check(); err != nil {
		s.n.log.Error("scopes", "err", err)
		s.hooks = s.kernel.Restore()
		if s.hooks != nil {
			s.n.log.Error("scopes", "err", s.hooks)
		}
	}
	for _, x := range s.held {
		if !x.active() {
			continue
		}
		x.report.account(x, s.hooks == nil && x.at.Kind != 0)
		alive, err := s.live(x.body)
		if err == nil && (s.place(x.body.Scope) != x.at || !alive.same(x.alive)) {
			err = s.apply(x, alive)
			s.n.log.Warn("scope lives by other files, or elsewhere", "scope", x.body.Scope, "faults", x.faults)
		}
		if err != nil {
			s.n.log.Error("scope", "scope", x.body.Scope, "err", err)
		}
		s.writeReport(x)
	}
}

func (s *scopes) close() error {
	if s.kernel == nil {
		return nil
	}
	return s.kernel.Close()
}

// monotonic does not go on while the machine sleeps: nothing is rehearsed then.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}
