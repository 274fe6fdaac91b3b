package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/osfile"
)

// Rotate replaces the key of a role and gives the new ring; event says what
// becomes of the old key: [EventRetire] or [EventCompromised]. record must make
// a leaf durable before it returns. The leaf that adds the new key is on record
// before the key is used, the leaf that ends the old one right after, both
// signed as the record then stands: by the issuer key that was in force before,
// and by the one in force after. A rotation that is killed half-way leaves the
// old or the new key in force, and the next Rotate of the role ends it.
//
// The old public key stays beside the keys: what it signed must go on
// verifying. The log's key is the log's identity and is not rotated: a new log
// key is a new installation.
func Rotate(state, role, event string, record func(exeq.Entry) error) (*Ring, error) {
	if role == exeq.RoleLog || !slices.Contains(Roles, role) {
		return nil, fmt.Errorf("keyring: role %q is not rotated", role)
	}
	if event != EventRetire && event != EventCompromised {
		return nil, fmt.Errorf("keyring: a rotation cannot %q the old key", event)
	}
	lock, err := os.Open(state)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	defer lock.Close()
	if err := osfile.Lock(lock, osfile.Exclusive); err != nil {
		return nil, fmt.Errorf("keyring: lock %s: %w", state, err)
	}
	r, err := Open(state)
	if err != nil {
		return nil, err
	}
	next, err := r.nextKey(role)
	if err != nil {
		return nil, err
	}
	pub := next.Public().(ed25519.PublicKey)
	if !r.keys[role].Equal(next) { // else an earlier rotation was killed behind the switch
		e, err := keyLeaf(role, EventAdd, pub, r.Signer(exeq.RoleIssuer))
		if err == nil {
			err = record(e)
		}
		if err != nil {
			return nil, fmt.Errorf("keyring: rotate %s: %w", role, err)
		}
		old := r.Public(role)
		err = errors.Join(writeFile(r.dir, retiredName(role, old), encodePublic(old)), syncDir(r.dir))
		for _, f := range []struct {
			name string
			b    []byte
		}{{role + ".pub", encodePublic(pub)}, {role + ".key", encodePrivate(next)}} {
			if err == nil {
				err = errors.Join(writeFile(r.dir, f.name, f.b), syncDir(r.dir))
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if r, err = Open(state); err != nil {
		return nil, err
	}
	olds := r.retired[role]
	e, err := keyLeaf(role, event, olds[len(olds)-1], r.Signer(exeq.RoleIssuer))
	if err == nil {
		err = record(e)
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: rotate %s: the new key is in force, the end of the old one is not on record: %w", role, err)
	}
	if err := os.Remove(filepath.Join(r.dir, role+".next")); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return r, syncDir(r.dir)
}

// nextKey is the key that a killed rotation had made, or a new one.
func (r *Ring) nextKey(role string) (ed25519.PrivateKey, error) {
	key, err := readKey(r.dir, role+".next")
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return key, errors.Join(writeFile(r.dir, role+".next", encodePrivate(key)), syncDir(r.dir))
}

// retiredName sorts by time: names of one role are given in the order of
// rotations.
func retiredName(role string, pub ed25519.PublicKey) string {
	return role + "." + exeq.NewID() + "." + exeq.KeyID(pub)[:16] + ".retired.pub"
}

// readRetired reads the public keys that a role had before, oldest first.
func (r *Ring) readRetired(role string) error {
	files, err := os.ReadDir(r.dir) // sorted by name
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), role+".") || !strings.HasSuffix(f.Name(), ".retired.pub") {
			continue
		}
		name := filepath.Join(r.dir, f.Name())
		raw, err := readLimited(name)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(raw)
		if block == nil {
			return fmt.Errorf("%w: %s is not a PEM file", ErrDamaged, name)
		}
		any, err := x509.ParsePKIXPublicKey(block.Bytes)
		pub, ok := any.(ed25519.PublicKey)
		if err != nil || !ok || !bytes.Equal(encodePublic(pub), raw) || !strings.Contains(name, exeq.KeyID(pub)[:16]) {
			return fmt.Errorf("%w: %s is not the key that its name says", ErrDamaged, name)
		}
		if !slices.ContainsFunc(r.retired[role], func(k ed25519.PublicKey) bool { return k.Equal(pub) }) && !pub.Equal(r.Public(role)) {
			r.retired[role] = append(r.retired[role], pub)
		}
	}
	return nil
}

// Known are the public keys that a role has and had, the present one last.
// What they signed is judged by where it stands in the log.
func (r *Ring) Known(role string) []ed25519.PublicKey {
	return append(slices.Clone(r.retired[role]), r.Public(role))
}

// NoteVerifiers checks notes that any key of the role promise (or log) signed,
// the present one or one of before.
func (r *Ring) NoteVerifiers(role string) note.Verifiers {
	var all []note.Verifier
	for _, pub := range r.Known(role) {
		vkey, err := note.NewEd25519VerifierKey(r.NoteName(role), pub)
		if err != nil {
			panic("keyring: " + err.Error()) // only a key of another length
		}
		v, err := note.NewVerifier(vkey)
		if err != nil {
			panic("keyring: " + err.Error())
		}
		all = append(all, v)
	}
	return note.VerifierList(all...)
}
