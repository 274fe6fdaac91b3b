// Package edsign makes Ed25519 keys and signatures (RFC 8032), byte for byte
// those of crypto/ed25519, without its first use costing a millisecond.
//
// crypto/ed25519 computes a table of multiples of the base point when a process
// signs first, 256 inversions. A process that makes ten signatures in its life
// spends more on the table than on them. Here the table is data of the program.
// Scalars and the curve are those of filippo.io/edwards25519, which is the
// standard library's code, made public; that package only lacks a way to be
// given a table. Of our own is the sum over it: the same digits, additions and
// constant-time selections as its ScalarBaseMult.
package edsign

import (
	"crypto/ed25519"
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// NewKeyFromSeed is [ed25519.NewKeyFromSeed]: it panics if the seed has not
// [ed25519.SeedSize] bytes.
func NewKeyFromSeed(seed []byte) ed25519.PrivateKey {
	if len(seed) != ed25519.SeedSize {
		panic("edsign: bad seed length")
	}
	s, _ := expand(seed)
	return append(append(make([]byte, 0, ed25519.PrivateKeySize), seed...), baseMult(s).Bytes()...)
}

// Sign is [ed25519.Sign]: key is one of [NewKeyFromSeed] or of crypto/ed25519,
// and it panics if it has another length.
func Sign(key ed25519.PrivateKey, message []byte) []byte {
	if len(key) != ed25519.PrivateKeySize {
		panic("edsign: bad private key length")
	}
	seed, public := key[:ed25519.SeedSize], key[ed25519.SeedSize:]
	s, prefix := expand(seed)
	r := uniform(prefix[:], message)
	signature := append(make([]byte, 0, ed25519.SignatureSize), baseMult(r).Bytes()...)
	k := uniform(signature, public, message)
	return append(signature, new(edwards25519.Scalar).MultiplyAdd(k, s, r).Bytes()...)
}

// expand gives the secret scalar and the prefix of a seed.
func expand(seed []byte) (*edwards25519.Scalar, [32]byte) {
	h := sha512.Sum512(seed)
	s, err := new(edwards25519.Scalar).SetBytesWithClamping(h[:32])
	if err != nil {
		panic("edsign: " + err.Error()) // only for another length
	}
	return s, [32]byte(h[32:])
}

// uniform is the scalar that SHA-512 gives for the parts.
func uniform(parts ...[]byte) *edwards25519.Scalar {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	s, err := new(edwards25519.Scalar).SetUniformBytes(h.Sum(make([]byte, 0, sha512.Size)))
	if err != nil {
		panic("edsign: " + err.Error()) // only for another length
	}
	return s
}
