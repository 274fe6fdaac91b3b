//go:build unix

package osfile

import "syscall"

// PrivateUmask lets this process read and write what it makes, and nobody else
// write it, whatever its caller's umask is; it returns that.
func PrivateUmask() (callers int) {
	callers = syscall.Umask(0o077)
	syscall.Umask(callers&^0o700 | 0o022)
	return callers
}
