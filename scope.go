package exeq

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/exeq/exeq/internal/canon"
)

// Scope names what a mandatory scope is declared over: inside it nothing
// executes without a permit, whoever starts it.
type Scope struct {
	Kind    string `json:"kind"`    // ScopeUID, ScopeCgroup, ScopeHost
	Subject string `json:"subject"` // the uid in decimal; the cgroup's path from the hierarchy's root (EncodeBytes); of the host empty
}

// The kinds of scopes.
const (
	ScopeUID    = "uid"    // any of a process's users, and whatever descends from it
	ScopeCgroup = "cgroup" // what is in the cgroup or below it, and whatever descends from it
	ScopeHost   = "host"   // everything, root included
)

// String is how a scope is named to people.
func (s Scope) String() string {
	if s.Kind == ScopeHost {
		return ScopeHost
	}
	return s.Kind + ":" + Readable(s.Subject)
}

// Validate refuses what names no scope, or one in a second spelling.
func (s Scope) Validate() error {
	switch s.Kind {
	case ScopeUID:
		n, err := strconv.ParseUint(s.Subject, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != s.Subject || n == 1<<32-1 {
			return fmt.Errorf("scope: %.40q is no uid", s.Subject)
		}
	case ScopeCgroup:
		if err := CheckPath(s.Subject); err != nil {
			return fmt.Errorf("scope: cgroup: %w", err)
		}
		if s.Subject == "/" {
			return errors.New("scope: the root of the hierarchy is the host")
		}
	case ScopeHost:
		if s.Subject != "" {
			return errors.New("scope: the host has no name")
		}
	default:
		return fmt.Errorf("scope: unknown kind %.40q", s.Kind)
	}
	return nil
}

// ScopeMode says what becomes of a scope.
type ScopeMode string

// The modes of a statement.
const (
	ScopeRehearse ScopeMode = "rehearse" // what would be denied is reported, and nothing is
	ScopeEnforce  ScopeMode = "enforce"
	ScopeLift     ScopeMode = "lift" // the end of it
)

// ScopeBody is the predicate of a scope's statement, version 1: an issuer's
// signed word on one scope of one node, which replaces its earlier ones. It is
// valid for being handed over between NotBefore and NotAfter; the scope itself
// has no end but a statement that lifts it, since one that ended because a clock
// went on would be a lift that nobody signed.
type ScopeBody struct {
	Version int       `json:"v"`  // 1
	ID      string    `json:"id"` // UUIDv7
	Scope   Scope     `json:"scope"`
	Mode    ScopeMode `json:"mode"`
	// Serial rises with each statement of the scope: a node refuses one that does
	// not lie above what it has.
	Serial    uint64 `json:"serial"`
	Node      string `json:"node"` // key id of the node's key
	NotBefore Time   `json:"notBefore"`
	NotAfter  Time   `json:"notAfter"`

	// Programs and Trees name the machine's own life: what executes without a
	// permit. Below a tree, everything that, with every directory on the way, root
	// owns and nobody else can write. Both sorted.
	Programs []ScopeProgram `json:"programs,omitempty"`
	Trees    []string       `json:"trees,omitempty"` // EncodeBytes
	// BreakGlass says who may open the scope; nil: nobody.
	BreakGlass *BreakGlass `json:"breakGlass,omitempty"`

	// RehearsalMillis is how long a host scope must have been rehearsed before it
	// is enforced, with these programs and trees at least, and Rehearsal the
	// digest of the node's report on it, which is on record.
	RehearsalMillis  int64  `json:"rehearsalMillis,omitempty"`
	Rehearsal        Digest `json:"rehearsal,omitzero"`
	WithoutRehearsal bool   `json:"withoutRehearsal,omitempty"`

	PolicySet Digest   `json:"policySet"` // that said so
	Policies  []string `json:"policies"`
}

// ScopeProgram is one program by its bytes.
type ScopeProgram struct {
	Path   string `json:"path"` // EncodeBytes
	SHA256 Digest `json:"sha256"`
}

// BreakGlass says which people may open a scope, and for how long at most.
type BreakGlass struct {
	UIDs      []int `json:"uids"` // sorted
	MaxMillis int64 `json:"maxMillis"`
}

// Opens says whether the user may open the scope.
func (b *BreakGlass) Opens(uid int) bool { return b != nil && slices.Contains(b.UIDs, uid) }

// ScopeStatement is an in-toto Statement v1 that carries a scope.
type ScopeStatement struct {
	Type          string             `json:"_type"`
	Subject       []StatementSubject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     ScopeBody          `json:"predicate"`
}

// NewScopeStatement is the one statement that carries the body. Its subject is
// the scope: SHA-256(tag ‖ JCS(scope)).
func NewScopeStatement(body *ScopeBody) (*ScopeStatement, error) {
	b, err := canon.Marshal(body.Scope)
	if err != nil {
		return nil, err
	}
	return &ScopeStatement{
		Type: StatementType, PredicateType: ScopePredicate, Predicate: *body,
		Subject: []StatementSubject{{Name: "scope", Digest: StatementSums{SHA256: sum(tagScope, b)}}},
	}, nil
}

// ScopeRecord is what a node needs to see that a statement is on record.
type ScopeRecord struct {
	Leaf    []byte     `json:"leaf"`
	Promise Promise    `json:"promise"`
	Scope   Disclosure `json:"scope"` // field "scope": the envelope as a string
}

// ParseScope reads a scope's envelope strictly without checking its signature,
// and gives the payload that it is over.
func ParseScope(envelope []byte) (body *ScopeBody, payload []byte, signed EnvelopeSignature, err error) {
	fail := func(format string, args ...any) (*ScopeBody, []byte, EnvelopeSignature, error) {
		return nil, nil, signed, fmt.Errorf("%w: scope: %w", ErrPermit, fmt.Errorf(format, args...))
	}
	var e Envelope
	if err := canon.Decode(envelope, &e, canon.Limits{Bytes: MaxScopeBytes, Depth: 4}); err != nil {
		return fail("envelope: %w", err)
	}
	if e.PayloadType != StatementPayload || len(e.Signatures) != 1 {
		return fail("payloadType %.60q, %d signatures", e.PayloadType, len(e.Signatures))
	}
	if payload, err = base64.StdEncoding.Strict().DecodeString(e.Payload); err != nil {
		return fail("payload is not base64")
	}
	var s ScopeStatement
	exact, err := canon.DecodeCanonical(payload, &s, canon.Limits{Bytes: MaxScopeBytes, Depth: 8})
	if err != nil {
		return fail("%w", err)
	}
	if !exact {
		return fail("not in canonical form")
	}
	if s.Type != StatementType || s.PredicateType != ScopePredicate || s.Predicate.Version != 1 {
		return fail("%w: predicate %.80q version %d", ErrCannotTell, s.PredicateType, s.Predicate.Version)
	}
	want, err := NewScopeStatement(&s.Predicate)
	if err != nil || !slices.Equal(want.Subject, s.Subject) {
		return fail("its subject is another scope")
	}
	if err := s.Predicate.Validate(); err != nil {
		return fail("%w", err)
	}
	return &s.Predicate, payload, e.Signatures[0], nil
}

// Validate refuses a body that could be read in two ways, or that a node must
// not hold.
func (b *ScopeBody) Validate() error {
	if err := b.Scope.Validate(); err != nil {
		return err
	}
	switch b.Mode {
	case ScopeRehearse, ScopeEnforce:
	case ScopeLift:
		if len(b.Programs)+len(b.Trees) > 0 || b.BreakGlass != nil || b.RehearsalMillis != 0 || !b.Rehearsal.IsZero() || b.WithoutRehearsal {
			return errors.New("a scope that is lifted has nothing")
		}
	default:
		return fmt.Errorf("unknown mode %.40q", b.Mode)
	}
	if b.Serial == 0 || b.Node == "" || b.ID == "" {
		return errors.New("serial, node and id are needed")
	}
	if len(b.Programs) > MaxScopePrograms || len(b.Trees) > MaxScopeTrees {
		return fmt.Errorf("%d programs and %d trees are over the limits of %d and %d", len(b.Programs), len(b.Trees), MaxScopePrograms, MaxScopeTrees)
	}
	for i, p := range b.Programs {
		if err := CheckPath(p.Path); err != nil {
			return err
		}
		if i > 0 && b.Programs[i-1].Path >= p.Path || p.SHA256.IsZero() {
			return fmt.Errorf("programs: %q: not sorted, twice, or without a digest", p.Path)
		}
	}
	for i, t := range b.Trees {
		if err := CheckPath(t); err != nil {
			return err
		}
		if i > 0 && b.Trees[i-1] >= t {
			return fmt.Errorf("trees: %q: not sorted, or twice", t)
		}
	}
	if g := b.BreakGlass; g != nil {
		if len(g.UIDs) == 0 || len(g.UIDs) > MaxScopePeople || !slices.IsSorted(g.UIDs) || g.UIDs[0] < 0 ||
			g.MaxMillis <= 0 || g.MaxMillis > MaxBreakGlass.Milliseconds() {
			return fmt.Errorf("breakGlass: 1–%d users, sorted, for at most %s", MaxScopePeople, MaxBreakGlass)
		}
		// Who is held does not open what holds them.
		if b.Scope.Kind == ScopeUID && slices.ContainsFunc(g.UIDs, func(uid int) bool { return strconv.Itoa(uid) == b.Scope.Subject }) {
			return errors.New("breakGlass: the scope's own user")
		}
	}
	if b.RehearsalMillis < 0 || b.WithoutRehearsal && (b.RehearsalMillis != 0 || !b.Rehearsal.IsZero()) {
		return errors.New("rehearsal: with or without, not both")
	}
	return nil
}

// Covers says whether everything that o lives by is among what b does.
func (b *ScopeBody) Covers(o *ScopeBody) bool {
	for _, p := range o.Programs {
		if !slices.Contains(b.Programs, p) {
			return false
		}
	}
	for _, t := range o.Trees {
		if !slices.Contains(b.Trees, t) {
			return false
		}
	}
	return true
}

// ScopeReport is a node's signed word on what it saw in a scope.
type ScopeReport struct {
	Version int       `json:"v"` // 1
	Scope   Scope     `json:"scope"`
	Mode    ScopeMode `json:"mode"`
	Serial  uint64    `json:"serial"`
	Since   Time      `json:"since"`
	// RehearsedMillis is how long the kernel has rehearsed the scope, as far as
	// the node knows, with no more programs and trees than now.
	RehearsedMillis int64          `json:"rehearsedMillis"`
	Attempts        []ScopeAttempt `json:"attempts"`
	// More counts attempts for which there was no room here, Missed those (of all
	// scopes) that nobody read in time, and Unmarked processes that could not be
	// held to descend from a scope.
	More     int    `json:"more,omitempty"`
	Missed   uint64 `json:"missed,omitempty"`
	Unmarked uint64 `json:"unmarked,omitempty"`
	// Lacking names what the scope should live by and does not, with the reason.
	Lacking   []string `json:"lacking,omitempty"`
	Node      string   `json:"node"`
	Time      Time     `json:"time"`
	Signature string   `json:"sig"`
}

// ScopeAttempt tells of all executions of one file by one user.
type ScopeAttempt struct {
	Verdict string `json:"verdict"` // denied, would be denied, opened
	Why     string `json:"why"`     // absent, changed, left
	UID     int    `json:"uid"`
	// Path is the file's, where the node found it; Name is what the caller named
	// (EncodeBytes both). SHA256 is zero where the node could not read that file.
	Path    string `json:"path,omitempty"`
	Name    string `json:"name"`
	SHA256  Digest `json:"sha256,omitzero"`
	Starter string `json:"starter"` // what the first one's parent calls itself
	Count   int    `json:"count"`
	First   Time   `json:"first"`
	Last    Time   `json:"last"`
}

// Signable is what a report's signature covers.
func (r ScopeReport) Signable() ([]byte, error) {
	r.Signature = ""
	b, err := canon.Marshal(r)
	return append([]byte(tagScopeReport), b...), err
}

// Opening is a node's signed word that a person opened a scope. It is durable
// before the scope opens.
type Opening struct {
	Version int    `json:"v"`  // 1
	ID      string `json:"id"` // UUIDv7
	Scope   Scope  `json:"scope"`
	Serial  uint64 `json:"serial"`
	UID     int    `json:"uid"` // by the kernel's word
	Reason  string `json:"reason"`
	Millis  int64  `json:"millis"` // 0: closed again
	Time    Time   `json:"time"`
	BootID  string `json:"bootId"` // an opening ends with the boot
	Node    string `json:"node"`
	// Signature is over the tag ‖ JCS of the members above.
	Signature string `json:"sig"`
}

// Signable is what an opening's signature covers.
func (o Opening) Signable() ([]byte, error) {
	o.Signature = ""
	b, err := canon.Marshal(o)
	return append([]byte(tagOpening), b...), err
}
