//go:build linux

package spawn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// List is a list of steps under assembly.
type List struct {
	Arena *Arena
	ops   []*Op
	names *[]string
}

// NewList starts a list in the agent's arena.
func (g *Agent) NewList() *List { return &List{Arena: g.arena, names: &g.names} }

// Arg is an argument: a value, or the word that an earlier step stored.
type Arg struct {
	value uintptr
	load  bool
}

// V is a value, Load the 32-bit word at r.
func V[T ~int | ~uint | ~uintptr | ~int32 | ~uint32 | ~uint64 | ~int64](v T) Arg {
	return Arg{value: uintptr(v)}
}
func Load(r Ref) Arg { return Arg{uintptr(r), true} }

// Do appends a system call, named for errors, and returns it to be refined.
func (l *List) Do(name string, nr uintptr, args ...Arg) *Op {
	op := &Op{Nr: nr, Name: int32(len(*l.names))}
	*l.names = append(*l.names, name)
	for i, a := range args {
		op.Args[i] = a.value
		if a.load {
			op.Load |= 1 << i
		}
	}
	l.ops = append(l.ops, op)
	return op
}

// Set replaces the i-th argument of a step.
func (o *Op) Set(i int, a Arg) {
	o.Args[i] = a.value
	o.Load &^= 1 << i
	if a.load {
		o.Load |= 1 << i
	}
}

// Len is the number of steps so far.
func (l *List) Len() int { return len(l.ops) }

// Result makes op store its result and returns where.
func (l *List) Result(op *Op) Ref {
	if op.Out == 0 {
		op.Out = l.Arena.Reserve(8)
	}
	return op.Out
}

// Fork appends a clone with flags (clone3) that runs child as role; the pid is
// stored at the returned reference.
func (l *List) Fork(name string, flags uint64, role Role, child *List) Ref {
	at := child.place()
	pid := l.Arena.Reserve(8)
	args := cloneArgs{Flags: flags, ExitSignal: uint64(unix.SIGCHLD)}
	p := l.Arena.Struct(unsafe.Pointer(&args), unsafe.Sizeof(args))
	op := l.Do(name, stepFork, V(p), V(uint64(at)), V(uint64(role)))
	op.Out = pid
	return pid
}

// cloneArgs is struct clone_args of the first version.
type cloneArgs struct {
	Flags, Pidfd, ChildTid, ParentTid, ExitSignal, Stack, StackSize, TLS uint64
}

// place copies the list, ended, into the arena.
func (l *List) place() Ref {
	ops := append(l.ops, &Op{Nr: stepEnd})
	size := int(unsafe.Sizeof(Op{}))
	r := l.Arena.Reserve(size * len(ops))
	for i := range ops {
		*(*Op)(unsafe.Add(l.Arena.base, int(r)+i*size)) = *ops[i]
	}
	return r
}

// Receive appends a recvmsg on a descriptor that takes n descriptors with one
// message; they stand, as 32-bit words, at the returned references.
func (l *List) Receive(name string, sock Arg, n int) []Ref {
	data := l.Arena.Reserve(8)
	cmsg := l.Arena.Reserve(cmsgHeader + 4*MaxFDs)
	iov := unix.Iovec{Base: (*byte)(unsafe.Add(l.Arena.base, data)), Len: 8}
	piov := l.Arena.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&iov)), unsafe.Sizeof(iov)))
	msg := unix.Msghdr{Iov: (*unix.Iovec)(unsafe.Add(l.Arena.base, piov)), Iovlen: 1,
		Control: (*byte)(unsafe.Add(l.Arena.base, cmsg)), Controllen: cmsgHeader + 4*MaxFDs}
	l.Do(name, unix.SYS_RECVMSG, sock, V(l.Arena.Struct(unsafe.Pointer(&msg), unsafe.Sizeof(msg))), V(unix.MSG_CMSG_CLOEXEC))
	out := make([]Ref, n)
	for i := range out {
		out[i] = cmsg + cmsgHeader + Ref(4*i)
	}
	return out
}

// Send appends a sendmsg of the two words with one descriptor, which the step
// that makes it must store at the returned reference: call Send after that
// step and set its Out.
func (l *List) Send(name string, sock Arg, kind, datum uint32) (fd Ref) {
	data := l.Arena.Reserve(8)
	l.Arena.PutInt(data, int32(kind))
	l.Arena.PutInt(data+4, int32(datum))
	cmsg := l.Arena.Reserve(cmsgHeader + 8)
	h := unix.Cmsghdr{Len: cmsgHeader + 4, Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS}
	copy(l.Arena.At(cmsg, cmsgHeader), unsafe.Slice((*byte)(unsafe.Pointer(&h)), cmsgHeader))
	iov := unix.Iovec{Base: (*byte)(unsafe.Add(l.Arena.base, data)), Len: 8}
	piov := l.Arena.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&iov)), unsafe.Sizeof(iov)))
	msg := unix.Msghdr{Iov: (*unix.Iovec)(unsafe.Add(l.Arena.base, piov)), Iovlen: 1,
		Control: (*byte)(unsafe.Add(l.Arena.base, cmsg)), Controllen: cmsgHeader + 8}
	l.Do(name, unix.SYS_SENDMSG, sock, V(l.Arena.Struct(unsafe.Pointer(&msg), unsafe.Sizeof(msg))), V(unix.MSG_NOSIGNAL))
	return cmsg + cmsgHeader
}

// Tell appends a message of the two words without a descriptor.
func (l *List) Tell(name string, sock Arg, kind, datum uint32) {
	data := l.Arena.Reserve(8)
	l.Arena.PutInt(data, int32(kind))
	l.Arena.PutInt(data+4, int32(datum))
	l.Do(name, unix.SYS_WRITE, sock, V(l.Arena.Addr(data)), V(8))
}
