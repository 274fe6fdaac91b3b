package standalone

import (
	"fmt"
	"os"

	"github.com/exeq/exeq/internal/osfile"
)

// An execution's temporary directory is held while its supervisor lives.
const temporaryPrefix = "exeq-run-"

// newTemporary makes a held directory for an execution in a workspace, and
// gives it to whom that runs as; cleanup removes it.
func newTemporary(workspace string) (dir string, cleanup func() error, err error) {
	dir, held, err := osfile.HeldDir("", temporaryPrefix)
	if err != nil {
		return "", nil, fmt.Errorf("temporary directory: %w", err)
	}
	cleanup = func() error {
		defer held.Close()
		if err := osfile.RemoveTree(dir); err != nil {
			return fmt.Errorf("the execution's temporary directory is left: %w", err)
		}
		return nil
	}
	uid, gid, other, err := osfile.RunAs(workspace)
	if err == nil && other {
		err = os.Lchown(dir, uid, gid)
	}
	if err != nil {
		cleanup()
		return "", nil, fmt.Errorf("temporary directory: %w", err)
	}
	return dir, cleanup, nil
}

// Sweep removes the temporary directories of this user's executions whose
// supervisor was killed. What root gave to the owner of a workspace is theirs to
// sweep.
func Sweep() {
	osfile.SweepDirs("", temporaryPrefix, func(dir string) { osfile.RemoveTree(dir) })
}
