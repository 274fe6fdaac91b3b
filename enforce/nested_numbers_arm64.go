//go:build linux

package enforce

import "golang.org/x/sys/unix"

const (
	sysMprotect     = unix.SYS_MPROTECT
	sysPkeyMprotect = unix.SYS_PKEY_MPROTECT
)
