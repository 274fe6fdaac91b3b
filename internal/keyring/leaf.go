package keyring

import (
	"encoding/base64"
	"fmt"

	"github.com/exeq/exeq"
)

// Events of a key leaf.
const (
	EventAdd         = "add"
	EventRetire      = "retire"
	EventCompromised = "compromised"
)

// NewKeyLeaf is the key leaf that adds, retires or marks compromised the
// present key of a role, signed by the issuer.
func (r *Ring) NewKeyLeaf(role, event string) (exeq.Entry, error) {
	return keyLeaf(role, event, r.Public(role), r.Signer(exeq.RoleIssuer))
}

// Leaves are the key leaves that a new installation records first: one "add"
// for each role.
func (r *Ring) Leaves() ([]exeq.Entry, error) {
	out := make([]exeq.Entry, 0, len(Roles))
	for _, role := range Roles {
		e, err := r.NewKeyLeaf(role, EventAdd)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func keyLeaf(role, event string, pub []byte, by exeq.Signer) (exeq.Entry, error) {
	switch event {
	case EventAdd, EventRetire, EventCompromised:
	default:
		return exeq.Entry{}, fmt.Errorf("keyring: unknown key event %q", event)
	}
	return exeq.NewEntry(exeq.Leaf{Kind: exeq.KindKey, Body: exeq.LeafBody{
		Role: role, Event: event, PublicKey: base64.StdEncoding.EncodeToString(pub),
	}}, nil, by)
}
