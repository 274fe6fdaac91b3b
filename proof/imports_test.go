package proof_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports: whoever audits offline verification must be able to read all
// of it, so nothing but these may come in.
func TestImports(t *testing.T) {
	allowed := []string{
		"golang.org/x/mod/sumdb/note", // C2SP signed notes
		"golang.org/x/mod/sumdb/tlog", // RFC 6962 proofs
		"github.com/exeq/exeq",        // the nouns
		"github.com/exeq/exeq/internal/canon",
		"github.com/exeq/exeq/proof",
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	if len(got) < 4 {
		t.Fatalf("go list found only %q", got)
	}
	for _, p := range got {
		if !slices.Contains(allowed, p) {
			t.Errorf("proof depends on %s: it imports the standard library, x/mod and Exeq's nouns only", p)
		}
	}
}
