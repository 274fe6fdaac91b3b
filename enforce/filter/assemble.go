//go:build linux

package filter

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data; both architectures are little endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// MaxInstructions is what the kernel takes for one filter (BPF_MAXINSNS).
const MaxInstructions = 4096

// Assemble turns the table of o into a seccomp program.
//
// The program checks the architecture, then finds the system call by binary
// search over ranges that share a fate, so the cost is logarithmic; a call
// that is always allowed meets no other instruction, which lets the kernel
// answer it from its own bitmap without running the program at all. openat, the
// most frequent of those that it cannot answer so, is looked for before the others.
func Assemble(o Options) ([]unix.SockFilter, error) {
	arch, err := o.arch()
	if err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	ranges, err := fates(Table(o), arch)
	if err != nil {
		return nil, err
	}
	tree, err := search(ranges)
	if err != nil {
		return nil, err
	}
	prog := []unix.SockFilter{
		load(offArch),
		jump(unix.BPF_JEQ, arch.audit, 1, 0),
		ret(Kill),
		load(offNumber),
	}
	if n, ok := byName("openat"); ok && n.on(arch) >= 0 {
		nr := uint32(n.on(arch))
		if code := fateOf(ranges, nr); len(code) <= 255 {
			prog = append(append(prog, jump(unix.BPF_JEQ, nr, 0, uint8(len(code)))), code...)
		}
	}
	prog = append(prog, tree...)
	if len(prog) > MaxInstructions {
		return nil, fmt.Errorf("filter: %d instructions, the kernel takes %d", len(prog), MaxInstructions)
	}
	return prog, nil
}

// fate is what happens to the system calls first … next range's first - 1.
type fate struct {
	first uint32
	code  []unix.SockFilter // ends in a return on every path
}

// fates lays the table out over the whole range of numbers.
func fates(table []Rule, arch architecture) ([]fate, error) {
	type row struct{ nr, rule int }
	rows := make([]row, 0, len(table))
	for i, r := range table {
		n, ok := byName(r.Syscall)
		if !ok {
			return nil, fmt.Errorf("filter: the table names %q, which is no system call", r.Syscall)
		}
		if nr := n.on(arch); nr >= 0 {
			rows = append(rows, row{nr, i})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.nr - b.nr })
	absent := []unix.SockFilter{ret(Errno(unix.ENOSYS))}
	out := make([]fate, 1, len(rows))
	out[0] = fate{0, absent}
	put := func(first int, code []unix.SockFilter) {
		last := &out[len(out)-1]
		switch {
		case slices.Equal(last.code, code):
		case last.first == uint32(first):
			last.code = code
		default:
			out = append(out, fate{uint32(first), code})
		}
	}
	rules := make([]Rule, 0, 16)
	next := 0 // the first number not laid out yet
	for i := 0; i < len(rows); {
		nr := rows[i].nr
		for rules = rules[:0]; i < len(rows) && rows[i].nr == nr; i++ {
			rules = append(rules, table[rows[i].rule])
		}
		code, err := body(rules)
		if err != nil {
			return nil, fmt.Errorf("filter: %s: %w", rules[0].Syscall, err)
		}
		if nr > next {
			put(next, absent)
		}
		put(nr, code)
		next = nr + 1
	}
	put(next, absent)
	return out, nil
}

// fateOf gives the code for one number.
func fateOf(ranges []fate, nr uint32) []unix.SockFilter {
	i, found := slices.BinarySearchFunc(ranges, nr, func(f fate, nr uint32) int { return cmp.Compare(f.first, nr) })
	if !found {
		i-- // the first range begins at 0
	}
	return ranges[i].code
}

