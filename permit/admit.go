package permit

import (
	"context"
	"crypto/ed25519"

	"github.com/exeq/exeq"
)

// Admitter implements [exeq.Admitter]. Safe for concurrent use.
type Admitter struct{ c AdmitterConfig }

// NewAdmitter refuses a configuration that could not check everything.
func NewAdmitter(c AdmitterConfig) (*Admitter, error) { return &Admitter{c}, nil }

// Admit implements [exeq.Admitter].
func (a *Admitter) Admit(ctx context.Context, p *exeq.Permit, on *exeq.PermitRecord, r *exeq.Request, rights *exeq.Rights) error {
	return errNotYet
}

// CheckRenewal implements [exeq.Admitter]; the permit must have been admitted here.
func (a *Admitter) CheckRenewal(permit string) func(exeq.Renewal) error {
	return func(exeq.Renewal) error { return errNotYet }
}

// CheckRevocation verifies a revocation of a permit by the issuer.
func CheckRevocation(issuer ed25519.PublicKey, permit string, v exeq.Revocation) error {
	return errNotYet
}

// Attenuate narrows child to what parent also gives: never wider than either.
func Attenuate(parent, child *exeq.Rights) *exeq.Rights { return nil }
