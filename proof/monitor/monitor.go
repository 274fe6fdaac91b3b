// Package monitor walks a whole log and finds what no single proof can show:
// permits started twice, promises that were broken, executions without an end,
// chains that break, a log that forked or was rewritten.
//
// It reads a C2SP tlog-tiles log from any fs.FS (a directory, or Remote over
// HTTP) in one pass, recomputes every tile and the root from the entries, and
// keeps in memory an id a leaf and what the executions have told so far.
package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/proof"
)

// Config says what to walk and what is known beforehand.
type Config struct {
	Trust *proof.Trust
	Log   fs.FS // holds checkpoint and tile/
	// Seen are checkpoints of this log that were seen elsewhere or earlier
	// (signed notes); the log must extend each.
	Seen [][]byte
	// Proofs add their checkpoints to Seen and their promises to Promises.
	Proofs []*proof.Proof
	// Promises are of leaves that must be in the log by now.
	Promises []Promised
	// Now judges promises and unsealed executions; zero: time.Now().
	Now time.Time
}

// Promised is a promise with the exact bytes of its leaf.
type Promised struct {
	Leaf    []byte
	Promise exeq.Promise
}

// Severity orders findings.
type Severity string

// The severities.
const (
	Violation Severity = "violation" // someone broke a rule or a key is misused
	Warning   Severity = "warning"   // should not be so; may have an innocent cause
	Unknown   Severity = "unknown"   // a kind or version this build does not know
)

// Names of findings.
const (
	DamagedLog     = "damaged log"        // entries, tiles and checkpoint contradict each other
	Fork           = "fork"               // two checkpoints of one log do not agree
	NotWitnessed   = "not witnessed"      // the trust file's quorum did not cosign
	DoubleStart    = "double start"       // a permit was used twice
	DoublePermit   = "double permit"      // two permits for one execution
	BrokenPromise  = "broken promise"     // a promised leaf is not in the log
	Unsealed       = "unsealed execution" // no end, and its lease is long over
	Orphan         = "orphan leaf"        // its execution has no permit before it
	ChainBreak     = "chain break"        // sequence or prev do not follow
	AfterEnd       = "leaf after the end"
	BadSignature   = "bad signature"
	BackDated      = "back-dated leaf"
	DuplicateID    = "duplicate id"
	UnknownKind    = "unknown kind"
	NotALeaf       = "not a leaf"
	LeaseGap       = "lease gap"
	MissingContext = "activity not accounted for"
)

// Finding is one thing that is wrong.
type Finding struct {
	Severity  Severity `json:"severity"`
	Name      string   `json:"finding"`
	Index     int64    `json:"index"` // in the log; -1: about the log as a whole
	Execution string   `json:"execution,omitempty"`
	Leaf      string   `json:"leaf,omitempty"`
	Detail    string   `json:"detail"`
}

// Report is the outcome of a walk.
type Report struct {
	Version int    `json:"v"` // 1
	Origin  string `json:"origin"`
	Size    int64  `json:"size"`
	Root    string `json:"root"` // hexadecimal
	// Witnesses that cosigned the checkpoint, with their times.
	Witnesses []string `json:"witnesses"`
	// Leaves counts by kind, Executions by what became of them: sealed,
	// running, unsealed, denied.
	Leaves     map[string]int `json:"leaves"`
	Executions map[string]int `json:"executions"`
	Promises   int            `json:"promises"` // that were kept
	Seen       int            `json:"seen"`     // checkpoints that the log extends
	Findings   []Finding      `json:"findings"`
	// More counts findings beyond the first MaxFindings.
	More    int           `json:"more,omitempty"`
	Verdict proof.Verdict `json:"verdict"`

	checkpoint []byte
}

// MaxFindings bounds a report; what is beyond is counted.
const MaxFindings = 1000

// Checkpoint is the signed checkpoint that was walked; hand it to the next
// walk as Seen.
func (r *Report) Checkpoint() []byte { return r.checkpoint }

