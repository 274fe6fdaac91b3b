//go:build linux

package enforce

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/internal/osfile"
)

// What an execution needs in the launch's scratch directory is nearly always
// the same and never changed: the canary, and an empty directory on which its
// covers are mounted. These props are made once and looked at before each use.
// An execution that needs more, or that finds the props not as they were made,
// has a directory of its own.
const (
	propsName     = "props"
	scratchPrefix = "execution-"
)

// makeScratch readies the props and removes what a killed supervisor left.
func (s *launching) makeScratch() error {
	root := s.launch.Scratch
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	osfile.SweepDirs(root, scratchPrefix, removeAll)
	props := filepath.Join(root, propsName)
	err := checkProps(props)
	if errors.Is(err, os.ErrNotExist) {
		err = installProps(root, props)
	}
	if err == nil {
		s.props = props
		return nil
	}
	s.opt.Logger.Warn("the props of executions are not as they were made", "dir", props, "err", err)
	if s.props, err = s.ownScratch(); err != nil {
		return err
	}
	return makeProps(s.props)
}

// ownScratch is the execution's own directory; it is held as long as the
// execution lives.
func (s *launching) ownScratch() (string, error) {
	if s.own != "" {
		return s.own, nil
	}
	dir, held, err := osfile.HeldDir(s.launch.Scratch, scratchPrefix)
	if err != nil {
		return "", fmt.Errorf("scratch directory: %w", err)
	}
	s.onUndo(func() { removeAll(dir) })
	s.onUndo(func() { held.Close() })
	s.own = dir
	return dir, nil
}

func (s *launching) canaryPath() string { return filepath.Join(s.props, "canary") }

// coversPath is where the execution's covers are mounted: see mounter.covers.
func (s *launching) coversPath() string { return filepath.Join(s.props, "covers") }

// slotPath is where the mounts of removed programs go.
func (s *launching) slotPath() string { return filepath.Join(s.coversPath(), "grave", "slot") }

// prop is one file or directory of the props.
type prop struct {
	name    string
	mode    os.FileMode
	content []byte
}

func props() []prop {
	return []prop{{"canary", 0o755, canaryProgram()}, {"covers", os.ModeDir | 0o700, nil}}
}

func makeProps(dir string) error {
	for _, p := range props() {
		name := filepath.Join(dir, p.name)
		if p.mode.IsDir() {
			if err := os.Mkdir(name, p.mode.Perm()); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(name, p.content, p.mode.Perm()); err != nil {
			return err
		}
		if err := os.Chmod(name, p.mode.Perm()); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

// installProps makes props beside and renames them: whoever finds them finds all
// of them, and never sees one that is still written to.
func installProps(root, dir string) error {
	tmp, held, err := osfile.HeldDir(root, scratchPrefix)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := makeProps(tmp); err != nil {
		removeAll(tmp)
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE); err != nil {
		removeAll(tmp)
		if err != unix.EEXIST {
			return err
		}
	}
	return checkProps(dir)
}

// checkProps reports whether the props are those that makeProps makes. They are
// this user's and nothing governed reaches them: it looks for accidents.
func checkProps(dir string) error {
	if err := checkProp(dir, os.ModeDir|0o700, nil); err != nil {
		return err
	}
	for _, p := range props() {
		name := filepath.Join(dir, p.name)
		if err := checkProp(name, p.mode, p.content); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				err = fmt.Errorf("%s is missing", name)
			}
			return err
		}
	}
	return nil
}

func checkProp(name string, mode os.FileMode, content []byte) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if err := osfile.OwnedByUs(info); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if info.Mode().Type() != mode.Type() || info.Mode().Perm() != mode.Perm() {
		return fmt.Errorf("%s: mode %v, not %v", name, info.Mode(), mode)
	}
	if mode.IsDir() {
		return nil
	}
	if info.Size() != int64(len(content)) {
		return fmt.Errorf("%s: %d bytes, not %d", name, info.Size(), len(content))
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, content) {
		return errors.Join(fmt.Errorf("%s: other bytes", name), err)
	}
	return nil
}
