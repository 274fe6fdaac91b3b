//go:build !unix

package record

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/transparency-dev/tessera"
)

// newDriver refuses: Tessera's POSIX log, which is the only one here, is what
// its name says.
func newDriver(context.Context, string) (tessera.Driver, error) {
	return nil, fmt.Errorf("a log cannot be written on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
