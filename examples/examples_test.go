// Package examples runs the example scripts: each learns a policy for a real
// command, runs the command under it, and verifies the proof.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// needs names the programs without which an example cannot run.
var needs = map[string][]string{
	"01-go-build":     {"go"},
	"02-git":          {"git"},
	"03-npm-ci":       {"go", "node", "npm"},
	"04-coding-agent": {"go", "npm"},
	"05-data-flow":    {"curl", "python3"},
	"06-sub-agent":    {},
	"07-oversight":    {},
}

// ungoverned stands in for exeq: it runs the command and checks nothing.
const ungoverned = `#!/bin/sh
case $1 in
learn | run)
    while [ "$1" != -- ]; do shift; done
    shift
    exec "$@"
    ;;
esac
`

// The control: what fails without Exeq says nothing about Exeq.
func TestUngoverned(t *testing.T) {
	exeq := filepath.Join(t.TempDir(), "exeq")
	if err := os.WriteFile(exeq, []byte(ungoverned), 0o755); err != nil {
		t.Fatal(err)
	}
	each(t, exeq, "EXEQ_CONTROL=1")
}

func TestGoverned(t *testing.T) {
	exeq := filepath.Join(t.TempDir(), "exeq")
	build := exec.Command("go", "build", "-o", exeq, "../cmd/exeq")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	each(t, exeq)
}

func each(t *testing.T, exeq string, more ...string) {
	scripts, err := filepath.Glob("*/run.sh")
	if err != nil || len(scripts) != len(needs) {
		t.Fatalf("%d examples, want %d (%v)", len(scripts), len(needs), err)
	}
	for _, script := range scripts {
		name := filepath.Dir(script)
		t.Run(name, func(t *testing.T) {
			for _, program := range needs[name] {
				if _, err := exec.LookPath(program); err != nil {
					t.Skipf("this machine has no %s", program)
				}
			}
			c := exec.Command("./" + script)
			c.Env = append(os.Environ(), "EXEQ="+exeq, "OUT="+t.TempDir(), "EXEQ_STATE=")
			c.Env = append(c.Env, more...)
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}
