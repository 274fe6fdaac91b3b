//go:build linux

package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Trust is one file of the trust directory: an issuer, the promise key of its
// log, and the users whose executions it may permit. `exeq trust export --node`
// prints one.
type Trust struct {
	Version int    `json:"v"`       // 1
	Issuer  []byte `json:"issuer"`  // Ed25519 public key
	Promise string `json:"promise"` // C2SP verifier key, named origin + "/promise"
	UIDs    []int  `json:"uids"`
	// Scopes: it may declare mandatory scopes here, which hold others than its
	// users, and lift its own.
	Scopes bool `json:"scopes,omitempty"`
}

// trusted is a Trust ready to use.
type trusted struct {
	issuer  ed25519.PublicKey
	promise note.Verifier
	uids    []int
	scopes  bool
	key     string // promise, as written
}

// DecodeTrust reads one trust file strictly.
func DecodeTrust(b []byte) (*Trust, error) {
	var t Trust
	if err := canon.Decode(b, &t, canon.Limits{Bytes: maxTrustFile, Depth: 3}); err != nil {
		return nil, err
	}
	_, err := t.ready()
	return &t, err
}

func (t *Trust) ready() (*trusted, error) {
	if t.Version != 1 {
		return nil, fmt.Errorf("%w: version %d", exeq.ErrCannotTell, t.Version)
	}
	if len(t.Issuer) != ed25519.PublicKeySize {
		return nil, errors.New("issuer: not an Ed25519 public key")
	}
	v, err := note.NewVerifier(t.Promise)
	if err != nil || !strings.HasSuffix(v.Name(), "/promise") {
		return nil, errors.New("promise: not the verifier key of a log's promises")
	}
	if len(t.UIDs) == 0 || slices.Min(t.UIDs) < 0 {
		return nil, errors.New("uids: at least one user, by number")
	}
	return &trusted{ed25519.PublicKey(t.Issuer), v, t.UIDs, t.Scopes, t.Promise}, nil
}

// readTrust reads the directory. One file that is not right is an error for
// all: what somebody meant to say there is not known.
func readTrust(dir string) ([]*trusted, error) {
	d, err := openOwned(dir, unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(maxTrustFiles + 1)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if len(names) > maxTrustFiles {
		return nil, fmt.Errorf("trust: more than %d files in %s", maxTrustFiles, dir)
	}
	var out []*trusted
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		t, err := readTrustFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed: nobody says anything there (a link is ELOOP)
		}
		if err != nil {
			return nil, fmt.Errorf("trust: %s: %w", name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func readTrustFile(path string) (*trusted, error) {
	f, err := openOwned(path, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTrustFile+1))
	if err != nil {
		return nil, err
	}
	t, err := DecodeTrust(b)
	if err != nil {
		return nil, err
	}
	return t.ready()
}

// openOwned opens what only this user can have written.
func openOwned(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		f.Close()
		return nil, fmt.Errorf("%s: others can write it (owner %d, mode %#o)", path, st.Uid, st.Mode&0o7777)
	}
	return f, nil
}

// KeyID is the issuer's key id.
func (t *Trust) KeyID() string { return exeq.KeyID(t.Issuer) }
