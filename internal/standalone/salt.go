package standalone

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/exeq/exeq/internal/keyring"
)

// saltSize is that of the salt. Behind it the file has a sum of as many bytes:
// another salt would give known subjects new ids without a word.
const saltSize = 16

func saltSum(salt []byte) []byte {
	h := sha256.Sum256(append([]byte("exeq actor salt v1 "), salt...))
	return h[:saltSize]
}

// saltFile reads the salt and makes it on first use. A file of a build that
// wrote no sum gets one now; one that lost its sum, and nothing else, too.
func saltFile(name string) (salt [saltSize]byte, err error) {
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		rand.Read(salt[:])
		// Link, unlike rename, lets the first of several win.
		if err := writeSalt(name, salt[:], os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
			return salt, err
		}
		b, err = os.ReadFile(name)
	case err == nil && len(b) == saltSize:
		if err := writeSalt(name, b, os.Rename); err != nil {
			return salt, err
		}
		return [saltSize]byte(b), nil
	}
	if err != nil {
		return salt, err
	}
	if len(b) != 2*saltSize || string(b[saltSize:]) != string(saltSum(b[:saltSize])) {
		return salt, fmt.Errorf("%w: %s", keyring.ErrDamaged, name)
	}
	return [saltSize]byte(b[:saltSize]), nil
}

// writeSalt makes the file beside its place, and then puts it there.
func writeSalt(name string, salt []byte, put func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".salt-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(append(salt[:saltSize:saltSize], saltSum(salt)...)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return put(f.Name(), name)
}
