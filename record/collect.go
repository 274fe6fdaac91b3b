package record

import (
	"os"
	"path/filepath"

	"github.com/transparency-dev/tessera/api/layout"
)

// edge names the files on which the next integration of a log of n entries
// builds: its last entry bundle and the last tile of each level.
func edge(n int64) []string {
	out := []string{}
	last := n - 1
	out = append(out, layout.EntriesPath(uint64(last/layout.EntryBundleWidth), layout.PartialTileSize(0, uint64(last/layout.EntryBundleWidth), uint64(n))))
	for level := uint64(0); n > 0; level++ {
		size := uint64(n)
		out = append(out, layout.TilePath(level, (size-1)/layout.TileWidth, uint8(size%layout.TileWidth)))
		n /= layout.TileWidth
	}
	return out
}

// collect removes the partial versions of bundles and tiles that have become
// full while the log grew from one published size to another. Every short run
// leaves some; nothing reads them once the full one is there.
func collect(dir string, from, to int64) {
	for level := uint64(0); to/layout.TileWidth > 0; level++ {
		for i := from / layout.TileWidth; i < to/layout.TileWidth; i++ {
			paths := []string{layout.TilePath(level, uint64(i), 0)}
			if level == 0 {
				paths = append(paths, layout.EntriesPath(uint64(i), 0))
			}
			for _, p := range paths {
				// A full version must be there; what cannot be removed only takes room.
				if _, err := os.Lstat(filepath.Join(dir, p)); err == nil {
					_ = os.RemoveAll(filepath.Join(dir, p) + ".p")
				}
			}
		}
		from, to = from/layout.TileWidth, to/layout.TileWidth
	}
}
