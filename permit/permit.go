// Package permit issues permits, narrows them for nested runs, and checks them
// where they are used: signature, record, audience, window, single use.
//
// The issuing side holds the issuer key and knows requests and decisions. The
// admitting side believes signatures only: it recomputes every digest from
// what it is really about to do and burns the nonce before it says yes.
package permit

import (
	"context"
	"crypto/ed25519"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
)

// IssuerConfig says with which key and for whom permits are issued.
type IssuerConfig struct {
	Key      exeq.Signer
	Audience exeq.Audience
	// Checkpoint gives "size:root" of the latest checkpoint known; nil: none.
	Checkpoint func() string
	Window     time.Duration // zero: exeq.DefaultPermitWindow
	Lease      time.Duration // zero: exeq.DefaultLease
	Now        func() time.Time
}

// AdmitterConfig says whom an enforcement point believes and what it is.
type AdmitterConfig struct {
	Issuer   ed25519.PublicKey
	Promise  note.Verifier // its name is the log's origin + "/promise"
	Audience exeq.Audience
	Tier     exeq.Tier // that enforcement achieves here
	Burner   Burner
	Now      func() time.Time
}

// Burner spends nonces.
//
// Burn returns nil exactly once for a permit and its nonce over all processes
// and restarts, and only when that is durable. A second time the error wraps
// [exeq.ErrReplayed]; any other error leaves the permit refused.
type Burner interface {
	Burn(ctx context.Context, permit, nonce string, until exeq.Time) error
}
