package proof

import (
	"encoding/base64"
	"fmt"
	"math"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/proof/internal/edtable"
)

// never is the index of an event that has not happened.
const never = math.MaxInt64

// lifetime bounds a key by log indexes.
type lifetime struct {
	key                         *edtable.Key
	added, retired, compromised int64
}

// key gives the public key if it was good for the role at the index.
func (a *Anchors) key(role, id string, index int64) (*edtable.Key, error) {
	k := a.keys[role+" "+id]
	switch {
	case k == nil:
		return nil, fmt.Errorf("key %.12s is not trusted as %s", id, role)
	case index < k.added:
		return nil, fmt.Errorf("%s key %.12s was added at index %d, after index %d", role, id, k.added, index)
	case index >= k.retired:
		return nil, fmt.Errorf("%s key %.12s was retired at index %d", role, id, k.retired)
	case index >= k.compromised:
		return nil, fmt.Errorf("%s key %.12s was marked compromised at index %d", role, id, k.compromised)
	}
	return k.key, nil
}

// expect prepares a key for n signatures.
func (a *Anchors) expect(role, id string, n int) {
	if k := a.keys[role+" "+id]; k != nil {
		k.key.Expect(n)
	}
}

// Apply takes in a key leaf at its index, once its own signature is verified.
func (a *Anchors) Apply(l *exeq.Leaf, index int64) error {
	pub, err := publicKey(l.Body.PublicKey)
	if err != nil {
		return err
	}
	id := l.Body.Role + " " + exeq.KeyID(pub)
	k := a.keys[id]
	switch l.Body.Event {
	case "add":
		// A key of the trust file stays as the trust file has it, and an event
		// that was taken in is not undone by a later "add".
		if k == nil {
			a.keys[id] = &lifetime{key: edtable.New(pub), added: index, retired: never, compromised: never}
		}
	case "retire":
		if k != nil {
			k.retired = min(k.retired, index)
		}
	case "compromised":
		if k != nil {
			k.compromised = min(k.compromised, index)
		}
	default:
		return fmt.Errorf("%w: key event %.40q", exeq.ErrCannotTell, l.Body.Event)
	}
	return nil
}

// ofLog reports whether a key leaf about the log's or the promises' key names
// the one of the trust file; leaves about other roles pass.
func (a *Anchors) ofLog(l *exeq.Leaf) bool {
	switch l.Body.Role {
	case exeq.RoleLog:
		return l.Body.PublicKey == a.logKey
	case exeq.RolePromise:
		return l.Body.PublicKey == a.promiseKey
	}
	return true
}

// signers says which role signs a kind of leaf; a permit's is authenticated by
// the permit it commits to.
var signers = map[exeq.Kind]string{
	exeq.KindPolicy: exeq.RoleIssuer, exeq.KindScope: exeq.RoleIssuer, exeq.KindKey: exeq.RoleIssuer, exeq.KindDenial: exeq.RoleIssuer,
	exeq.KindRevoke: exeq.RoleIssuer, exeq.KindApproval: exeq.RoleApprover, exeq.KindStart: exeq.RoleNode,
	exeq.KindActivity: exeq.RoleNode, exeq.KindAppraisal: exeq.RoleNode, exeq.KindEnd: exeq.RoleNode,
}

// verifyEnclosure checks a node's word on a start, judged at the start's index.
func (a *Anchors) verifyEnclosure(e *exeq.Enclosure, index int64) error {
	key, err := a.key(exeq.RoleNode, e.Key, index)
	if err != nil {
		return err
	}
	msg, err := e.Signable()
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signature)
	if err != nil || !key.Verify(msg, sig) {
		return fmt.Errorf("the signature of node %.12s on the start does not verify", e.Key)
	}
	return nil
}

// VerifyLeaf checks a leaf's signature by the key of its kind's role, judged
// at index.
func (a *Anchors) VerifyLeaf(l *exeq.Leaf, index int64) error {
	return a.verifyLeaf(l, index, l.Signable)
}

func (a *Anchors) verifyLeaf(l *exeq.Leaf, index int64, signable func() ([]byte, error)) error {
	s, err := a.signed(l, index, signable)
	if err == nil && !s.Key.Verify(s.Message, s.Sig) {
		err = badSignature(l)
	}
	return err
}

func badSignature(l *exeq.Leaf) error {
	return fmt.Errorf("the %s leaf's signature does not verify", l.Kind)
}

// signed finds what a leaf's signature has to be of, and by which key.
func (a *Anchors) signed(l *exeq.Leaf, index int64, signable func() ([]byte, error)) (s edtable.Signature, err error) {
	role, signed := signers[l.Kind]
	if !signed {
		return s, fmt.Errorf("a %s leaf carries no signature of its own", l.Kind)
	}
	if s.Key, err = a.key(role, l.Key, index); err != nil {
		return s, err
	}
	if s.Sig, err = base64.StdEncoding.Strict().DecodeString(l.Signature); err != nil {
		return s, fmt.Errorf("the %s leaf's signature is not base64", l.Kind)
	}
	s.Message, err = signable()
	return s, err
}
