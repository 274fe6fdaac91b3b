package exeq

import "context"

// Activity is something that an execution is about to do inside its permit,
// as the enforcement point sees it: resolved, never as the governed side
// spelled it.
type Activity struct {
	Action   string   `json:"action"` // exec, map, read, write, connect
	Resource Resource `json:"resource"`
	// Argv and Dir of an exec (EncodeBytes).
	Argv []string `json:"argv,omitempty"`
	Dir  string   `json:"cwd,omitempty"`
	// PID as the supervisor sees it; for the person at the terminal.
	PID int `json:"pid,omitempty"`
}

// Ruling is the answer to an activity.
type Ruling struct {
	Allow bool
	// Cacheable: the same resource (same digest) needs no second ruling
	// under the same policy set.
	Cacheable bool
	// Decision is what was decided; its zero value where the rights alone
	// ruled.
	Decision Decision
	// Message is, on a denial, the one line for the person at the terminal:
	// what was denied, by which policy, and what would allow it.
	Message string
}

// Gate rules on activities while an execution runs; enforcement calls it, the
// flow implements it.
//
// Ask returns only when the ruling's effects are durable where that matters: a
// denial is recorded and a label is committed before Ask returns. It fails
// closed (Allow false) on every error, on a cancelled context, and once the
// execution is revoked. Safe for concurrent use.
type Gate interface {
	Ask(ctx context.Context, a Activity) Ruling
	// Seen notes an activity that needed no ruling but was seen (a cached
	// exec), for the counts and the evidence. It must not block.
	Seen(a Activity, allowed bool)
	// Explain says why an activity is denied that the kernel refuses by
	// itself, in the words of Ruling.Message; "" if the policy permits it.
	// Nothing is recorded or counted.
	Explain(ctx context.Context, a Activity) string
}
