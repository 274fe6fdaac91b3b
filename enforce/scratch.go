//go:build linux

package enforce

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/exeq/exeq/internal/osfile"
)

const scratchPrefix = "execution-"

// makeScratch makes the execution's own directory (the canary, what covers
// masked paths) below the launch's scratch and holds its lock as long as the
// execution has it. A directory that nobody holds is what a killed supervisor
// left behind, and goes.
func (s *launching) makeScratch() error {
	root := s.launch.Scratch
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	all, err := os.Open(root)
	if err != nil {
		return err
	}
	defer all.Close()
	// So that nobody sees a directory that is made and not yet held.
	if err := osfile.Lock(all, osfile.Exclusive); err != nil {
		return fmt.Errorf("lock %s: %w", root, err)
	}
	names, err := all.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, scratchPrefix) {
			sweep(filepath.Join(root, name))
		}
	}
	dir, err := os.MkdirTemp(root, scratchPrefix)
	if err != nil {
		return err
	}
	s.dir = dir
	s.onUndo(func() { removeAll(dir) })
	held, err := os.Open(dir)
	if err != nil {
		return err
	}
	s.onUndo(func() { held.Close() })
	return osfile.Lock(held, osfile.Try)
}

// sweep removes a directory that nobody holds. One that cannot be removed costs
// room and nothing else.
func sweep(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if osfile.Lock(f, osfile.Try) == nil {
		removeAll(dir)
	}
}
