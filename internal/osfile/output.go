package osfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Output is a file that a person asked for by its path. What the path means is
// settled when the Output is made, before an execution may change what lies
// there; its directory, and what is no regular file, are held open until then.
//
//   - A regular file, or none: replaced whole by Put, or left as it is. It keeps
//     its permission bits.
//   - A device, a FIFO, a descriptor that our caller gave (/dev/stdout,
//     /dev/fd/N): written through, never replaced.
//   - A symbolic link: refused. What was governed here before may have made it,
//     and we may write more than that could. One that appears later is replaced,
//     not followed.
//   - A directory, a socket: refused.
type Output struct {
	path, name string
	dir        *os.Root
	mode       fs.FileMode // of the file that will be replaced, or 0
	through    *os.File
}

// NewOutput settles what a path means and checks that it can be written. A FIFO
// is waited for until somebody reads it.
func NewOutput(path string) (*Output, error) {
	o := &Output{}
	if err := o.settle(path); err != nil {
		o.Close()
		return nil, fmt.Errorf("cannot be written to %s: %w", path, err)
	}
	return o, nil
}

func (o *Output) settle(path string) (err error) {
	if o.through, err = descriptor(path); o.through != nil || err != nil {
		return err
	}
	if o.path, err = filepath.Abs(path); err != nil {
		return err
	}
	o.name = filepath.Base(o.path)
	if o.dir, err = os.OpenRoot(filepath.Dir(o.path)); err != nil {
		return err
	}
	info, err := o.dir.Lstat(o.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o.tryTemporary()
	case err != nil:
		return err
	case info.Mode().IsRegular():
		o.mode = info.Mode().Perm()
		return o.tryTemporary()
	case info.IsDir():
		return errors.New("it is a directory")
	case info.Mode()&fs.ModeSymlink != 0:
		to, _ := o.dir.Readlink(o.name)
		return fmt.Errorf("it is a symbolic link, to %q: name the file itself", to)
	case info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe) == 0:
		return fmt.Errorf("it is neither a file, nor a device or FIFO (%s)", info.Mode())
	}
	// What was looked at, and not what may stand there by now.
	if o.through, err = o.dir.OpenFile(o.name, os.O_WRONLY|noTerminal, 0); err != nil {
		return err
	}
	if now, err := o.through.Stat(); err != nil || !os.SameFile(info, now) {
		return errors.New("it was replaced meanwhile")
	}
	return nil
}

// Close lets go of what is held.
func (o *Output) Close() (err error) {
	if o.through != nil {
		err = o.through.Close()
	}
	if o.dir != nil {
		err = errors.Join(err, o.dir.Close())
	}
	return err
}

func (o *Output) temporary() (*os.File, error) {
	return o.dir.OpenFile(".new-"+rand.Text(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
}

func (o *Output) tryTemporary() error {
	tmp, err := o.temporary()
	if err != nil {
		return err
	}
	return errors.Join(tmp.Close(), o.dir.Remove(filepath.Base(tmp.Name())))
}

// Put writes all of the file.
func (o *Output) Put(b []byte) error {
	if o.through != nil {
		_, err := o.through.Write(b)
		return err
	}
	was, err := o.dir.Stat(".")
	if err != nil {
		return err
	}
	if now, err := os.Stat(filepath.Dir(o.path)); err != nil || !os.SameFile(was, now) {
		return fmt.Errorf("%s is not the directory any more that it was at the start", filepath.Dir(o.path))
	}
	tmp, err := o.temporary()
	if err != nil {
		return err
	}
	name := filepath.Base(tmp.Name())
	defer o.dir.Remove(name)
	_, err = tmp.Write(b)
	if err == nil && o.mode != 0 {
		err = tmp.Chmod(o.mode)
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return o.dir.Rename(name, o.name)
}
