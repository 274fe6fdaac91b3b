package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSettings: each text is read as the git of this machine reads it.
func TestSettings(t *testing.T) {
	git, gitErr := exec.LookPath("git")
	for _, test := range []struct {
		text string
		want []string // key=value
	}{
		{"[core]\n\thooksPath = tools/h\n", []string{"core.hookspath=tools/h"}},
		{"[core] hooksPath = tools/h\n", []string{"core.hookspath=tools/h"}},
		{"[core]hooksPath=tools/h", []string{"core.hookspath=tools/h"}},
		{"[CoRe]\nHOOKSPATH=tools/h\n", []string{"core.hookspath=tools/h"}},
		{"\xef\xbb\xbf[core]\r\nhooksPath = tools/h\r\n", []string{"core.hookspath=tools/h"}},
		{"[core]\nhooksPath = tools\\\n/h\n", []string{"core.hookspath=tools/h"}},
		{"[core]\nhooksPath = \"tools # ; \"h # x\n", []string{"core.hookspath=tools # ; h"}},
		{"[core]\nhooksPath = \"a\\\\b\\\"\\t\"  ; x\n", []string{"core.hookspath=a\\b\"\t"}},
		{"[core]\nhooksPath = \\\n  tools/h \\\n\n", []string{"core.hookspath=tools/h "}},
		{"[core] # [x]\n; y = z\nhooksPath = # nothing\n", []string{"core.hookspath="}},
		{"[core] [include] path = x [core]\n", []string{"include.path=x [core]"}},
		{"[core] bare hooksPath = x\n", nil},
		{"[core]\nbare\nhooksPath = x\n", []string{"core.hookspath=x"}},
		{"[core \"a\"] hooksPath = x\n", []string{"core.a.hookspath=x"}},
		{"[core.A] hooksPath = x\n", []string{"core.a.hookspath=x"}},
		{"[includeIf \"gitdir:~/\\\"W]\"] path = y\n", []string{"includeif.gitdir:~/\"W].path=y"}},
		{"[includeIf\t \"x\"]path=y", []string{"includeif.x.path=y"}},
		{"[core] a = 1\n[bad\n[core] hooksPath = x\n", []string{"core.a=1"}},
		{"[core] a = 1\nhooksPath = \"x\n", []string{"core.a=1"}},
		{"[core] a = 1\nhooksPath = \\x\n", []string{"core.a=1"}},
		{"[core] a = 1\n_x = y\n[core] hooksPath = x\n", []string{"core.a=1"}},
	} {
		var got []string
		for _, s := range settings([]byte(test.text)) {
			name := s.section
			if s.subsection != "" {
				name += "." + s.subsection
			}
			got = append(got, name+"."+s.key+"="+s.value)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
		if gitErr != nil {
			continue
		}
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(git, "config", "--file", file, "--no-includes", "--list", "-z")
		b, err := c.Output()
		if err != nil {
			continue // a bad line: git does nothing at all
		}
		var says []string
		for kv := range strings.SplitSeq(strings.TrimSuffix(string(b), "\x00"), "\x00") {
			if k, v, ok := strings.Cut(kv, "\n"); ok {
				says = append(says, k+"="+v)
			}
		}
		if !slices.Equal(got, says) {
			t.Errorf("%q: %q, git says %q", test.text, got, says)
		}
	}
	// Both readings of white space inside.
	got := settings([]byte("[core] hooksPath = a\tb\n"))
	if len(got) != 2 || got[0].value != "a\tb" || got[1].value != "a b" {
		t.Errorf("%q", got)
	}
}

// FuzzSettings: any text is read to its end.
func FuzzSettings(f *testing.F) {
	f.Add([]byte("[a \"b\"] c = \"d\\"))
	f.Fuzz(func(t *testing.T, b []byte) { settings(b) })
}
