//go:build linux && (amd64 || arm64)

package standalone

import (
	"os"

	"github.com/exeq/exeq/enforce/spawn"
)

// startAfter starts a program in a session of its own once this process has
// ended, with file as its descriptor 3.
func startAfter(program string, argv, env []string, file *os.File) error {
	return spawn.After(program, argv, env, "/", file)
}