// search gives a binary search tree over ranges, the number in the accumulator.
func search(ranges []fate) ([]unix.SockFilter, error) {
	if len(ranges) == 1 {
		return ranges[0].code, nil
	}
	mid := len(ranges) / 2
	low, err := search(ranges[:mid])
	if err != nil {
		return nil, err
	}
	high, err := search(ranges[mid:])
	if err != nil {
		return nil, err
	}
	var code []unix.SockFilter
	if pivot := ranges[mid].first; len(low) <= 255 {
		code = append(code, jump(unix.BPF_JGE, pivot, uint8(len(low)), 0))
	} else {
		// A conditional jump reaches 255 instructions, an absolute one all.
		code = append(code, jump(unix.BPF_JGE, pivot, 0, 1),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(low))})
	}
	return append(append(code, low...), high...), nil
}

// body gives the code for one system call's rules, in order, ENOSYS at the end.
func body(rules []Rule) ([]unix.SockFilter, error) {
	var code []unix.SockFilter
	for _, r := range rules {
		if len(r.When) == 0 {
			return append(code, ret(r.Action)), nil
		}
		var conds []unix.SockFilter
		var fails []int // instructions whose "no" must reach the next rule
		for _, a := range r.When {
			if a.Index < 0 || a.Index > 5 || a.Mask == 0 || a.Value&^a.Mask != 0 {
				return nil, errors.New("a condition that is malformed or cannot match")
			}
			conds, fails = condition(conds, fails, a)
		}
		conds = append(conds, ret(r.Action))
		for _, i := range fails {
			skip := len(conds) - i - 1
			if skip > 255 {
				return nil, errors.New("too many conditions in one rule")
			}
			if conds[i].Jf == fail {
				conds[i].Jf = uint8(skip)
			}
			if conds[i].Jt == fail {
				conds[i].Jt = uint8(skip)
			}
		}
		code = append(code, conds...)
	}
	return append(code, ret(Errno(unix.ENOSYS))), nil
}

// fail marks a jump that body resolves; no condition jumps that far itself.
const fail = 255

// condition appends the test of a. Halves that the mask leaves out are not read.
func condition(code []unix.SockFilter, fails []int, a Arg) ([]unix.SockFilter, []int) {
	type half struct{ off, mask, value uint32 }
	var halves []half
	for i := range 2 {
		if m := uint32(a.Mask >> (32 * i)); m != 0 {
			halves = append(halves, half{uint32(offArgs + 8*a.Index + 4*i), m, uint32(a.Value >> (32 * i))})
		}
	}
	for i, h := range halves {
		code = append(code, load(h.off))
		if h.mask != 0xffffffff {
			code = append(code, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: h.mask})
		}
		last := i == len(halves)-1
		switch {
		case !a.Not: // every half must be equal
			code = append(code, jump(unix.BPF_JEQ, h.value, 0, fail))
			fails = append(fails, len(code)-1)
		case last: // the last half that could differ
			code = append(code, jump(unix.BPF_JEQ, h.value, fail, 0))
			fails = append(fails, len(code)-1)
		default: // one half that differs is enough: leap over the other
			rest := uint8(2) // load and jump
			if halves[i+1].mask != 0xffffffff {
				rest++
			}
			code = append(code, jump(unix.BPF_JEQ, h.value, 0, rest))
		}
	}
	return code, fails
}

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func ret(a Action) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(a)}
}

// Install puts prog in force for the calling thread, or with
// SECCOMP_FILTER_FLAG_TSYNC for every thread of the process. With
// SECCOMP_FILTER_FLAG_NEW_LISTENER it returns the listener, else -1. The thread
// needs no_new_privs, which Install sets.
func Install(prog []unix.SockFilter, flags uint) (listener int, err error) {
	if len(prog) == 0 || len(prog) > MaxInstructions {
		return -1, fmt.Errorf("filter: a program of %d instructions", len(prog))
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("filter: no_new_privs: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return -1, fmt.Errorf("filter: seccomp: %w", errno)
	}
	if flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		return int(fd), nil
	}
	if fd != 0 {
		return -1, fmt.Errorf("filter: thread %d could not be synchronised", fd)
	}
	return -1, nil
}
