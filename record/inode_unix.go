//go:build unix

package record

import (
	"io/fs"
	"strconv"
	"syscall"
)

func inodeOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return strconv.FormatUint(uint64(st.Ino), 10)
}
