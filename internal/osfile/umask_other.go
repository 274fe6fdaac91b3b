//go:build !unix

package osfile

// PrivateUmask is nothing here.
func PrivateUmask() (callers int) { return 0 }
