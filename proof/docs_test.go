package proof_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// TestDocs: the worked example of docs/ is a real execution that still
// verifies, and the pages show what it holds. EXEQ_UPDATE=1 rewrites the pages.
func TestDocs(t *testing.T) {
	docs := filepath.Join("..", "docs")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	p, err := proof.Parse(read("example/proof.json"))
	if err != nil {
		t.Fatal(err)
	}
	tr, err := proof.ParseTrust(read("example/trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := proof.Verify(p, tr, proof.Options{Replay: prooftest.Replay})
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != proof.Valid || report.Line(proof.CheckReplay).Status != proof.Proved {
		t.Fatalf("the worked example no longer verifies:\n%s", report.Text())
	}
	examples := map[string]string{"report": report.Text(), "trust": string(read("example/trust.json"))}
	start := []byte(p.Leaves[1])
	examples["start"] = indent(t, start)
	l, err := exeq.ParseLeaf(start)
	if err != nil || l.Kind != exeq.KindStart {
		t.Fatal("the second leaf of the example is not its start", err)
	}
	for _, d := range p.Disclosures {
		switch {
		case d.Field == "permit":
			var text string
			var e exeq.Envelope
			if err := json.Unmarshal(d.Value, &text); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				t.Fatal(err)
			}
			payload, err := base64.StdEncoding.DecodeString(e.Payload)
			if err != nil {
				t.Fatal(err)
			}
			examples["permit"] = indent(t, payload)
		case d.Field == "applied" && d.Leaf == l.ID:
			examples["applied"] = indent(t, d.Value)
		}
	}
	for _, r := range p.Receipts {
		if r.Leaf == l.ID {
			examples["receipt"] = r.Proof
		}
	}
	used := map[string]bool{}
	for _, page := range []string{"proof.md", "trust.md", "permit.md", "record.md"} {
		old := string(read(page))
		now := fill(t, page, old, examples, used)
		if now == old {
			continue
		}
		if os.Getenv("EXEQ_UPDATE") == "" {
			t.Errorf("docs/%s does not show what the example holds: EXEQ_UPDATE=1 go test ./proof -run TestDocs", page)
			continue
		}
		if err := os.WriteFile(filepath.Join(docs, page), []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name := range examples {
		if !used[name] {
			t.Errorf("no page shows the example's %s", name)
		}
	}
}

// fill puts examples into the fences behind their marks.
func fill(t *testing.T, page, text string, examples map[string]string, used map[string]bool) string {
	t.Helper()
	const mark = "<!-- example: "
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, mark)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, rest, _ := strings.Cut(rest, " -->\n")
		fence, rest, _ := strings.Cut(rest, "\n")
		_, after, closed := strings.Cut("\n"+rest, "\n```\n")
		what, known := examples[name]
		if !known || !closed || !strings.HasPrefix(fence, "```") {
			t.Fatalf("docs/%s: the example %q has no fence or is unknown", page, name)
		}
		used[name] = true
		out.WriteString(mark + name + " -->\n" + fence + "\n" + strings.TrimRight(what, "\n") + "\n```\n")
		text = after
	}
}

func indent(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
