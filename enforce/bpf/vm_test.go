//go:build linux

package bpf

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq/test/vm"
)

// programs are what the tests of this package start, for the machine.
func programs(t *testing.T) []string {
	t.Helper()
	files := []string{"/usr/bin/env"}
	for _, name := range []string{"sh", "cat", "chmod", "cp", "dd", "ln", "ls", "mount", "mv", "rm", "setsid", "sleep", "touch", "true", "unshare"} {
		files = append(files, real(t, name), "/bin/"+name)
	}
	py := python(t)
	lib, err := filepath.Glob("/usr/lib/" + filepath.Base(py) + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range lib {
		if b := filepath.Base(at); b != "dist-packages" && b != "test" && !strings.HasPrefix(b, "config-") {
			files = append(files, at)
		}
	}
	return append(files, py, "/usr/bin/python3")
}

// TestKernels runs the tests of this package under Debian's kernels, at once:
// each machine has one processor.
func TestKernels(t *testing.T) {
	for _, k := range vm.Kernels() {
		t.Run(k, func(t *testing.T) {
			t.Parallel()
			vm.Test(t, vm.Tests{Kernel: k, Run: "^Test[^GK]", Files: programs(t), Timeout: 20 * time.Minute})
		})
	}
}
