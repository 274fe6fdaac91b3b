//go:build linux

// Package debian gives tests the files of Debian packages that must not be
// installed where they run: kernels, and daemons that would then start by
// themselves. apt must know them.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ErrUnavailable: this machine cannot have Debian's packages.
var ErrUnavailable = errors.New("not available here")

// Cache is where packages lie unpacked, one directory a package.
func Cache() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "exeq-debian")
	return cache, os.MkdirAll(cache, 0o755)
}

// Unpacked gives the directory that holds a package's files, downloaded if they are
// not there yet; one download at a time, also between test binaries.
func Unpacked(ctx context.Context, pkg string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	at := filepath.Join(cache, pkg)
	if _, err := os.Stat(at); err == nil {
		return at, nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("%w: %s comes from Debian, and there is no apt", ErrUnavailable, pkg)
	}
	dir, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := run(ctx, dir, "apt-get", "-q", "download", pkg); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s gave %d packages", pkg, len(debs))
	}
	if err := run(ctx, dir, "dpkg-deb", "-x", debs[0], "root"); err != nil {
		return "", err
	}
	return at, os.Rename(filepath.Join(dir, "root"), at)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}
