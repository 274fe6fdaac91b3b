package standalone

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/exeq/exeq/internal/keyring"
)

// TestSalt: every flipped bit and every cut is found, except that which takes
// the sum alone; a file of 16 bytes is one that had none yet.
func TestSalt(t *testing.T) {
	name := filepath.Join(t.TempDir(), "actor.salt")
	salt, err := saltFile(name)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil || len(whole) != 2*saltSize {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for bit := range 8 * len(whole) {
		b := append([]byte{}, whole...)
		b[bit/8] ^= 1 << (bit % 8)
		put(b)
		if _, err := saltFile(name); !errors.Is(err, keyring.ErrDamaged) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
	for n := range whole {
		put(whole[:n])
		switch got, err := saltFile(name); {
		case n == saltSize && (err != nil || got != salt):
			t.Fatalf("without a sum: %v", err)
		case n != saltSize && !errors.Is(err, keyring.ErrDamaged):
			t.Fatalf("%d bytes: %v", n, err)
		}
		if n == saltSize {
			if b, err := os.ReadFile(name); err != nil || string(b) != string(whole) {
				t.Fatalf("it got no sum: %x, %v", b, err)
			}
		}
	}
}
