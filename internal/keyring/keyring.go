// Package keyring keeps the keys of one installation by role: who signs
// permits, checkpoints, promises, and what the enforcing side numbers.
//
// Each key is an Ed25519 key in a PKCS#8 PEM file of its own that only its
// owner reads, with its public half beside it, so that openssl and cosign can
// use both. The log's key name is its origin, which holds a random
// installation id and stands in log.vkey.
package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/edsign"
)

// Roles lists the roles that an installation has keys for, in the order in
// which their key leaves are recorded.
var Roles = []string{exeq.RoleIssuer, exeq.RoleLog, exeq.RolePromise, exeq.RoleNode}

// ErrDamaged: the keys are half-written, altered, or not a whole set.
var ErrDamaged = errors.New("keys are damaged")

// Ring is the key set of one installation, in memory. Safe for concurrent use.
type Ring struct {
	dir     string
	origin  string
	keys    map[string]ed25519.PrivateKey
	retired map[string][]ed25519.PublicKey // before the present ones, oldest first
	signer  map[string]*signer
}

// Warm makes the table with which signatures are verified. It rests on no key,
// and whoever verifies first would wait for it: a caller that has something
// else to do first has it done meanwhile.
func Warm() {
	key := edsign.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	ed25519.Verify(key.Public().(ed25519.PublicKey), nil, edsign.Sign(key, nil))
}

// dirOf is where the keys of the state directory are.
func dirOf(state string) string { return filepath.Join(state, "keys") }

// Create makes new keys for the state directory, all or none, durably. When
// keys exist already the error wraps [fs.ErrExist] and nothing changes.
func Create(state string) (*Ring, error) {
	if err := create(state); err != nil {
		return nil, err
	}
	return Open(state)
}

// Open reads the keys of the state directory and checks each private key
// against its public file and the log's against its origin. No keys at all:
// the error wraps [fs.ErrNotExist]. Anything else amiss: [ErrDamaged].
func Open(state string) (*Ring, error) {
	dir := dirOf(state)
	if _, err := os.Lstat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("keyring: no keys in %s: %w", state, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("keyring: %w", err)
	}
	r := &Ring{dir: dir, keys: map[string]ed25519.PrivateKey{}, retired: map[string][]ed25519.PublicKey{}, signer: map[string]*signer{}}
	for _, role := range Roles {
		key, err := readPair(dir, role)
		if err != nil {
			return nil, err
		}
		r.keys[role] = key
		r.signer[role] = newSigner(key)
		if err := r.readRetired(role); err != nil {
			return nil, err
		}
	}
	if err := r.readOrigin(); err != nil {
		return nil, err
	}
	return r, nil
}

// OpenOrCreate opens the keys and creates them on first use; of several
// processes that do so at once, all get the same keys.
func OpenOrCreate(state string) (*Ring, bool, error) {
	r, err := Open(state)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, false, err
	}
	r, err = Create(state)
	if errors.Is(err, fs.ErrExist) {
		r, err = Open(state)
		return r, false, err
	}
	return r, err == nil, err
}

// Signer signs with the key of a role of [Roles]; it panics on any other.
func (r *Ring) Signer(role string) exeq.Signer {
	s, ok := r.signer[role]
	if !ok {
		panic("keyring: no role " + role)
	}
	return s
}

// Public is the public key of a role of [Roles].
func (r *Ring) Public(role string) ed25519.PublicKey {
	return slices.Clone(r.keys[role].Public().(ed25519.PublicKey))
}

// Origin names the log: "exeq.local/" and 16 hexadecimal digits.
func (r *Ring) Origin() string { return r.origin }

// NoteName is the key name of a signed note's signer: the origin for the log,
// origin + "/promise" for promises.
func (r *Ring) NoteName(role string) string {
	switch role {
	case exeq.RoleLog:
		return r.origin
	case exeq.RolePromise:
		return r.origin + "/promise"
	}
	panic("keyring: role " + role + " signs no notes")
}

// NoteSigner signs notes for the roles log and promise.
func (r *Ring) NoteSigner(role string) note.Signer {
	return &noteSigner{name: r.NoteName(role), key: r.keys[role], hash: noteHash(r.NoteName(role), r.Public(role))}
}

// VerifierKey is the C2SP verifier key of the roles log and promise.
func (r *Ring) VerifierKey(role string) string {
	v, err := note.NewEd25519VerifierKey(r.NoteName(role), r.Public(role))
	if err != nil {
		panic("keyring: " + err.Error()) // only a key of another length
	}
	return v
}

// NoteVerifier checks notes of the roles log and promise.
func (r *Ring) NoteVerifier(role string) note.Verifier {
	v, err := note.NewVerifier(r.VerifierKey(role))
	if err != nil {
		panic("keyring: " + err.Error()) // it was made a line above
	}
	return v
}
