//go:build linux

package programs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/exeq/exeq"
)

// sparse makes a file of a size that the disk does not hold.
func sparse(t *testing.T, size int64) *File {
	t.Helper()
	p := filepath.Join(t.TempDir(), "sparse")
	if err := os.WriteFile(p, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p, size); err != nil {
		t.Skipf("the file system takes no sparse file of %d bytes: %v", size, err)
	}
	return resolve(t, p)
}

// A file over the limit is not read, by whichever way.
func TestTooLarge(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "store"))
	f := sparse(t, exeq.MaxProgramBytes+1)
	if _, err := s.Digest(f, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Digest: %v", err)
	}
	if _, err := s.Put(f, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Put: %v", err)
	}
	if _, err := LookPath(f.Path, "", "/", s.dir); !errors.Is(err, ErrTooLarge) {
		t.Errorf("LookPath: %v", err)
	}
}

// A look ends at the next piece when nobody waits for it, and so does waiting
// for somebody else's look; what was half read is not known.
func TestLookEnds(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "store"))
	f := sparse(t, 4*step)
	gone := errors.New("gone")
	asked := 0
	going := func() error {
		if asked++; asked == 2 {
			return gone
		}
		return nil
	}
	for name, look := range map[string]func() error{
		"Digest": func() error { _, err := s.Digest(f, going); return err },
		"Put":    func() error { _, err := s.Put(f, going); return err },
	} {
		if asked = 0; !errors.Is(look(), gone) || asked != 2 {
			t.Errorf("%s: asked %d times", name, asked)
		}
		if _, known := s.cached(f.ID); known {
			t.Errorf("%s: half a file has a digest", name)
		}
		turn := s.reading.at(f.ID)
		if err := turn.take(nil); err != nil {
			t.Fatal(err)
		}
		if asked = 1; !errors.Is(look(), gone) {
			t.Errorf("%s: it waits for a turn that nobody gives", name)
		}
		turn.leave()
	}
	if _, err := s.Digest(f, nil); err != nil {
		t.Error(err)
	}
}
