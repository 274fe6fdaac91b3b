package proof

import (
	"strings"
	"testing"
)

// TestDowngradesAreGathered: a person reads each reason once, with all that it
// is said of.
func TestDowngradesAreGathered(t *testing.T) {
	var b strings.Builder
	f := Facts{Downgrades: []string{"/w/.env: is not there: yet", "quota: counted", "/tmp -w-: narrowed: a mount", "/w/.idea: is not there: yet", "alone"}}
	f.text(&b)
	for _, want := range []string{
		"not enforced: /w/.env, /w/.idea: is not there: yet\n", "not enforced: quota: counted\n", "not enforced: alone\n",
		"\nnarrowed: /tmp -w-: a mount\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
