package policy

import (
	"regexp"
	"strings"
	"testing"
)

// The names that are read by hand are those of the expressions that say what
// is meant.
func FuzzNames(f *testing.F) {
	expressions := []struct {
		re   *regexp.Regexp
		hand func(string) bool
	}{
		{regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\z`), ruleName},
		{regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z`), shortName},
		{regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,127}\*?|\*)\z`), variableName},
	}
	long := strings.Repeat("a", 127)
	for _, s := range []string{"", "a", "_", "*", "a*", "**", "9", "9*", "_9*", "a.b/c-d", ".a", "a\n", "é", "a é", long, long + "b", long + "bc", long + "b*", long + "bc*", long[:64], long[:65]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, e := range expressions {
			if got, want := e.hand(s), e.re.MatchString(s); got != want {
				t.Errorf("%q: %v, want %v (%s)", s, got, want, e.re)
			}
		}
	})
}
