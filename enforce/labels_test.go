//go:build linux

package enforce

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

func TestLabelledReads(t *testing.T) {
	b := newBox(t)
	b.write("pii/sub/people.csv", "alice\n", 0o644)
	b.write("pii/top.csv", "bob\n", 0o644)
	b.write("plain.txt", "plain\n", 0o644)
	secret := b.write("one.txt", "carol\n", 0o644)
	if err := os.Symlink("pii/top.csv", b.path("link")); err != nil {
		t.Fatal(err)
	}
	pii := exeq.Access{Read: true, Labels: []string{"pii"}}
	for _, p := range []string{b.path("pii"), secret} {
		b.rights.Cells = append(b.rights.Cells, exeq.Cell{Path: p, At: pii, Under: pii})
	}
	slices.SortFunc(b.rights.Cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
	read := func(want string, asked int, script string) {
		t.Helper()
		b.gate.forget()
		code, out := b.run("sh", "-c", script)
		if out != want || (want != "" && code != 0) {
			t.Errorf("%s: exit %d, %q, want %q", script, code, out, want)
		}
		if n := b.gate.asked(exeq.ActionRead, ""); n != asked {
			t.Errorf("%s: the gate was asked %d times, want %d", script, n, asked)
		}
	}
	read("plain\n", 0, "cat plain.txt")
	read("alice\n", 1, "cat pii/sub/people.csv")
	read("bob\n", 1, "cat "+b.path("pii/top.csv"))
	read("bob\n", 1, "cat link")
	read("bob\n", 1, "cat plain/../pii/top.csv 2>/dev/null || cat ./pii/../pii/top.csv")
	read("carol\n", 1, "cat one.txt")
	read("bob\n", 1, "cd pii && cat top.csv")
	read("alice\n", 1, "cd pii/sub && cat people.csv")
	read("6 pii/sub/people.csv\n", 0, "stat -c '%s %n' pii/sub/people.csv") // names and sizes are no read
	read("sub\ntop.csv\n", 1, "ls pii")
	read("pii/sub/people.csv:alice\n", 4, "grep -r alice pii") // two directories and two files
	// Nothing else gets at the bytes.
	for _, script := range []string{
		"ln pii/top.csv copy && cat copy", "mv pii other && cat other/top.csv", "mv pii/top.csv x && cat x",
		"echo changed > pii/top.csv", "rm pii/top.csv", "ln one.txt two && cat two",
	} {
		b.gate.forget()
		if code, out := b.run("sh", "-c", script); code == 0 || strings.Contains(out, "bob") || strings.Contains(out, "carol") {
			t.Errorf("%s: exit %d, %q", script, code, out)
		}
	}
	// A denial is an error, not an empty file.
	b.gate.deny = func(a exeq.Activity) bool { return a.Action == exeq.ActionRead }
	if code, out := b.run("cat", "pii/top.csv"); code == 0 || !strings.Contains(out, "Operation not permitted") {
		t.Errorf("exit %d %q", code, out)
	}
}
