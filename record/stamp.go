package record

import (
	"fmt"
	"io/fs"
)

// fileStamp changes when a file's content is replaced.
func fileStamp(info fs.FileInfo) string {
	return fmt.Sprintf("%d %d %s", info.Size(), info.ModTime().UnixNano(), inodeOf(info))
}
