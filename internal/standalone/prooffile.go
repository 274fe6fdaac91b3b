package standalone

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ProofFile is where a proof will be written. Its directory is held open from
// before an execution starts, so that what runs cannot lead the supervisor, who
// may write more than it, to another one.
type ProofFile struct {
	path, name string
	dir        *os.Root
}

// NewProofFile checks that a file can be made at path.
func NewProofFile(path string) (*ProofFile, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	p := &ProofFile{path: abs, name: filepath.Base(abs)}
	if p.dir, err = os.OpenRoot(filepath.Dir(abs)); err != nil {
		return nil, fmt.Errorf("the proof cannot be written to %s: %w", path, err)
	}
	info, err := p.dir.Lstat(p.name)
	switch {
	case err == nil && info.IsDir():
		err = errors.New("it is a directory")
	case err == nil, errors.Is(err, fs.ErrNotExist):
		var tmp *os.File
		if tmp, err = p.temporary(); err == nil {
			err = errors.Join(tmp.Close(), p.dir.Remove(filepath.Base(tmp.Name())))
		}
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("the proof cannot be written to %s: %w", path, err)
	}
	return p, nil
}

// Close lets go of the directory.
func (p *ProofFile) Close() error { return p.dir.Close() }

func (p *ProofFile) temporary() (*os.File, error) {
	return p.dir.OpenFile(".proof-"+rand.Text(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// write puts the file in its place, if that is still where its path leads.
func (p *ProofFile) write(b []byte) error {
	was, err := p.dir.Stat(".")
	if err != nil {
		return err
	}
	if now, err := os.Stat(filepath.Dir(p.path)); err != nil || !os.SameFile(was, now) {
		return fmt.Errorf("%s is not the directory any more that it was at the start", filepath.Dir(p.path))
	}
	tmp, err := p.temporary()
	if err != nil {
		return err
	}
	name := filepath.Base(tmp.Name())
	defer p.dir.Remove(name)
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return p.dir.Rename(name, p.name)
}
