//go:build linux

package filter

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Action is what happens to a system call: a SECCOMP_RET_* value with its data.
type Action uint32

// Actions that carry no data; see [Errno] for the others.
const (
	Allow  Action = unix.SECCOMP_RET_ALLOW
	Notify Action = unix.SECCOMP_RET_USER_NOTIF
	Kill   Action = unix.SECCOMP_RET_KILL_PROCESS
)

// Errno is the action that answers e and does not run the system call.
func Errno(e unix.Errno) Action {
	return Action(unix.SECCOMP_RET_ERRNO | uint32(e)&unix.SECCOMP_RET_DATA)
}

func (a Action) String() string {
	switch {
	case a == Allow:
		return "allow"
	case a == Notify:
		return "notify"
	case a == Kill:
		return "kill"
	case a&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO:
		return unix.ErrnoName(unix.Errno(a & unix.SECCOMP_RET_DATA))
	}
	return fmt.Sprintf("%#x", uint32(a))
}

// Arg is one condition on one argument: (argument & Mask == Value), negated by
// Not. For an argument that the kernel takes as a 32-bit integer Mask has no
// bit above 31: the kernel ignores the upper half, so a rule that looked at it
// could be walked around.
type Arg struct {
	Index int // 0–5
	Mask  uint64
	Value uint64
	Not   bool
}

// Rule says what happens to one system call whose arguments meet every
// condition of When (none: always).
type Rule struct {
	Syscall string
	When    []Arg
	Action  Action
	Reason  string // why, in words for a person; empty for Allow
}

// is matches a 32-bit integer argument that equals v.
func is(i int, v uint32) Arg { return Arg{Index: i, Mask: 0xffffffff, Value: uint64(v)} }

// anyOf matches an argument with at least one bit of mask set.
func anyOf(i int, mask uint32) Arg { return Arg{Index: i, Mask: uint64(mask), Not: true} }

// noneOf matches an argument with no bit of mask set.
func noneOf(i int, mask uint32) Arg { return Arg{Index: i, Mask: uint64(mask)} }

// bits matches an argument whose bits under mask equal v.
func bits(i int, mask, v uint32) Arg { return Arg{Index: i, Mask: uint64(mask), Value: uint64(v)} }

// notNull matches a pointer argument that is not NULL.
func notNull(i int) Arg { return Arg{Index: i, Mask: ^uint64(0), Not: true} }

// Data is struct seccomp_data: what a filter sees of one system call.
type Data struct {
	Number int32
	Arch   uint32 // AUDIT_ARCH_*
	IP     uint64
	Args   [6]uint64
}

func (r *Rule) matches(d *Data) bool {
	for _, a := range r.When {
		if (d.Args[a.Index]&a.Mask == a.Value) == a.Not {
			return false
		}
	}
	return true
}

// Evaluate gives the action for d by reading the table from the top: the
// meaning that the assembled program must have.
func Evaluate(o Options, d Data) (Action, error) {
	arch, err := o.arch()
	if err != nil {
		return Kill, err
	}
	return evaluate(Table(o), arch, &d), nil
}

func evaluate(table []Rule, arch architecture, d *Data) Action {
	if d.Arch != arch.audit {
		return Kill
	}
	if name := nameOf(arch, int(d.Number)); name != "" {
		for i := range table {
			if r := &table[i]; r.Syscall == name && r.matches(d) {
				return r.Action
			}
		}
	}
	return Errno(unix.ENOSYS)
}
