package permit

import (
	"fmt"
	"time"

	"github.com/exeq/exeq"
)

// Bounds of what is issued and believed.
const (
	// MaxWindow bounds notAfter − notBefore; MinLease and MaxLease the lease
	// period. A permit outside is refused even when it is signed.
	MaxWindow = 10 * time.Minute
	MinLease  = 500 * time.Millisecond
	MaxLease  = time.Minute
	// MaxSkew is how far ahead of this clock an issuer's may be.
	MaxSkew = 2 * time.Second
)

// The reasons for a refusal; each wraps [exeq.ErrPermit].
var (
	ErrMalformed  = refusal("malformed")
	ErrSignature  = refusal("not signed by the issuer")
	ErrUnrecorded = refusal("not on record: no promise of this permit")
	ErrAction     = refusal("issued for another action")
	ErrRights     = refusal("issued for other rights")
	ErrAudience   = refusal("issued for another enforcement point, boot or store")
	ErrEarly      = refusal("not valid yet")
	ErrExpired    = refusal("expired")
	ErrWindow     = refusal("its window is not one that an issuer gives")
	ErrLease      = refusal("its lease is not one that an issuer gives")
	ErrTier       = refusal("this tier is below its floor")
	ErrUsed       = refusal("its nonce is spent")
	ErrUnburnt    = refusal("its nonce could not be spent durably")
	ErrRenewal    = refusal("renewal")
	ErrRevocation = refusal("revocation")
)

func refusal(why string) error { return fmt.Errorf("%w: %s", exeq.ErrPermit, why) }
