package osfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// HeldDir makes a directory in parent ("": that for temporary files) whose name
// begins with prefix. It is locked until held is closed, so that what a killed
// process left can be told from what is in use; see SweepDirs.
func HeldDir(parent, prefix string) (dir string, held *os.File, err error) {
	for range 10 {
		if dir, err = os.MkdirTemp(parent, prefix); err != nil {
			return "", nil, err
		}
		held, err = os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept before it was locked
		}
		if err == nil {
			if err = Lock(held, Try); errors.Is(err, errors.ErrUnsupported) {
				err = nil // nothing is swept there either
			}
		}
		if err == nil && stands(held, dir) {
			return dir, held, nil
		}
		held.Close()
		if err != nil && !errors.Is(err, ErrHeld) {
			os.RemoveAll(dir)
			return "", nil, err
		}
	}
	return "", nil, errors.New("removed as often as it is made")
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

// SweepDirs has those directories removed that HeldDir made for this user and
// that nobody holds. Of those that belong to another it removes none: nobody's
// name makes another's directory root's to remove.
func SweepDirs(parent, prefix string, remove func(dir string)) {
	if parent == "" {
		parent = os.TempDir()
	}
	all, err := os.Open(parent)
	if err != nil {
		return
	}
	names, _ := all.Readdirnames(-1)
	all.Close()
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		dir := filepath.Join(parent, name)
		f, err := os.OpenFile(dir, os.O_RDONLY|NoFollow, 0)
		if errors.Is(err, fs.ErrPermission) && openToOwner(dir) == nil {
			f, err = os.OpenFile(dir, os.O_RDONLY|NoFollow, 0)
		}
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() && OwnedByUs(info) == nil && Lock(f, Try) == nil && stands(f, dir) {
			remove(dir)
		}
		f.Close()
	}
}
