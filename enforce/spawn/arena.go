//go:build linux

package spawn

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ref is an offset into an arena. 0 is no reference.
type Ref uint64

// Size of an arena. It is address space; memory is used as it is touched.
const arenaSize = 64 << 20

// header stands at the start of an arena.
type header struct {
	// Deadline is the end of the lease on CLOCK_BOOTTIME in nanoseconds: 0
	// none yet, never once it is suspended.
	Deadline int64
	// Lapsed is set by the holder of the lease when it killed the tree.
	Lapsed int64
	// Answers counts what the agent did, so that its parent sees it live.
	Answers int64
	// Failed holds for each role how its list failed.
	Failed [roles]failure
	// Scratch memory of the loops in run.go.
	agent agentMemory
	init  initMemory
	tree  treeMemory
}

// failure is the name of a step, plus one, and what it gave.
type failure struct{ Step, Errno int32 }

// Never is the deadline of a suspended lease.
const Never = int64(1<<63 - 1)

// Arena is memory shared by a process and its clones, at one address in all.
type Arena struct {
	mem  []byte
	base unsafe.Pointer
	next int
}

func newArena() (*Arena, error) {
	mem, err := unix.Mmap(-1, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("spawn: arena: %w", err)
	}
	return &Arena{mem: mem, base: unsafe.Pointer(&mem[0]), next: int(unsafe.Sizeof(header{}))}, nil
}

func (a *Arena) header() *header { return (*header)(a.base) }

// Mark and Release give back what was taken since the mark, once no child
// reads it any more.
func (a *Arena) Mark() Ref     { return Ref(a.next) }
func (a *Arena) Release(m Ref) { a.next = int(m) }

// Reserve takes n zeroed bytes, aligned to eight. It panics when the arena is
// full: callers bound what they put in.
func (a *Arena) Reserve(n int) Ref {
	at := (a.next + 7) &^ 7
	if at+n > len(a.mem) {
		panic("spawn: the arena is full")
	}
	a.next = at + n
	clear(a.mem[at:a.next])
	return Ref(at)
}

// Free tells how many bytes are left.
func (a *Arena) Free() int { return len(a.mem) - a.next - 8 }

// Bytes copies b in.
func (a *Arena) Bytes(b []byte) Ref {
	r := a.Reserve(len(b))
	copy(a.mem[r:], b)
	return r
}

// At is the slice of n bytes at r.
func (a *Arena) At(r Ref, n int) []byte { return a.mem[r : int(r)+n : int(r)+n] }

// Addr is the address of r, as an argument of a system call.
func (a *Arena) Addr(r Ref) uintptr { return uintptr(a.base) + uintptr(r) }

// Str copies s with a NUL and returns its address.
func (a *Arena) Str(s string) uintptr {
	r := a.Reserve(len(s) + 1)
	copy(a.mem[r:], s)
	return a.Addr(r)
}

// Strs copies a NULL-terminated vector of strings and returns its address.
func (a *Arena) Strs(ss []string) uintptr {
	v := a.Reserve(8 * (len(ss) + 1))
	for i, s := range ss {
		a.PutWord(v+Ref(8*i), uint64(a.Str(s)))
	}
	return a.Addr(v)
}

// Struct copies the plain value at p, of n bytes.
func (a *Arena) Struct(p unsafe.Pointer, n uintptr) uintptr {
	return a.Addr(a.Bytes(unsafe.Slice((*byte)(p), n)))
}

// PutWord stores 64 bits, PutInt 32, at r.
func (a *Arena) PutWord(r Ref, v uint64) { *(*uint64)(unsafe.Add(a.base, r)) = v }
func (a *Arena) PutInt(r Ref, v int32)   { *(*int32)(unsafe.Add(a.base, r)) = v }

// Int reads the 32-bit word at r.
func (a *Arena) Int(r Ref) int32 { return atomic.LoadInt32((*int32)(unsafe.Add(a.base, r))) }
