//go:build linux

package landlock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWalkPath: where there is no openat2, the same is opened and refused.
func TestWalkPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for _, err := range []error{
		os.MkdirAll(in("a", "b"), 0o755), os.WriteFile(in("a", "f"), nil, 0o644),
		os.Symlink("a", in("link")), os.Symlink("f", in("a", "last")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"/", dir, in("a"), in("a", "b"), in("a", "f"), in("a", "no"), in("a", "f", "x"),
		in("link", "b"), in("link", "no"), "/proc/self/fd"} {
		var got unix.Stat_t
		fd, want, wantErr := openPath(p)
		if wantErr == nil {
			unix.Close(fd)
		}
		fd, err := walkPath(p)
		if err == nil {
			err = unix.Fstat(fd, &got)
			unix.Close(fd)
		}
		if !errors.Is(wantErr, err) && !errors.Is(err, errors.Unwrap(wantErr)) || got.Ino != want.Ino || got.Dev != want.Dev {
			t.Errorf("%s: inode %d (%v), want %d (%v)", p, got.Ino, err, want.Ino, wantErr)
		}
	}
	// The last component may be a link here, as for openPath: cell judges it.
	fd, st, err := openPath(in("a", "last"))
	if err == nil {
		unix.Close(fd)
	}
	fd, werr := walkPath(in("a", "last"))
	if werr == nil {
		var got unix.Stat_t
		unix.Fstat(fd, &got)
		unix.Close(fd)
		if got.Mode&unix.S_IFMT != unix.S_IFLNK || err == nil && got.Ino != st.Ino {
			t.Errorf("a last link: mode %o", got.Mode)
		}
	} else if !errors.Is(err, werr) {
		t.Errorf("a last link: %v, want %v", werr, err)
	}
}
