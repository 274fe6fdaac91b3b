//go:build unix

package osfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// OwnedByUs is an error where a file belongs to another user.
func OwnedByUs(info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return errors.New("belongs to another user")
	}
	return nil
}

// RunAs is whom an execution in a workspace runs as: an ordinary user as
// itself, root as the owner of the workspace, which other reports.
func RunAs(workspace string) (uid, gid int, other bool, err error) {
	uid, gid = os.Geteuid(), os.Getegid()
	if uid != 0 {
		return uid, gid, false, nil
	}
	var st syscall.Stat_t
	if err := syscall.Stat(workspace, &st); err != nil {
		return 0, 0, false, &fs.PathError{Op: "stat", Path: workspace, Err: err}
	}
	if st.Uid == 0 {
		return uid, gid, false, nil
	}
	return int(st.Uid), int(st.Gid), true, nil
}
