//go:build linux

package enforce

import (
	"os"
	"os/exec"
	"testing"

	"github.com/exeq/exeq/enforce/internal/nobody"
)

func TestAsNobody(t *testing.T) { nobody.Rerun(t, ".") }

// As root the execution is the workspace's owner.
func TestRootBecomesTheOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	b := newBox(t)
	b.helper()
	for _, p := range []string{b.dir, b.path("helper-program")} {
		if err := os.Chown(p, 1234, 5678); err != nil {
			t.Fatal(err)
		}
	}
	b.want(0, "1234:5678:5678\n", "sh", "-c", "echo $(id -u):$(id -g):$(id -G)")
	b.write("private", "x", 0o600)
	b.refused("open", b.path("private")) // root's
	b.refused("open", "/etc/shadow")
	b.refused("caps")
	b.works("write", b.path("new"))
	if out, err := exec.Command("stat", "-c", "%u:%g", b.path("new")).Output(); string(out) != "1234:5678\n" {
		t.Errorf("the new file is %s, %v", out, err)
	}
	// A program that only its owner may execute.
	p := b.copy("/bin/true", "mine")
	if err := os.Chown(p, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, 0o700); err != nil {
		t.Fatal(err)
	}
	b.works("exec", p)
	// And one that others may not.
	q := b.copy("/bin/true", "others")
	if err := os.Chmod(q, 0o700); err != nil {
		t.Fatal(err)
	}
	b.refused("exec", q)
}
