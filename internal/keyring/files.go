package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/edsign"
	"github.com/exeq/exeq/internal/osfile"
)

const maxKeyFile = 4 << 10

type signer struct {
	key ed25519.PrivateKey
	id  string
}

func newSigner(key ed25519.PrivateKey) *signer {
	return &signer{key, exeq.KeyID(key.Public().(ed25519.PublicKey))}
}

func (s *signer) KeyID() string              { return s.id }
func (s *signer) Sign(message []byte) []byte { return edsign.Sign(s.key, message) }

// String keeps a key that is printed by mistake out of the output.
func (s *signer) String() string   { return "key " + s.id }
func (s *signer) GoString() string { return s.String() }

type noteSigner struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
}

func (s *noteSigner) Name() string                    { return s.name }
func (s *noteSigner) KeyHash() uint32                 { return s.hash }
func (s *noteSigner) Sign(msg []byte) ([]byte, error) { return edsign.Sign(s.key, msg), nil }
func (s *noteSigner) String() string                  { return "note key " + s.name }
func (s *noteSigner) GoString() string                { return s.String() }

// noteHash is the key hash of C2SP signed-note for Ed25519 (algorithm 1).
func noteHash(name string, pub ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n\x01"))
	h.Write(pub)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// String and GoString keep the keys out of logs.
func (r *Ring) String() string   { return "keys of " + r.origin }
func (r *Ring) GoString() string { return r.String() }

func encodePrivate(key ed25519.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("keyring: " + err.Error()) // only for key types that x509 does not know
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func encodePublic(pub ed25519.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic("keyring: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// readPair reads a role's key and insists that both files are byte for byte
// what create wrote for it: any other byte is damage. While a rotation is under
// way the public file may be that of the next key already.
func readPair(dir, role string) (ed25519.PrivateKey, error) {
	key, err := readKey(dir, role+".key")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, filepath.Join(dir, role+".key"))
		}
		return nil, err
	}
	pub, err := readLimited(filepath.Join(dir, role+".pub"))
	if err != nil {
		return nil, err
	}
	if bytes.Equal(pub, encodePublic(key.Public().(ed25519.PublicKey))) {
		return key, nil
	}
	if next, err := readKey(dir, role+".next"); err == nil && bytes.Equal(pub, encodePublic(next.Public().(ed25519.PublicKey))) {
		return key, nil
	}
	return nil, fmt.Errorf("%w: %s is not the public half of %s.key", ErrDamaged, filepath.Join(dir, role+".pub"), role)
}

// readKey reads one private key file.
func readKey(dir, name string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, name)
	raw, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%w: %s is not a PEM file", ErrDamaged, path)
	}
	// In what encodePrivate writes, and nothing else is taken, the seed is last.
	if n := len(block.Bytes) - ed25519.SeedSize; n > 0 {
		key := edsign.NewKeyFromSeed(block.Bytes[n:])
		if bytes.Equal(encodePrivate(key), raw) {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%w: %s is not an Ed25519 key as exeq writes it", ErrDamaged, path)
}

func readLimited(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, path)
	case err != nil:
		return nil, fmt.Errorf("keyring: %w", err)
	case len(b) > maxKeyFile:
		return nil, fmt.Errorf("%w: %s is over %d bytes", ErrDamaged, path, maxKeyFile)
	}
	return b, nil
}

// readPrivate refuses a key that others could read or write; it judges the
// open file.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|osfile.NoFollow, 0)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("keyring: %s must be a file that only its owner reads (mode 0600, found %v)", path, info.Mode())
	}
	b := make([]byte, maxKeyFile+1)
	n, err := f.Read(b)
	if err != nil || n > maxKeyFile {
		return nil, fmt.Errorf("%w: %s is empty or over %d bytes", ErrDamaged, path, maxKeyFile)
	}
	return b[:n], nil
}

func (r *Ring) readOrigin() error {
	b, err := readLimited(filepath.Join(r.dir, "log.vkey"))
	if err != nil {
		return err
	}
	v, err := note.NewVerifier(strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return fmt.Errorf("%w: log.vkey: %w", ErrDamaged, err)
	}
	r.origin = v.Name()
	if string(b) != r.VerifierKey(exeq.RoleLog)+"\n" {
		return fmt.Errorf("%w: log.vkey is not the verifier key of log.key", ErrDamaged)
	}
	return nil
}

// create writes the whole set into a directory beside and renames it: a crash
// leaves either no keys or all of them.
func create(state string) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	lock, err := os.Open(state)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	defer lock.Close()
	if err := osfile.Lock(lock, osfile.Exclusive); err != nil {
		return fmt.Errorf("keyring: lock %s: %w", state, err)
	}
	if _, err := os.Lstat(dirOf(state)); err == nil {
		return fmt.Errorf("keyring: keys in %s: %w", state, fs.ErrExist)
	}
	tmp := dirOf(state) + ".new"
	if err := os.RemoveAll(tmp); err != nil { // of a run that was killed here
		return fmt.Errorf("keyring: %w", err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	var id [8]byte
	rand.Read(id[:])
	origin := "exeq.local/" + hex.EncodeToString(id[:])
	for _, role := range Roles {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return fmt.Errorf("keyring: %w", err)
		}
		if err := errors.Join(writeFile(tmp, role+".key", encodePrivate(key)), writeFile(tmp, role+".pub", encodePublic(pub))); err != nil {
			return err
		}
		if role == exeq.RoleLog {
			vkey, err := note.NewEd25519VerifierKey(origin, pub)
			if err != nil {
				return fmt.Errorf("keyring: %w", err)
			}
			if err := writeFile(tmp, "log.vkey", []byte(vkey+"\n")); err != nil {
				return err
			}
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dirOf(state)); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	return syncDir(state)
}

// writeFile creates dir/name durably: temporary file, fsync, rename.
func writeFile(dir, name string, b []byte) error {
	mode := fs.FileMode(0o600)
	if !strings.HasSuffix(name, ".key") && !strings.HasSuffix(name, ".next") {
		mode = 0o644
	}
	tmp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|osfile.NoFollow, mode)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		return fmt.Errorf("keyring: write %s: %w", name, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	return nil
}
