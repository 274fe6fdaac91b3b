//go:build linux

package spawn

import "golang.org/x/sys/unix"

// Op is one step of a list. Its layout is read by children: plain words only.
type Op struct {
	// Nr is a system call number or one of the steps below.
	Nr   uintptr
	Args [6]uintptr
	// Load has a bit for each argument that is an offset into the arena of a
	// 32-bit word (file descriptors, pids) rather than a value.
	Load uint32
	// Want is the errno that the call must give, 0 for success.
	Want int32
	// Flags say which other outcomes are tolerated.
	Flags uint32
	// OnOK and OnError skip that many following steps after success, and
	// after a tolerated failure.
	OnOK, OnError int32
	// Out is an offset where the 32-bit result is stored after success; 0 is
	// nowhere.
	Out Ref
	// Name is the index of the step's name, for errors.
	Name int32
}

// Steps that are no system call.
const (
	// stepFork clones: Args[0] are the flags for clone3, Args[1] the offset of
	// the child's list, Args[2] its length, Args[3] the child's role.
	stepFork = 1<<20 + iota
	// stepEnd ends the list.
	stepEnd
)

// Outcomes that a step tolerates.
const (
	// Absent tolerates ENOENT, ENOTDIR, EACCES and ELOOP: what this process
	// cannot reach, a child of it with less rights cannot reach either.
	Absent = 1 << iota
	// Ignore tolerates every errno.
	Ignore
	// Refused wants any errno at all: success is the failure.
	Refused
)

func (o *Op) tolerates(e int32) bool {
	switch {
	case o.Flags&(Ignore|Refused) != 0:
		return true
	case o.Flags&Absent != 0:
		return e == int32(unix.ENOENT) || e == int32(unix.ENOTDIR) || e == int32(unix.EACCES) || e == int32(unix.ELOOP)
	}
	return false
}
