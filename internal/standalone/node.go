package standalone

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/permit"
)

// Point is an enforcement point of its own, with a key, a boot and a burn list
// that are not the installation's: exeq-node. It serves one execution.
type Point interface {
	Audience() exeq.Audience
	PublicKey() ed25519.PublicKey
	// Admit takes the permit as [exeq.Admitter] asks, and burns its nonce.
	Admit(ctx context.Context, p *exeq.Permit, on *exeq.PermitRecord, r *exeq.Request, rights *exeq.Rights) error
}

// GovernorAt is Governor with permits for the point. What is numbered stays
// signed by the installation's own node key: the point signs what it did itself
// ([exeq.Enclosure]), so that an end can be sealed where it has died. Its key is
// put on record before the first permit names it.
func (in *Installation) GovernorAt(ctx context.Context, e exeq.Enforcer, at Point) (*exeq.Governor, error) {
	g, err := in.Governor(e)
	if err != nil {
		return nil, err
	}
	if err := in.Know(ctx, at.PublicKey()); err != nil {
		return nil, err
	}
	if g.Issuer, err = permit.NewIssuer(permit.IssuerConfig{
		Key: in.Keys.Signer(exeq.RoleIssuer), Audience: at.Audience(), Checkpoint: in.Store.Latest,
	}); err != nil {
		return nil, err
	}
	b := &burnThere{at: at}
	if b.Admitter, err = permit.NewAdmitter(permit.AdmitterConfig{
		Issuer: in.Keys.Public(exeq.RoleIssuer), Promise: in.Keys.NoteVerifier(exeq.RolePromise),
		Audience: at.Audience(), Tier: e.Tier(), Burner: b,
	}); err != nil {
		return nil, err
	}
	g.Admitter = b
	return g, nil
}

// NodeTrust is what exeq-node believes this installation by, for this user.
func (in *Installation) NodeTrust() ([]byte, error) {
	b, err := canon.Marshal(struct {
		Version int    `json:"v"`
		Issuer  string `json:"issuer"`
		Promise string `json:"promise"`
		UIDs    []int  `json:"uids"`
	}{1, base64.StdEncoding.EncodeToString(in.Keys.Public(exeq.RoleIssuer)), in.Keys.VerifierKey(exeq.RolePromise), []int{os.Getuid()}})
	return append(b, '\n'), err
}

// Know puts the key of an enforcement point on record, once.
func (in *Installation) Know(ctx context.Context, pub ed25519.PublicKey) error {
	id := exeq.KeyID(pub)
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindKey, Body: exeq.LeafBody{
		Role: exeq.RoleNode, Event: "add", PublicKey: base64.StdEncoding.EncodeToString(pub),
	}}, nil, in.Keys.Signer(exeq.RoleIssuer))
	if err != nil {
		return err
	}
	if _, err := in.Store.RecordOnce(ctx, exeq.LeafHash([]byte("node key "+id)), []byte(id), e); err != nil {
		return fmt.Errorf("the node's key: %w", err)
	}
	return nil
}

// burnThere is this process's own check of a permit, whose burn list is the
// point's: the last step hands everything over, and there it is checked again.
type burnThere struct {
	*permit.Admitter
	at Point

	permit  *exeq.Permit
	on      *exeq.PermitRecord
	r       *exeq.Request
	rights  *exeq.Rights
	refused error
}

// Admit implements exeq.Admitter, for the one execution that the point serves.
func (b *burnThere) Admit(ctx context.Context, p *exeq.Permit, on *exeq.PermitRecord, r *exeq.Request, rights *exeq.Rights) error {
	b.permit, b.on, b.r, b.rights, b.refused = p, on, r, rights, nil
	if err := b.Admitter.Admit(ctx, p, on, r, rights); b.refused == nil {
		return err
	}
	return b.refused // in its own words
}

// Burn implements permit.Burner.
func (b *burnThere) Burn(ctx context.Context, _, _ string, _ exeq.Time) error {
	b.refused = b.at.Admit(ctx, b.permit, b.on, b.r, b.rights)
	return b.refused
}
