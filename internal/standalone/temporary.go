package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/exeq/exeq/internal/osfile"
)

// An execution's temporary directory is locked while its supervisor lives, so
// that what a killed one left can be told from what is in use.
const temporaryPrefix = "exeq-run-"

// newTemporary makes a locked directory; cleanup removes it.
func newTemporary() (dir string, cleanup func(), err error) {
	for range 10 {
		if dir, err = os.MkdirTemp("", temporaryPrefix); err != nil {
			return "", nil, fmt.Errorf("temporary directory: %w", err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // swept before it was locked
		}
		if err == nil {
			if err = osfile.Lock(f, osfile.Try); errors.Is(err, errors.ErrUnsupported) {
				err = nil // nothing is swept there either
			}
		}
		if err == nil && stands(f, dir) {
			return dir, func() { os.RemoveAll(dir); f.Close() }, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, osfile.ErrHeld) {
			os.RemoveAll(dir)
			return "", nil, fmt.Errorf("temporary directory: %w", err)
		}
	}
	return "", nil, errors.New("temporary directory: removed as often as it is made")
}

// stands reports whether a path still leads to an open file.
func stands(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// Sweep removes the temporary directories of this user's executions whose
// supervisor was killed. What root gave to the owner of a workspace is theirs to
// sweep: nobody's name makes another's directory root's to remove.
func Sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*"))
	for _, dir := range dirs {
		f, err := os.OpenFile(dir, os.O_RDONLY|osfile.NoFollow, 0)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil && ownedByUs(info) == nil && osfile.Lock(f, osfile.Try) == nil && stands(f, dir) {
			os.RemoveAll(dir)
		}
		f.Close()
	}
}
