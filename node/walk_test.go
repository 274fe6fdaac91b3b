//go:build linux

package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWalk: where every file system is ours, it comes to what the kernel's own
// walk comes to, or is refused where that is.
func TestWalk(t *testing.T) {
	w := newScopeWorld(t)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	for _, name := range []string{"f", "a/f", "a/b/f", "a/b/c/f"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	for name, to := range map[string]string{
		"l": "a", "m": "l/b/", "a/up": "..", "a/b/abs": dir + "/a", "a/b/far": "../../m/c", "loop": "loop", "a/pool": "../pool", "pool": "a/pool",
		"none": "nothing", "tof": "a/f", "root": "/",
	} {
		must(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	names := []string{"a", "b", "c", "f", "l", "m", "up", "abs", "far", "loop", "pool", "none", "tof", ".", "..", "", "nothing"}
	came, refused := 0, 0
	for range 20_000 {
		path := dir
		for range rand.IntN(6) {
			path += "/" + names[rand.IntN(len(names))]
		}
		for _, links := range []bool{false, true} {
			how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
			if !links {
				how.Resolve |= unix.RESOLVE_NO_SYMLINKS
			}
			// A slash or a dot behind a file is the kernel's to refuse: no statement
			// has one (exeq.CheckPath), and nothing is executed by one.
			if rest := strings.TrimSuffix(path, "/"); rest != path || strings.HasSuffix(path, "/.") {
				continue
			}
			want, werr := opened(unix.Openat2(unix.AT_FDCWD, path, &how))
			got, gerr := opened(w.node.walk(path, links, nil))
			if want != got || (werr == nil) != (gerr == nil) || errors.Is(werr, unix.ELOOP) != errors.Is(gerr, unix.ELOOP) {
				t.Fatalf("%s (links %t): %s, %v; the kernel comes to %s, %v", path, links, got, gerr, want, werr)
			}
			if werr == nil {
				came++
			} else {
				refused++
			}
		}
	}
	if came < 1000 || refused < 1000 {
		t.Errorf("%d came to something, %d were refused: that shows little", came, refused)
	}
}

// opened identifies what a descriptor names, and closes it.
func opened(fd int, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return fmt.Sprint(st.Dev, " ", st.Ino), err
}
