//go:build linux

package vm

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// metapackages name Debian's kernels for cloud machines: they depend on the
// package of the newest build.
var metapackages = map[string]string{
	"6.1":  "linux-image-cloud-amd64",
	"6.12": "linux-image-6.12-cloud-amd64", // bookworm-security; before, bookworm-backports
}

// Kernels are those that a job can have.
func Kernels() []string { return slices.Sorted(maps.Keys(metapackages)) }

// kernel gives the path of a kernel's image, downloaded if it is not there yet.
func kernel(ctx context.Context, version string) (string, error) {
	meta, ok := metapackages[version]
	if !ok {
		return "", fmt.Errorf("kernel %q is none of %v", version, Kernels())
	}
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("%w: only amd64 is known", ErrUnavailable)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "exeq-vm")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// One download at a time, also between test binaries.
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}

	pkg, unknown := newest(ctx, version, meta)
	if unknown != nil {
		// What was downloaded before serves where apt knows nothing.
		have, _ := filepath.Glob(filepath.Join(cache, "linux-image-"+version+".*", "boot", "vmlinuz-*"))
		if len(have) > 0 {
			return have[len(have)-1], nil
		}
		return "", unknown
	}
	image := func() string {
		have, _ := filepath.Glob(filepath.Join(cache, pkg, "boot", "vmlinuz-*"))
		return strings.Join(have, "")
	}
	if at := image(); at != "" {
		return at, nil
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
	if err := os.Rename(filepath.Join(dir, "root"), filepath.Join(cache, pkg)); err != nil {
		return "", err
	}
	if at := image(); at != "" {
		return at, nil
	}
	return "", fmt.Errorf("%s has no boot/vmlinuz", pkg)
}

// newest asks apt for the package that the metapackage stands for.
func newest(ctx context.Context, version, meta string) (string, error) {
	if _, err := exec.LookPath("apt-cache"); err != nil {
		return "", fmt.Errorf("%w: kernels come from Debian's packages, and there is no apt", ErrUnavailable)
	}
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", meta).Output()
	m := regexp.MustCompile(`Depends: (linux-image-` + regexp.QuoteMeta(version) + `\.\S+)`).FindSubmatch(out)
	if err != nil || m == nil {
		return "", fmt.Errorf("%w: apt does not know %s (apt-get update?)", ErrUnavailable, meta)
	}
	return string(m[1]), nil
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}
