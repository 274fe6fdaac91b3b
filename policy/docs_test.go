package policy

import (
	"os"
	"strings"
	"testing"
)

// The worked example in docs/policy.md loads, and its cases pass.
func TestDocsExample(t *testing.T) {
	b, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	src := &Source{Version: 1, Files: map[string]string{"work.cedar": block(t, string(b), "```cedar\n"),
		EntitiesFile: block(t, string(b), "`entities.json`:\n\n```json\n"), SettingsFile: block(t, string(b), "`settings.json`:\n\n```json\n")}}
	for _, p := range Check(src) {
		t.Error(p)
	}
	results, err := mustLoad(t, src).Test("tests.json", []byte(block(t, string(b), "`exeq policy test`:\n\n```json\n")))
	if err != nil || len(results) == 0 {
		t.Fatal(results, err)
	}
	for _, r := range results {
		if r.Failure != "" {
			t.Errorf("%s: %s", r.Name, r.Failure)
		}
	}
	for _, o := range strings.Split(knownObligations, ", ") {
		if !strings.Contains(string(b), "`"+o+"`") {
			t.Errorf("docs/policy.md does not name the obligation %s", o)
		}
	}
	for k := range contextKeys {
		if !strings.Contains(string(b), "`"+string(k)+"`") {
			t.Errorf("docs/policy.md does not name context.%s", k)
		}
	}
}

// block gives the text between a head and the closing fence.
func block(t *testing.T, doc, head string) string {
	t.Helper()
	_, rest, ok := strings.Cut(doc, head)
	text, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("docs/policy.md has no block behind %q", head)
	}
	return text
}
