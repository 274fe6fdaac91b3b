//go:build linux

package peers

import (
	"os/exec"
	"strings"
	"testing"
)

// TestCedarCorpus: the engine in use, at the version of go.mod, agrees with
// the cases that Cedar's Rust implementation generated and its authors ship.
func TestCedarCorpus(t *testing.T) {
	out, err := exec.Command("go", "test", "-v", "-run", "^TestCorpus$", "github.com/cedar-policy/cedar-go").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.4000s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS"); n < 7000 {
		t.Errorf("only %d cases of the corpus ran", n)
	}
}
