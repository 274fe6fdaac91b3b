// Package edtable verifies many Ed25519 signatures of few keys.
//
// It accepts exactly what crypto/ed25519 accepts: each signature by its own
// equation, [S]B − [k]A = R, of which R must be the encoding. It is faster since
// the multiples of A and B that the two products are made of are computed once
// ([Key.Expect]), so that a product is an addition for each few bits of its
// scalar and nothing is doubled; and since the encodings of several R share one
// inversion. Nothing here is secret, so nothing takes care to last equally long.
//
// It is no batch with random weights (RFC 8032, section 8.2), which for as many
// signatures as a proof has would be about as fast. Such a one accepts what
// crypto/ed25519 refuses, where the holder of a key adds a point of small order
// to R, so that two verifiers are of two minds; it needs randomness; and it does
// not tell which signature is wrong.
package edtable

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"sync"
	"sync/atomic"

	"filippo.io/edwards25519"
)

// Key is a public key. Its methods may be called concurrently.
type Key struct {
	pub    ed25519.PublicKey
	seen   atomic.Int64           // signatures given to Key.Verify
	tables atomic.Pointer[tables] // nil: crypto/ed25519 verifies
}

// tables are of what the products are sums.
type tables struct{ minusA, b *table }

// Fewer signatures than few are sooner verified than a table is made; many are
// worth one of wider digits.
const (
	few, narrow = 16, 6
	many, wide  = 2000, 8
)

// The tables of the base point are made once.
var (
	narrowB = sync.OnceValue(func() *table { return newTable(edwards25519.NewGeneratorPoint(), narrow) })
	wideB   = sync.OnceValue(func() *table { return newTable(edwards25519.NewGeneratorPoint(), wide) })
)

// New gives the key; pub has ed25519.PublicKeySize bytes.
func New(pub ed25519.PublicKey) *Key { return &Key{pub: bytes.Clone(pub)} }

// Expect prepares for n signatures.
func (k *Key) Expect(n int) {
	width, b := narrow, narrowB
	if n >= many {
		width, b = wide, wideB
	}
	if t := k.tables.Load(); n < few || t != nil && t.minusA.width >= width {
		return
	}
	a, err := new(edwards25519.Point).SetBytes(k.pub)
	if err != nil {
		return // crypto/ed25519 refuses whatever it is said to have signed
	}
	k.tables.Store(&tables{newTable(a.Negate(a), width), b()})
}

// Verify reports what ed25519.Verify reports. A key that was asked for often is
// expected to be asked for as often again.
func (k *Key) Verify(message, sig []byte) bool {
	if n := k.seen.Add(1); n == few || n == many {
		k.Expect(int(n))
	}
	return Verify([]Signature{{k, message, sig}})[0]
}

// Signature is a message and what is said to be its signature by a key.
type Signature struct {
	Key          *Key
	Message, Sig []byte
}

// Verify reports of each signature what ed25519.Verify reports.
func Verify(sigs []Signature) []bool {
	ok := make([]bool, len(sigs))
	rs, of := make([]point, 0, len(sigs)), make([]int, 0, len(sigs)) // points R, and whose
	for i := range sigs {
		s := &sigs[i]
		t := s.Key.tables.Load()
		if t == nil {
			ok[i] = ed25519.Verify(s.Key.pub, s.Message, s.Sig)
		} else if r, good := t.r(s); good {
			rs, of = append(rs, r), append(of, i)
		}
	}
	for j, b := range encode(rs) {
		ok[of[j]] = bytes.Equal(b, sigs[of[j]].Sig[:32])
	}
	return ok
}

// r computes R = [S]B − [k]A, unless the signature cannot be one.
func (t *tables) r(s *Signature) (r point, ok bool) {
	if len(s.Sig) != ed25519.SignatureSize {
		return r, false
	}
	scalar, err := new(edwards25519.Scalar).SetCanonicalBytes(s.Sig[32:])
	if err != nil {
		return r, false
	}
	h := sha512.New()
	h.Write(s.Sig[:32])
	h.Write(s.Key.pub)
	h.Write(s.Message)
	k, err := new(edwards25519.Scalar).SetUniformBytes(h.Sum(make([]byte, 0, sha512.Size)))
	if err != nil {
		return r, false
	}
	r = identity()
	t.minusA.addTo(&r, k)
	t.b.addTo(&r, scalar)
	return r, true
}
