package osfile

import (
	"fmt"
	"io/fs"
	"syscall"
)

// ChangeOf is a file's inode and its change time, which no caller can set.
func ChangeOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d %d.%09d", st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
}
