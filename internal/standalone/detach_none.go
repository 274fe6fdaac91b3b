//go:build !linux || !(amd64 || arm64)

package standalone

import (
	"errors"
	"os"
)

func startAfter(string, []string, []string, *os.File) error { return errors.ErrUnsupported }
