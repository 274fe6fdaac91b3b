//go:build linux

package enforce

import (
	"crypto/sha256"
	"os"
	"testing"

	"github.com/exeq/exeq"
)

func digestOfFile(t *testing.T, p string) exeq.Digest {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func supervise([]string) {}
