//go:build !unix

package standalone

import "io/fs"

// Windows has no owner bits; the profile directory is private by its ACL.
func ownedByUs(fs.FileInfo) error { return nil }

func giveToOwner(string, string) error { return nil }
