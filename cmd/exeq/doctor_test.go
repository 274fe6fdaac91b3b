//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/exeq/exeq/enforce/probe"
)

// TestLimitsAreDocumented holds the security boundary page to the one list of
// limits. EXEQ_WRITE=1 writes the page.
func TestLimitsAreDocumented(t *testing.T) {
	const page, mark = "../../docs/security-boundary.md", "<!-- limits: written by the test in cmd/exeq from enforce/probe -->\n"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, got, ok := strings.Cut(string(b), mark)
	if !ok {
		t.Fatalf("%s has lost its mark", page)
	}
	var want strings.Builder
	for _, l := range probe.Limits() {
		var tiers []string
		for _, tier := range l.Tiers {
			tiers = append(tiers, tier.String())
		}
		fmt.Fprintf(&want, "\n**%s** (%s). %s %s\n", l.ID, strings.Join(tiers, ", "), l.What, l.Instead)
	}
	if got == want.String() {
		return
	}
	if os.Getenv("EXEQ_WRITE") == "" {
		t.Fatalf("%s differs from probe.Limits; EXEQ_WRITE=1 go test ./cmd/exeq -run Limits writes it", page)
	}
	if err := os.WriteFile(page, []byte(head+mark+want.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