// Walk reads the whole log. The error is about the trust file, or says that
// the log could not be read at all; what is wrong with the log is in the report.
func Walk(c Config) (*Report, error) {
	a, err := c.Trust.Anchors()
	if err != nil {
		return nil, err
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	w := &walker{
		c: c, a: a, open: map[string]*execution{}, closed: map[string]*execution{}, ids: map[[16]byte]exeq.Digest{},
		wanted: map[exeq.Digest][]*promised{}, found: map[Severity]int{}, r: &Report{
			Version: 1, Origin: c.Trust.Origin, Leaves: map[string]int{}, Executions: map[string]int{}, Findings: []Finding{}, Witnesses: []string{},
		},
	}
	raw, err := readFile(c.Log, "checkpoint", maxCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	head, err := a.Checkpoint(string(raw))
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: checkpoint: %w", exeq.ErrCannotTell, err)
	}
	w.r.checkpoint = raw
	w.head(head)
	w.expectations(head)
	if err := w.entries(head); err != nil {
		var bad *damage
		if !errors.As(err, &bad) {
			return nil, fmt.Errorf("monitor: %w", err)
		}
		w.find(Violation, DamagedLog, bad.index, nil, "%s", bad.why)
	} else {
		w.finish(head)
	}
	return w.report(), nil
}

// head notes the present tree head.
func (w *walker) head(c *proof.Checkpoint) {
	w.r.Size, w.r.Root = c.Size, c.Root.String()
	who, met := w.a.Witnessed(c)
	w.r.Witnesses = append(w.r.Witnesses, who...)
	if w.c.Trust.Witnesses != "" && !met {
		w.find(Warning, NotWitnessed, -1, nil, "the witness quorum of the trust file did not cosign the checkpoint")
	}
}

// expectations gathers the heads that the log must extend and the promises
// that it must have kept.
func (w *walker) expectations(now *proof.Checkpoint) {
	see := func(text string) {
		c, err := w.a.Checkpoint(text)
		if err != nil {
			w.find(Warning, Fork, -1, nil, "a checkpoint to compare with is not one of this log: %s", err)
			return
		}
		if c.Size > now.Size {
			w.find(Violation, Fork, -1, nil, "a checkpoint of size %d was signed, the log shown has %d: it was rolled back or forked", c.Size, now.Size)
			return
		}
		w.heads = append(w.heads, c)
	}
	for _, b := range w.c.Seen {
		see(string(b))
	}
	for _, p := range w.c.Proofs {
		for _, text := range p.Checkpoints() {
			see(text)
		}
		if len(p.Leaves) > 0 {
			w.c.Promises = append(w.c.Promises, Promised{[]byte(p.Leaves[0]), p.Promise})
		}
	}
	slices.SortStableFunc(w.heads, func(x, y *proof.Checkpoint) int { return int(min(max(x.Size-y.Size, -1), 1)) })
	for _, p := range w.c.Promises {
		h := exeq.LeafHash(p.Leaf)
		ms, err := w.a.OpenPromise(&p.Promise, h)
		if err != nil {
			w.find(Warning, BrokenPromise, -1, nil, "a promise to compare with is not one of this log: %s", err)
			continue
		}
		w.wanted[h] = append(w.wanted[h], &promised{at: time.UnixMilli(ms)})
	}
}

type promised struct{ at time.Time }

// finish judges what only the end of the log can tell.
func (w *walker) finish(head *proof.Checkpoint) {
	if got := w.tree.root(); got != head.Root {
		w.find(Violation, DamagedLog, -1, nil, "the entries hash to %s, the checkpoint says %s", got, head.Root)
	}
	if err := w.tree.edges(); err != nil {
		w.find(Violation, DamagedLog, -1, nil, "%s", err)
	}
	for h, ps := range w.wanted {
		for _, p := range ps {
			if due := p.at.Add(exeq.MaxMergeDelay); w.c.Now.After(due) {
				w.find(Violation, BrokenPromise, -1, nil, "leaf hash %s was promised at %s and is not in the log", h, exeq.At(p.at))
			}
		}
	}
	for _, x := range w.open {
		w.unsealed(x)
	}
	for _, x := range w.closed {
		switch {
		case x.denied:
			w.r.Executions["denied"]++
		default:
			w.r.Executions["sealed"]++
		}
	}
}

// find notes a finding.
func (w *walker) find(s Severity, name string, index int64, l *exeq.Leaf, format string, args ...any) {
	f := Finding{Severity: s, Name: name, Index: index, Detail: fmt.Sprintf(format, args...)}
	if l != nil {
		f.Execution, f.Leaf = l.Execution, l.ID
	}
	w.found[s]++
	if len(w.r.Findings) == MaxFindings {
		w.r.More++
		return
	}
	w.r.Findings = append(w.r.Findings, f)
}

// report orders the findings and gives the verdict.
func (w *walker) report() *Report {
	slices.SortStableFunc(w.r.Findings, func(x, y Finding) int {
		switch {
		case x.Index != y.Index:
			return int(min(max(x.Index-y.Index, -1), 1))
		case x.Name != y.Name && x.Name < y.Name, x.Name == y.Name && x.Detail < y.Detail:
			return -1
		}
		return 1
	})
	switch {
	case w.found[Violation] > 0:
		w.r.Verdict = proof.NotValid
	case w.found[Unknown] > 0:
		w.r.Verdict = proof.Unknown
	default:
		w.r.Verdict = proof.Valid
	}
	return w.r
}

// JSON gives the report as canonical JSON and a newline.
func (r *Report) JSON() ([]byte, error) {
	b, err := canon.Marshal(r)
	return append(b, '\n'), err
}
