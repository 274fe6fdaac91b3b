//go:build linux

package node

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/node/wire"
)

// report is what was seen in a scope since its statement, or an earlier one
// that it only adds to.
type report struct {
	kept     keptReport
	attempts map[attemptKey]*exeq.ScopeAttempt
	dirty    bool
}

type attemptKey struct {
	verdict, why string
	uid          int
	file         bpf.File
	name         string
}

// keptReport is a report as it is kept.
type keptReport struct {
	Version   int           `json:"v"` // 1
	Serial    uint64        `json:"serial"`
	Since     exeq.Time     `json:"since"`
	Rehearsed time.Duration `json:"rehearsed"`
	// Seen is CLOCK_MONOTONIC up to which Rehearsed counts, in the boot.
	Seen     time.Duration `json:"seen"`
	Boot     string        `json:"boot"`
	Attempts []keptAttempt `json:"attempts"`
	More     int           `json:"more"`
}

type keptAttempt struct {
	Attempt exeq.ScopeAttempt `json:"attempt"`
	File    bpf.File          `json:"file"`
}

const reportSuffix = ".report"

func newReport(serial uint64) *report {
	return &report{kept: keptReport{Version: 1, Serial: serial, Since: exeq.At(time.Now()), Seen: monotonic()}, attempts: map[attemptKey]*exeq.ScopeAttempt{}, dirty: true}
}

// nextReport goes on with a rehearsal's report under a statement that only adds
// to what the scope lives by: what was seen stays true.
func nextReport(was, fresh *scope) *report {
	if !fresh.active() {
		return nil
	}
	if was == nil || was.report == nil || was.body.Mode != fresh.body.Mode || !fresh.body.Covers(was.body) {
		return newReport(fresh.body.Serial)
	}
	r := was.report
	r.kept.Serial, r.dirty = fresh.body.Serial, true
	return r
}

// account counts the time in which the kernel rehearsed.
func (r *report) account(x *scope, holds bool) {
	now := monotonic()
	if holds && x.body.Mode == exeq.ScopeRehearse {
		r.kept.Rehearsed += now - r.kept.Seen
		r.dirty = true
	}
	r.kept.Seen = now
}

// readReport goes on with the report that is kept. While no node ran the kernel
// rehearsed on, if it held the scope all the time.
func (s *scopes) readReport(x *scope, there bool) *report {
	b, err := readOwned(s.file(x.body.Scope, reportSuffix), maxScopeFile)
	var k keptReport
	if err == nil {
		err = canon.Decode(b, &k, canon.Limits{Bytes: maxScopeFile, Depth: 8})
	}
	if err != nil || k.Version != 1 || k.Serial != x.body.Serial || len(k.Attempts) > maxAttempts {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.n.note("scope %s: its report begins anew: %v", x.body.Scope, err)
		}
		return newReport(x.body.Serial)
	}
	r := &report{kept: k, attempts: map[attemptKey]*exeq.ScopeAttempt{}}
	for _, a := range k.Attempts {
		t := a.Attempt
		r.attempts[attemptKey{t.Verdict, t.Why, t.UID, a.File, t.Name}] = &t
	}
	if now := monotonic(); !there || k.Boot != s.n.id.audience.BootID || k.Seen > now {
		r.kept.Seen = now
	}
	return r
}

func (s *scopes) writeReport(x *scope) {
	r := x.report
	if !r.dirty {
		return
	}
	r.kept.Boot, r.kept.Attempts = s.n.id.audience.BootID, make([]keptAttempt, 0, len(r.attempts))
	for k, a := range r.attempts {
		r.kept.Attempts = append(r.kept.Attempts, keptAttempt{*a, k.file})
	}
	b, err := json.Marshal(r.kept)
	if err == nil {
		err = writeDurable(s.file(x.body.Scope, reportSuffix), b)
	}
	if err != nil {
		s.n.log.Error("scope: keep the report", "scope", x.body.Scope, "err", err)
		return
	}
	r.dirty = false
}

// watch reads what the kernel saw.
func (s *scopes) watch(from *bpf.Attempts) {
	defer from.Close()
	for {
		select {
		case <-s.n.ended:
			return
		default:
		}
		a, err := from.Next(time.Now().Add(time.Second / 2))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			s.n.log.Error("attempt", "err", err)
			continue
		}
		if a.Parent == os.Getpid() && strings.HasPrefix(a.Name, "/proc/self/fd/") {
			continue // its own canary
		}
		s.saw(a)
	}
}

