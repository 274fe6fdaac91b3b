// Package policy decides: it holds a Cedar policy set against a request and
// answers with a verdict, and compiles the set into the rights that one
// execution may have.
//
// A set is text (a [Source]); loading validates it strictly against the Exeq
// schema and refuses what could not mean what it seems to say. A loaded [Set]
// never changes, is safe for concurrent use, and implements [exeq.Decider].
//
// Cedar's words (permit, forbid, principal) stay inside this package.
package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// Set is one loaded policy set. The zero value denies everything.
type Set struct {
	source    *Source
	digest    exeq.Digest
	settings  *Settings
	directory *directory
	rules     []*rule // sorted by id
	index     *index
	named     map[types.EntityUID]bool // places that literals name
	contexts  contextCache
}

var _ exeq.Decider = (*Set)(nil)

// Load validates a source and makes a set of it. The error is a [*CheckError]
// that lists every problem; a set with a problem that is no warning never
// becomes active.
func Load(src *Source) (*Set, error) {
	s, problems := build(src)
	if slices.ContainsFunc(problems, Problem.refuses) {
		return nil, &CheckError{problems}
	}
	s.index, s.named = buildIndex(s.rules), namedPlaces(s.rules)
	for _, p := range s.directory.known {
		p.groups = s.index.groupsOf(nil, p.ancestors)
	}
	return s, nil
}

// LoadDir loads the set in a directory or a single .cedar file.
func LoadDir(path string) (*Set, error) {
	src, err := ReadDir(path)
	if err != nil {
		return nil, err
	}
	return Load(src)
}

// Check lists every problem of a source, sorted by file and line. Load
// succeeds if there is none but warnings.
func Check(src *Source) []Problem {
	_, problems := build(src)
	return problems
}

// Source is what the set was loaded from; it must not be changed.
func (s *Set) Source() *Source { return s.source }

// PolicySet is the digest of the set.
func (s *Set) PolicySet() exeq.Digest { return s.digest }

// Decide implements [exeq.Decider]. A request that is not well formed gives
// an error beside the denial; one that is well formed and names what the set
// does not know is denied.
func (s *Set) Decide(ctx context.Context, r *exeq.Request, in *exeq.Inputs) (d exeq.Decision, err error) {
	if err := ctx.Err(); err != nil {
		return exeq.Decision{Verdict: exeq.Deny, Policies: []string{}, PolicySet: s.digest}, err
	}
	err = s.judge(&d, r, in, true)
	return d, err
}

// judge is Decide into a decision that says nothing yet; without words it leaves
// Reason empty.
func (s *Set) judge(d *exeq.Decision, r *exeq.Request, in *exeq.Inputs, words bool) error {
	d.Verdict, d.Policies, d.PolicySet = exeq.Deny, []string{}, s.digest
	if err := validRequest(r, in); err != nil {
		d.Reason = err.Error()
		return fmt.Errorf("policy: %w", err)
	}
	if len(s.rules) == 0 {
		d.Reason = "no policy set is loaded"
		return nil
	}
	q := queries.Get().(*query)
	defer q.release()
	if err := q.start(s, r, in); err != nil {
		d.Reason = err.Error()
		return nil
	}
	o, why := q.decide(d)
	if words {
		d.Reason = q.reason(d, &o, why)
	}
	return nil
}

func (q *query) release() {
	words := q.words
	*q = query{}
	q.words = words
	queries.Put(q)
}

// queries are used again: nothing of one is left in a decision.
var queries = sync.Pool{New: func() any { return new(query) }}

// validRequest is what must hold before anything is looked up.
func validRequest(r *exeq.Request, in *exeq.Inputs) error {
	if r == nil || in == nil {
		return errors.New("request or inputs are missing")
	}
	return r.Validate()
}

// Problem is one reason why a source is not a policy set.
type Problem struct {
	File    string `json:"file"`             // empty: the set as a whole
	Line    int    `json:"line,omitempty"`   // from 1; 0: the whole file
	Column  int    `json:"column,omitempty"` // from 1
	Policy  string `json:"policy,omitempty"` // its @id, where it has one
	Message string `json:"message"`
	// Fix says what to write instead.
	Fix string `json:"fix,omitempty"`
	// Warning: the set loads nevertheless, since what is wrong with it permits
	// no more than its author meant, or since the author may mean it.
	Warning bool `json:"warning,omitempty"`
}

func (p Problem) refuses() bool { return !p.Warning }

// String gives "file:line:column: message (policy ID); fix".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(cmp.Or(p.File, "the set"))
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Policy != "" {
		fmt.Fprintf(&b, " (policy %s)", p.Policy)
	}
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// CheckError lists the problems for which a source was refused.
type CheckError struct{ Problems []Problem }

func (e *CheckError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "policy set refused:\n" + strings.Join(lines, "\n")
}
