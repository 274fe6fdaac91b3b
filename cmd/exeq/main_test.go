//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/exeq/exeq/node/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"exeq": main, "liar": liar})
}

// TestSessions runs the command line as people do; each file is one session.
func TestSessions(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			for _, dir := range []string{home, filepath.Join(e.WorkDir, "work")} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
			}
			e.Setenv("HOME", home)
			e.Setenv("EXEQ_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv(wire.Variable, filepath.Join(e.WorkDir, "no-node"))
			// testscript's own exeq is a link to this test; inside an execution
			// a real program is wanted.
			self, err := os.Executable()
			if err != nil {
				return err
			}
			e.Setenv("EXEQ", self)
			e.Setenv("TMPDIR", filepath.Join(e.WorkDir, ".tmp"))
			return os.MkdirAll(filepath.Join(e.WorkDir, ".tmp"), 0o755)
		},
	})
}