// saw takes one attempt in. What the kernel could not kill is killed by the gate's
// orders, which do not wait behind attempts.
func (s *scopes) saw(a bpf.Attempt) {
	s.mu.Lock()
	x := s.at(a.Scope)
	k := attemptKey{a.Verdict, a.Why, a.UID, a.File, exeq.EncodeBytes(a.Name)}
	known := x == nil || x.report.attempts[k] != nil || len(x.report.attempts) >= maxAttempts
	s.mu.Unlock()
	var path string
	var digest exeq.Digest
	if !known && a.Verdict != bpf.ScopeUnmarked { // reading takes its time
		path, digest = s.find(a)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x = s.at(a.Scope); x == nil {
		return
	}
	r, now := x.report, exeq.At(time.Now())
	r.dirty = true
	have := r.attempts[k]
	switch {
	case have != nil:
		have.Count, have.Last = have.Count+1, now
		return
	case len(r.attempts) >= maxAttempts:
		r.kept.More++
		return
	}
	r.attempts[k] = &exeq.ScopeAttempt{Verdict: a.Verdict, Why: a.Why, UID: a.UID, Path: path, Name: k.name, SHA256: digest,
		Starter: exeq.EncodeBytes(a.Starter), Count: 1, First: now, Last: now}
	if len(r.attempts) <= maxLogged {
		s.n.log.Info("scope: "+a.Verdict, "scope", x.body.Scope, "uid", a.UID, "pid", a.PID, "name", k.name, "why", a.Why, "starter", a.Starter)
	}
}

// at finds a scope by where the kernel has it; s.mu is held.
func (s *scopes) at(of bpf.Scope) *scope {
	for _, x := range s.held {
		if x.active() && x.at == of {
			return x
		}
	}
	return nil
}

// find gives the path of what was executed and the digest of its bytes, if that
// very file is found where the process has it, or where it was named.
func (s *scopes) find(a bpf.Attempt) (string, exeq.Digest) {
	exe := fmt.Sprintf("/proc/%d/exe", a.PID)
	path, _ := os.Readlink(exe)
	var f *os.File
	fd, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0) // which asks nobody
	if err == nil {
		f, err = s.n.reopen(fd)
		unix.Close(fd)
	}
	if d, ok := s.digest(f, err, a.File); ok && len(path) <= maxReportedPath {
		return exeq.EncodeBytes(path), d
	}
	if strings.HasPrefix(a.Name, "/") {
		f, err := s.n.openRegular(a.Name, true)
		if d, ok := s.digest(f, err, a.File); ok {
			return exeq.EncodeBytes(a.Name), d
		}
	}
	return "", exeq.Digest{}
}

func (s *scopes) digest(f *os.File, err error, want bpf.File) (exeq.Digest, bool) {
	if err != nil {
		return exeq.Digest{}, false
	}
	defer f.Close()
	if have, err := s.n.gate.Identify(f); err != nil || have != want || have.Size > maxHashedAttempt {
		return exeq.Digest{}, false
	}
	have, d, err := s.n.hash(f)
	return d, err == nil && have == want
}

// reportTo signs what was seen in a scope, for whom it concerns.
func (s *scopes) reportTo(p *peer, of exeq.Scope) (*exeq.ScopeReport, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.held[of]
	if x == nil || !x.active() || !s.sees(p, x) {
		return nil, wire.ErrNoScope
	}
	x.report.account(x, s.hooks == nil && x.at.Kind != 0)
	r := &exeq.ScopeReport{Version: 1, Scope: of, Mode: x.body.Mode, Serial: x.body.Serial, Since: x.report.kept.Since,
		RehearsedMillis: x.report.kept.Rehearsed.Milliseconds(), Attempts: []exeq.ScopeAttempt{}, More: x.report.kept.More, Lacking: x.faults,
		Node: s.n.id.audience.Node, Time: exeq.At(s.n.burnt.clock())}
	var err error
	if r.Missed, r.Unmarked, err = s.kernel.Missed(); err != nil {
		return nil, err
	}
	for _, a := range x.report.attempts {
		r.Attempts = append(r.Attempts, *a)
	}
	slices.SortFunc(r.Attempts, func(a, b exeq.ScopeAttempt) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Path, b.Path), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Verdict, b.Verdict), cmp.Compare(a.UID, b.UID), strings.Compare(a.SHA256.String(), b.SHA256.String()))
	})
	size := 0
	for i, a := range r.Attempts {
		if size += 400 + len(a.Path) + len(a.Name); i >= maxReported || size > wire.MaxAnswer-32<<10 {
			for _, b := range r.Attempts[i:] {
				r.More += b.Count
			}
			r.Attempts = r.Attempts[:i]
			break
		}
	}
	msg, err := r.Signable()
	if err != nil {
		return nil, err
	}
	r.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(s.n.id.key, msg))
	b, err := canon.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(s.signed) >= maxReports {
		clear(s.signed) // whoever waited with his asks again
	}
	s.signed[sha256.Sum256(b)] = rehearsed{of, x.report.kept.Rehearsed}
	return r, nil
}
