package osfile

import (
	"errors"
	"io/fs"
	"os"
)

// RemoveTree removes a directory of this user's and all in it, also where who
// wrote there took the owner's own rights from parts of it. Nobody may write
// there any more.
func RemoveTree(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := openToOwner(dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	unlock(root, 0)
	root.Close()
	return os.RemoveAll(dir)
}

// openToOwner gives the owner a directory's rights back; a link or what belongs
// to another is left as it is.
func openToOwner(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || OwnedByUs(info) != nil || info.Mode().Perm()&0o700 == 0o700 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// maxLockedDepth bounds the descriptors that unlock holds at once.
const maxLockedDepth = 128

// unlock gives the owner the rights of the directories in root back; what it
// cannot change, the caller's removal reports. A root is never left by a link.
func unlock(root *os.Root, depth int) {
	dir, err := root.Open(".")
	if err != nil {
		return
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			root.Chmod(e.Name(), 0o700)
			if depth == maxLockedDepth {
				continue
			}
			if below, err := root.OpenRoot(e.Name()); err == nil {
				unlock(below, depth+1)
				below.Close()
			}
		}
		if err != nil {
			return
		}
	}
}
