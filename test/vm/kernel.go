//go:build linux

package vm

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"

	"github.com/exeq/exeq/test/debian"
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
	pkg, unknown := newest(ctx, version, meta)
	if unknown != nil {
		// What was downloaded before serves where apt knows nothing.
		cache, err := debian.Cache()
		if err != nil {
			return "", err
		}
		have, _ := filepath.Glob(filepath.Join(cache, "linux-image-"+version+".*", "boot", "vmlinuz-*"))
		if len(have) > 0 {
			return have[len(have)-1], nil
		}
		return "", unknown
	}
	dir, err := debian.Unpacked(ctx, pkg)
	if err != nil {
		return "", err
	}
	have, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(have) != 1 {
		return "", fmt.Errorf("%s has no boot/vmlinuz", pkg)
	}
	return have[0], nil
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
