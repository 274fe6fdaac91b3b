//go:build unix

package record

import (
	"context"
	"net/http"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
)

// newDriver opens Tessera's log in a directory.
func newDriver(ctx context.Context, dir string) (tessera.Driver, error) {
	return posix.New(ctx, posix.Config{Path: dir, HTTPClient: &http.Client{Timeout: witnessTimeout}})
}
