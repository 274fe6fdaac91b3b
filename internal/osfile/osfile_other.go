//go:build !unix

package osfile

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// NoFollow is nothing that [os.OpenFile] knows here.
const NoFollow = 0

// Lock refuses: a state directory that two processes write at once is lost.
func Lock(f *os.File, _ Kind) error {
	return fmt.Errorf("a state directory needs a Unix file system, which %s has not: %w", runtime.GOOS, errors.ErrUnsupported)
}
