package wire

import (
	"errors"
	"fmt"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/permit"
)

// What the node refuses for, beside the refusals of package permit.
var (
	// ErrProtocol: what was said is not a message of this version.
	ErrProtocol = errors.New("not understood")
	// ErrBusy: the node has no room now.
	ErrBusy = errors.New("busy")
	// ErrPeer: this user may not ask.
	ErrPeer = errors.New("this user is not served")
	// ErrInside: the request comes from inside an execution.
	ErrInside = errors.New("not from inside an execution")
	// ErrIssuer: the permit's issuer is not trusted for this user.
	ErrIssuer = fmt.Errorf("%w, or by one that is not trusted for this user", permit.ErrSignature)
	// ErrUnknown: no such execution is held.
	ErrUnknown = errors.New("no such execution")
	// ErrOwner: only the supervisor that had it admitted may ask that.
	ErrOwner = errors.New("not the execution's supervisor")
	// ErrState: not at this point of the execution's life.
	ErrState = errors.New("not now")
	// ErrProcess: the processes are not an execution of the supervisor's that
	// waits.
	ErrProcess = errors.New("not processes of the supervisor's execution")
	// ErrProgram: the program may not run by the permit's rights.
	ErrProgram = errors.New("the program is not within the permit's rights")
	// ErrChallenge: the renewal does not answer the open challenge.
	ErrChallenge = fmt.Errorf("%w: answers no open challenge", permit.ErrRenewal)
	// ErrGate: the kernel's gate is not in place, or does not bite.
	ErrGate = errors.New("the gate")
)

// codes give each refusal a name on the wire. What wraps another comes first.
var codes = []struct {
	code string
	err  error
}{
	{"protocol", ErrProtocol}, {"busy", ErrBusy}, {"peer", ErrPeer}, {"inside", ErrInside}, {"issuer", ErrIssuer},
	{"unknown", ErrUnknown}, {"owner", ErrOwner}, {"state", ErrState}, {"process", ErrProcess}, {"program", ErrProgram},
	{"challenge", ErrChallenge}, {"gate", ErrGate}, {"clock", exeq.ErrClock},
	{"malformed", permit.ErrMalformed}, {"signature", permit.ErrSignature}, {"unrecorded", permit.ErrUnrecorded},
	{"action", permit.ErrAction}, {"rights", permit.ErrRights}, {"audience", permit.ErrAudience}, {"early", permit.ErrEarly},
	{"expired", permit.ErrExpired}, {"window", permit.ErrWindow}, {"lease", permit.ErrLease}, {"tier", permit.ErrTier},
	{"used", permit.ErrUsed}, {"unburnt", permit.ErrUnburnt}, {"renewal", permit.ErrRenewal}, {"revocation", permit.ErrRevocation},
	{"scope-issuer", ErrScopeIssuer}, {"scope-serial", ErrScopeSerial}, {"scope-life", ErrScopeLife},
	{"rehearsal", ErrRehearsal}, {"break-glass", ErrBreakGlass}, {"no-scope", ErrNoScope},
	{"lapsed", exeq.ErrLapsed}, {"revoked", exeq.ErrRevoked}, {"enforce", exeq.ErrEnforce},
}

// Error is a refusal as it travels. On the asking side it unwraps to what it
// was on the refusing one.
type Error struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Refusal gives err its name and bounded words.
func Refusal(err error) *Error {
	e := &Error{Code: "failed", Text: exeq.EncodeBytes(err.Error())}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			e.Code = c.code
			break
		}
	}
	if len(e.Text) > 4<<10 {
		e.Text = e.Text[:4<<10]
	}
	return e
}

func (e *Error) Error() string { return "exeq-node: " + e.Text }

// Unwrap gives the sentinels: a nonce that is spent is a replay too, and one that
// no clock could be trusted for is not spent.
func (e *Error) Unwrap() []error {
	for _, c := range codes {
		switch {
		case c.code != e.Code:
		case c.err == permit.ErrUsed:
			return []error{c.err, exeq.ErrReplayed}
		case c.err == exeq.ErrClock:
			return []error{c.err, permit.ErrUnburnt}
		default:
			return []error{c.err}
		}
	}
	return nil
}
