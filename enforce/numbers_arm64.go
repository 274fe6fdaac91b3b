//go:build linux

package enforce

import "golang.org/x/sys/unix"

// Numbers of the system calls that may be notified, negative and distinct for
// those that this architecture lacks.
const (
	sysExecve    = unix.SYS_EXECVE
	sysExecveat  = unix.SYS_EXECVEAT
	sysMmap      = unix.SYS_MMAP
	sysMemfd     = unix.SYS_MEMFD_CREATE
	sysOpen      = -1
	sysOpenat    = unix.SYS_OPENAT
	sysCreat     = -2
	sysTruncate  = unix.SYS_TRUNCATE
	sysUnlink    = -3
	sysUnlinkat  = unix.SYS_UNLINKAT
	sysRmdir     = -4
	sysRename    = -5
	sysRenameat  = unix.SYS_RENAMEAT
	sysRenameat2 = unix.SYS_RENAMEAT2
	sysAccess    = -6
	sysConnect   = unix.SYS_CONNECT
	sysSendto    = unix.SYS_SENDTO
	sysLink      = -10
	sysLinkat    = unix.SYS_LINKAT
	sysMkdir     = -11
	sysMkdirat   = unix.SYS_MKDIRAT
	sysMknod     = -12
	sysMknodat   = unix.SYS_MKNODAT
	sysSymlink   = -13
	sysSymlinkat = unix.SYS_SYMLINKAT
	sysChmod     = -14
	sysFchmodat  = unix.SYS_FCHMODAT
	sysFchmodat2 = unix.SYS_FCHMODAT2
)
