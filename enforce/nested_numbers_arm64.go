//go:build linux

package enforce

import "golang.org/x/sys/unix"

const (
	sysMprotect     = unix.SYS_MPROTECT
	sysPkeyMprotect = unix.SYS_PKEY_MPROTECT
)

// result is what a system call that has just ended answered.
func result(r *unix.PtraceRegs) int64 { return int64(r.Regs[0]) }
