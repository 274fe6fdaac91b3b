//go:build linux

package filter

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run interprets prog over d as the kernel's classic BPF does, for the
// instructions that seccomp takes; false for any program it would not load.
func run(prog []unix.SockFilter, d *Data) (Action, bool) {
	var mem [64]byte
	binary.LittleEndian.PutUint32(mem[0:], uint32(d.Number))
	binary.LittleEndian.PutUint32(mem[4:], d.Arch)
	binary.LittleEndian.PutUint64(mem[8:], d.IP)
	for i, a := range d.Args {
		binary.LittleEndian.PutUint64(mem[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || in.K >= 64 {
				return 0, false
			}
			acc = binary.LittleEndian.Uint32(mem[in.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(acc >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return Action(in.K), true
		default:
			return 0, false
		}
	}
	return 0, false
}

// options spreads the bits of v over every field.
func options(v uint64) Options {
	o := Options{Arch: architectures[v&1].name, Notify: Class(v>>1) & AllClasses}
	for i, b := range []*bool{&o.Inet, &o.PrivateNet, &o.Unix, &o.UnixDatagram, &o.MemfdSealed, &o.Ptrace, &o.Openat2, &o.Shared} {
		*b = v>>(32+i)&1 == 1
	}
	if o.Notify&(OpenRead|OpenWrite|OpenNew) != 0 {
		o.Openat2 = false
	}
	return o
}

func compare(t *testing.T, o Options, table []Rule, prog []unix.SockFilter, d Data) {
	t.Helper()
	arch, err := o.arch()
	if err != nil {
		t.Fatal(err)
	}
	want := evaluate(table, arch, &d)
	got, ok := run(prog, &d)
	if !ok || got != want {
		t.Fatalf("%+v: call %d (%s) arch %#x args %#x: program says %v (valid %v), table says %v",
			o, d.Number, nameOf(arch, int(d.Number)), d.Arch, d.Args, got, ok, want)
	}
}

func FuzzProgram(f *testing.F) {
	f.Add(uint64(0), int32(0), uint32(unix.AUDIT_ARCH_X86_64), uint64(0), uint64(0), uint64(0), uint64(0), uint64(0))
	f.Add(^uint64(0), int32(0x40000001), uint32(unix.AUDIT_ARCH_X86_64), uint64(1), uint64(2), uint64(6), uint64(0), uint64(1<<32))
	f.Fuzz(func(t *testing.T, opts uint64, nr int32, arch uint32, a, b, c, d, e uint64) {
		o := options(opts)
		prog, err := Assemble(o)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, o, Table(o), prog, Data{Number: nr, Arch: arch, Args: [6]uint64{a, b, c, d, e, 0}})
	})
}

// TestProgramEqualsTable compares both over every number, with arguments taken
// from around the table's own conditions.
func TestProgramEqualsTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 24 {
		o := options(rng.Uint64())
		switch round {
		case 0:
			o = Options{Arch: "amd64"}
		case 1:
			o = Options{Arch: "arm64", Notify: AllClasses, Inet: true, PrivateNet: true, Unix: true}
		}
		prog, err := Assemble(o)
		if err != nil {
			t.Fatal(err)
		}
		table := Table(o)
		arch, err := o.arch()
		if err != nil {
			t.Fatal(err)
		}
		conds := map[string][]Arg{}
		for _, r := range table {
			conds[r.Syscall] = append(conds[r.Syscall], r.When...)
		}
		for nr := int32(-2); nr < 480; nr++ {
			args := conds[nameOf(arch, int(nr))]
			for range 4 + 12*len(args) {
				d := Data{Number: nr, Arch: arch.audit}
				for i := range d.Args {
					d.Args[i] = rng.Uint64() >> (rng.Uint64() % 64)
				}
				for _, a := range args { // near each condition
					if rng.IntN(3) == 0 {
						continue
					}
					v := a.Value | rng.Uint64()&^a.Mask
					switch rng.IntN(4) {
					case 0:
						v ^= 1 << rng.IntN(64)
					case 1:
						v &= 0xffffffff
					}
					d.Args[a.Index] = v
				}
				compare(t, o, table, prog, d)
			}
		}
		for _, nr := range []int32{0x40000000, 0x40000001, 0x40000200, 0x7fffffff, -1, -0x80000000} {
			compare(t, o, table, prog, Data{Number: nr, Arch: arch.audit})
		}
		for _, a := range []uint32{0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, arch.audit ^ 1} {
			compare(t, o, table, prog, Data{Number: 1, Arch: a})
		}
	}
}

// TestConditionOf64Bits: the table has few such conditions, so the code for
// them is compared on rules of the test's own.
func TestConditionOf64Bits(t *testing.T) {
	values := []uint64{0, 1, 1 << 31, 1 << 32, 1<<32 | 1, ^uint64(0), 0xffffffff << 32, 0xffffffff}
	for _, mask := range values[1:] {
		for _, v := range values {
			for _, not := range []bool{false, true} {
				table := []Rule{
					{"read", []Arg{{Index: 3, Mask: mask, Value: v & mask, Not: not}, is(0, 7)}, Kill, ""},
					{"read", []Arg{{Index: 3, Mask: mask, Value: v & mask, Not: not}}, Notify, ""},
					{"read", nil, Allow, ""},
				}
				arch, _ := Options{Arch: "amd64"}.arch()
				ranges, err := fates(table, arch)
				if err != nil {
					t.Fatal(err)
				}
				code, err := search(ranges)
				if err != nil {
					t.Fatal(err)
				}
				prog := append([]unix.SockFilter{load(offNumber)}, code...)
				for _, x := range values {
					for _, first := range []uint64{7, 8, 7 | 1<<40} {
						compare(t, Options{Arch: "amd64"}, table, prog,
							Data{Number: 0, Arch: arch.audit, Args: [6]uint64{0: first, 3: x}})
					}
				}
			}
		}
	}
}

// TestTableIsWhole: every system call that exists has rows, the last of them
// without condition, and every refusal says why.
func TestTableIsWhole(t *testing.T) {
	for _, v := range []uint64{0, ^uint64(0), 1 << 32, 0x5555555555} {
		o := options(v)
		final := map[string]bool{}
		for _, r := range Table(o) {
			if final[r.Syscall] {
				t.Errorf("%+v: %s: a row behind the unconditional one", o, r.Syscall)
			}
			if len(r.When) == 0 {
				final[r.Syscall] = true
			}
			if r.Action != Allow && r.Reason == "" {
				t.Errorf("%+v: %s: %v without a reason", o, r.Syscall, r.Action)
			}
			for _, a := range r.When {
				if a.Mask == 0 || a.Value&^a.Mask != 0 || a.Index > 5 {
					t.Errorf("%+v: %s: condition %+v", o, r.Syscall, a)
				}
			}
		}
		for _, n := range numbers {
			if !final[n.name] {
				t.Errorf("%+v: nobody has judged %s", o, n.name)
			}
		}
	}
}

// TestAllowedCallsCostNothing: the kernel answers a call from its bitmap only
// if the program reads nothing but number and architecture on the way.
func TestAllowedCallsCostNothing(t *testing.T) {
	prog, err := Assemble(Options{Notify: AllClasses, Inet: true, PrivateNet: true, Unix: true})
	if err != nil {
		t.Fatal(err)
	}
	arch, _ := Options{}.arch()
	openat := uint32(Number("openat"))
	for _, c := range strings.Fields(allowed) {
		nr := Number(c)
		if nr < 0 {
			continue
		}
		steps := 0
		for pc := 0; ; steps++ {
			in := prog[pc]
			if in.Code == unix.BPF_RET|unix.BPF_K {
				break
			}
			pc++
			switch in.Code {
			case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
				if in.K > offArch {
					t.Fatalf("%s reads an argument", c)
				}
			case unix.BPF_JMP | unix.BPF_JA:
				pc += int(in.K)
			case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
				switch in.K {
				case arch.audit:
					pc += int(in.Jt)
				case openat: // looked for first
					pc += int(in.Jf)
				default:
					t.Fatalf("%s: a comparison with %#x", c, in.K)
				}
			default:
				if uint32(nr) >= in.K {
					pc += int(in.Jt)
				} else {
					pc += int(in.Jf)
				}
			}
		}
		if steps > 24 {
			t.Errorf("%s: %d steps", c, steps)
		}
	}
}

// TestNumbersAreThoseOfXSys reads the tables that golang.org/x/sys generated
// from the kernel's headers.
func TestNumbersAreThoseOfXSys(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dir := strings.TrimSpace(string(out))
	line := regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*=\s*(\d+)`)
	for _, arch := range architectures {
		b, err := os.ReadFile(filepath.Join(dir, "zsysnum_linux_"+arch.name+".go"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{}
		for _, m := range line.FindAllStringSubmatch(string(b), -1) {
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			if name := strings.ToLower(m[1]); name != "arch_specific_syscall" {
				want[name] = n
			}
		}
		if len(want) < 300 {
			t.Fatalf("%s: only %d calls found", arch.name, len(want))
		}
		for _, n := range numbers {
			w, ok := want[n.name]
			if !ok {
				w = -1
			}
			if n.on(arch) != w {
				t.Errorf("%s on %s is %d, x/sys says %d", n.name, arch.name, n.on(arch), w)
			}
			delete(want, n.name)
		}
		for name := range want {
			t.Errorf("%s on %s is missing: judge it in policy.go", name, arch.name)
		}
	}
}

func TestOptionsThatContradict(t *testing.T) {
	for _, o := range []Options{{Arch: "riscv64"}, {Notify: OpenRead, Openat2: true}, {Notify: classEnd}} {
		if _, err := Assemble(o); err == nil {
			t.Errorf("%+v assembled", o)
		}
	}
}

// TestNewFilesGoUnasked: an open that can only make a new file is not put to
// the supervisor with those that may meet what stands there, whatever stands in
// the upper half of its flags.
func TestNewFilesGoUnasked(t *testing.T) {
	for call, at := range map[string]int{"open": 1, "openat": 2} {
		for flags, want := range map[uint64]Action{
			unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY:   Allow,
			unix.O_CREAT | unix.O_EXCL | unix.O_RDWR:     Allow,
			unix.O_CREAT | unix.O_WRONLY:                 Notify,
			unix.O_EXCL | unix.O_WRONLY:                  Notify,
			unix.O_WRONLY | unix.O_TRUNC:                 Notify,
			unix.O_CREAT<<32 | unix.O_EXCL | unix.O_RDWR: Notify,
			unix.O_RDONLY: Allow,
		} {
			nr, _ := byName(call)
			d := Data{Number: int32(nr.amd64), Arch: unix.AUDIT_ARCH_X86_64}
			d.Args[at] = flags
			if got, err := Evaluate(Options{Arch: "amd64", Notify: OpenWrite}, d); err != nil || got != want {
				t.Errorf("%s with flags %#x: %v (%v), want %v", call, flags, got, err, want)
			}
			if got, err := Evaluate(Options{Arch: "amd64", Notify: OpenNew | OpenWrite}, d); flags != unix.O_RDONLY && (err != nil || got != Notify) {
				t.Errorf("%s with flags %#x, new files asked: %v (%v)", call, flags, got, err)
			}
		}
	}
}
