//go:build linux

package landlock

import (
	"strings"

	"github.com/exeq/exeq"
)

// Access is a set of uses of a path.
type Access uint8

// The uses that rights distinguish.
const (
	Read Access = 1 << iota
	Write
	Exec
)

func (a Access) String() string {
	var b strings.Builder
	for i, c := range "rwx" {
		if a&(1<<i) != 0 {
			b.WriteRune(c)
		} else {
			b.WriteByte('-')
		}
	}
	return b.String()
}

// Options say what the tier brings beside Landlock.
type Options struct {
	// Labelled grants reads that carry labels. Set it only where every open
	// is put to the supervisor before Landlock would let it through, or where
	// the labels were committed at the start; else they are not granted.
	Labelled bool
	// Gated says that each execution and executable mapping passes another
	// gate (noexec mounts and a store of copies). Executing a file that is
	// allowed by its own path is then granted on its directory, because the
	// copy that covers it is another inode, which a rule on the file does not
	// reach; and what must not be executed is not reported as a mask.
	Gated bool
	// Replaced are directories that the execution's mount namespace covers by
	// a file system of its own ("/proc"). Rules for them and below are not
	// added here but returned in Report.Late.
	Replaced []string
	// Connect and Bind are the TCP ports that stay reachable; Net governs
	// them (and so needs ABI 4).
	Net           bool
	Connect, Bind []uint16
	// Scope keeps abstract unix sockets and signals inside (needs ABI 6).
	Scope bool
	// MinABI refuses an older kernel than the policy's floor; at least the
	// package's MinABI.
	MinABI int
}

// Report is what a ruleset does and does not express. Paths are raw, sorted.
type Report struct {
	ABI               int
	FS, Net, Scoped   uint64 // handled bits
	Rules             []Rule // added
	Late              []Rule // to be added by the execution itself, see Options.Replaced
	Masks             []Mask
	Pins              []string
	Missing           []Missing
	Narrowed, Widened []Difference
}

// Rule is one grant.
type Rule struct {
	Path   string
	Access Access
	Dir    bool
	Bits   uint64 // LANDLOCK_ACCESS_FS_*
}

// Mask is a path within a granted tree that must be left with less: cover it
// by something empty if Leave lacks Read, else bind it onto itself, read-only
// if Leave lacks Write, noexec if it lacks Exec. Masks come parents first; one
// below another whose Leave has more opens the tree again there. A mask must
// be a mount of its own, so that rename and unlink answer EBUSY.
type Mask struct {
	Path  string
	Dir   bool
	Leave Access
	// Over is what Landlock grants there and rights do not.
	Over Access
}

// Missing is a path that does not exist, is a symbolic link or cannot be
// reached by this user, so that neither rule nor mask can be put on it.
type Missing struct {
	Path string
	// Grant is what rights allow there and the ruleset does not give: the
	// execution has less than its rights.
	Grant Access
	// Over is what the ruleset gives there and rights do not: before the
	// release the path must be created and masked, or the launch refused, or
	// each name change put to the supervisor. Leave is what may remain.
	Over, Leave Access
	// Symlink: the path, or a part of it, is a symbolic link.
	Symlink bool
	// Unreachable: a directory on the way may not be searched. The execution
	// cannot either, unless its user owns that directory.
	Unreachable bool
}

// Difference is a use of a path where ruleset and rights differ and no mask
// helps.
type Difference struct {
	Path   string
	Access Access
	Reason string
}

// access maps one cell's access to uses.
func (o *Options) access(a exeq.Access) (u Access) {
	if a.Read && (len(a.Labels) == 0 || o.Labelled) {
		u |= Read
	}
	if a.Write {
		u |= Write
	}
	if a.Exec != exeq.ExecNo {
		u |= Exec
	}
	return u
}
