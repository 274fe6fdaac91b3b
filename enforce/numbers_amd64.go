//go:build linux

package enforce

import "golang.org/x/sys/unix"

// Numbers of the system calls that may be notified, -1 for those that this
// architecture lacks.
const (
	sysExecve    = unix.SYS_EXECVE
	sysExecveat  = unix.SYS_EXECVEAT
	sysMmap      = unix.SYS_MMAP
	sysMemfd     = unix.SYS_MEMFD_CREATE
	sysOpen      = unix.SYS_OPEN
	sysOpenat    = unix.SYS_OPENAT
	sysCreat     = unix.SYS_CREAT
	sysTruncate  = unix.SYS_TRUNCATE
	sysUnlink    = unix.SYS_UNLINK
	sysUnlinkat  = unix.SYS_UNLINKAT
	sysRmdir     = unix.SYS_RMDIR
	sysRename    = unix.SYS_RENAME
	sysRenameat  = unix.SYS_RENAMEAT
	sysRenameat2 = unix.SYS_RENAMEAT2
	sysAccess    = unix.SYS_ACCESS
	sysConnect   = unix.SYS_CONNECT
	sysSendto    = unix.SYS_SENDTO
	sysLink      = unix.SYS_LINK
	sysLinkat    = unix.SYS_LINKAT
	sysMkdir     = unix.SYS_MKDIR
	sysMkdirat   = unix.SYS_MKDIRAT
	sysMknod     = unix.SYS_MKNOD
	sysMknodat   = unix.SYS_MKNODAT
	sysSymlink   = unix.SYS_SYMLINK
	sysSymlinkat = unix.SYS_SYMLINKAT
	sysChmod     = unix.SYS_CHMOD
	sysFchmodat  = unix.SYS_FCHMODAT
	sysFchmodat2 = unix.SYS_FCHMODAT2
)
