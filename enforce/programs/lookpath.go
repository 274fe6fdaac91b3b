//go:build linux

package programs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Command is the program that `exeq run` is asked to start.
type Command struct {
	// File is open for reading; what is executed is this inode.
	File *os.File
	// Path is its canonical raw path.
	Path   string
	SHA256 exeq.Digest
	// Privileged as File.Privileged says.
	Privileged string
}

// LookPath finds command as execvp would in directory dir with the search
// path pathEnv, opens it and gives the digest of what it opened; of a large
// program the one that the store, a directory, has on record, if any. An empty or relative entry
// of the search path is skipped, because it would run what lies in whatever
// directory one stands in; a command with a slash is taken as it is.
func LookPath(command, pathEnv, dir, store string) (*Command, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("programs: directory %q is not absolute", dir)
	}
	if command == "" {
		return nil, fmt.Errorf("programs: no command: %w", os.ErrNotExist)
	}
	if command == "." || command == ".." {
		return nil, fmt.Errorf("programs: %s: %w, and no command", command, unix.EISDIR)
	}
	if strings.Contains(command, "/") {
		if !filepath.IsAbs(command) {
			command = dir + "/" + command
		}
		return open(command, store)
	}
	var first error
	var relative string
	for _, d := range filepath.SplitList(pathEnv) {
		if !filepath.IsAbs(d) {
			if c, err := open(filepath.Join(dir, d, command), store); err == nil && relative == "" {
				c.File.Close()
				if relative = filepath.Join(d, command); filepath.IsLocal(relative) {
					relative = "./" + relative
				}
			}
			continue
		}
		c, err := open(d+"/"+command, store)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, unix.EISDIR) {
			continue // a directory of that name is no command
		}
		if errors.Is(err, unix.EACCES) && unix.Faccessat(unix.AT_FDCWD, d, unix.X_OK, unix.AT_EACCESS) != nil {
			continue // a directory that may not be looked into
		}
		if first == nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			first = err
		}
	}
	if relative != "" {
		name := exeq.EncodeBytes(relative)
		return nil, fmt.Errorf("programs: %s: found %s through a relative PATH entry: name it %s", exeq.EncodeBytes(command), name, name)
	}
	if first == nil {
		first = fmt.Errorf("programs: %s: %w in $PATH", exeq.EncodeBytes(command), os.ErrNotExist)
	}
	return nil, first
}

func open(name, store string) (*Command, error) {
	f, err := ownProcess().Resolve(unix.AT_FDCWD, name, FollowLast)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Dir() {
		return nil, fmt.Errorf("programs: %s: %w", f.Path, unix.EISDIR)
	}
	if f.Stale {
		return nil, fmt.Errorf("programs: %s changed while it was looked up", exeq.EncodeBytes(name))
	}
	// AT_EACCESS on the descriptor: the permission to execute this inode.
	if err := unix.Faccessat(unix.AT_FDCWD, fdPath(f.fd), unix.X_OK, unix.AT_EACCESS); err != nil {
		if errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w: it may not be executed (chmod +x it, or name what it is for: sh FILE)", err)
		}
		return nil, fmt.Errorf("programs: %s: %w", f.Path, err)
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	d, known := recall(store, f.ID)
	if !known {
		if d, _, _, err = hash(r, time.Now(), nil); err != nil {
			r.Close()
			return nil, err
		}
	}
	return &Command{File: r, Path: f.Path, SHA256: d, Privileged: f.Privileged()}, nil
}
