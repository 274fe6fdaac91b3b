package wire

import (
	"errors"

	"github.com/exeq/exeq"
)

// What the node refuses for in scopes.
var (
	// ErrScopeIssuer: the issuer is not trusted to declare scopes, or the scope is
	// another's.
	ErrScopeIssuer = errors.New("this issuer may not declare that scope")
	// ErrScopeSerial: it is not newer than what the node has.
	ErrScopeSerial = errors.New("not newer than the statement in force")
	// ErrScopeLife: what the scope should live by is not there as stated.
	ErrScopeLife = errors.New("not what the statement says")
	// ErrRehearsal: the host was not rehearsed, or not long enough.
	ErrRehearsal = errors.New("not rehearsed")
	// ErrBreakGlass: this user may not open the scope, or not like that.
	ErrBreakGlass = errors.New("may not open the scope")
	// ErrNoScope: the node holds no such scope.
	ErrNoScope = errors.New("no such scope")
)

// Declare hands a scope's statement over, with its place on record. Anybody may:
// signatures are believed.
type Declare struct {
	Envelope []byte            `json:"envelope"`
	Record   *exeq.ScopeRecord `json:"record"`
}

// Open asks for a scope to be opened to whoever asks, or (0 ms) to be closed
// again. The reason is recorded.
type Open struct {
	Scope  exeq.Scope `json:"scope"`
	Reason string     `json:"reason"` // EncodeBytes
	Millis int64      `json:"millis"`
}

// Openings asks for what was opened since the one with the id, the oldest first;
// empty: all.
type Openings struct {
	After string `json:"after,omitempty"`
}

// MaxOpenings is how many openings an answer tells, and MaxReason bounds a
// reason.
const (
	MaxOpenings = 128
	MaxReason   = 1000
)

// HeldScope is one scope as it is held.
type HeldScope struct {
	Scope  exeq.Scope     `json:"scope"`
	Mode   exeq.ScopeMode `json:"mode"`
	Serial uint64         `json:"serial"`
	Issuer string         `json:"issuer,omitempty"`
	// OpenMillis is for how long it is open still.
	OpenMillis int64 `json:"openMillis,omitempty"`
	// Faults say what is not as it was declared: programs that are not there as
	// stated, a cgroup that is not there, a statement that is gone.
	Faults []string `json:"faults,omitempty"`
	// RehearsedMillis, Denied, Would, Opened: as its report has it.
	RehearsedMillis int64 `json:"rehearsedMillis,omitempty"`
	Denied          int   `json:"denied,omitempty"`
	Would           int   `json:"would,omitempty"`
	Opened          int   `json:"opened,omitempty"`
}
