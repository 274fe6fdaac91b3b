//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpfLoad is union bpf_attr for BPF_PROG_LOAD, as far as it is needed.
type bpfLoad struct {
	progType, insnCount uint32
	insns, license      uint64
	logLevel, logSize   uint32
	logBuf              uint64
	kernVersion, flags  uint32
	name                [16]byte
	ifindex, attachType uint32
	btfFD, funcInfoSize uint32
	funcInfo            uint64
	funcInfoCount       uint32
	lineInfoSize        uint32
	lineInfo            uint64
	lineInfoCount       uint32
	attachBTFID         uint32
	attachFD            uint32
	_                   uint32
}

// tryBPF loads "return 0" for an attach point that kernel type name of the BTF
// kind stands for, and unloads it.
func tryBPF(progType, attachType uint32, kind uint32, name string) error {
	b, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		return err
	}
	id, err := btfID(b, kind, name)
	if err != nil {
		return err
	}
	insns := [2]uint64{0x00000000_000000b7, 0x95} // r0 = 0; exit
	license := [4]byte{'G', 'P', 'L', 0}
	attr := bpfLoad{
		progType: progType, insnCount: 2,
		insns: uint64(uintptr(unsafe.Pointer(&insns))), license: uint64(uintptr(unsafe.Pointer(&license))),
		attachType: attachType, attachBTFID: id,
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&insns)
	runtime.KeepAlive(&license)
	if errno != 0 {
		return fmt.Errorf("load a program on %s: %w", name, errno)
	}
	return unix.Close(int(fd))
}

// Kinds of BTF types (linux/btf.h).
const (
	btfArray, btfStruct, btfUnion, btfEnum        = 3, 4, 5, 6
	btfInt, btfTypedef, btfFunc                   = 1, 8, 12
	btfFuncProto, btfVar, btfDatasec              = 13, 14, 15
	btfDeclTag, btfEnum64                  uint32 = 17, 19
)

var errBTF = errors.New("the kernel's type information cannot be read")

// btfID finds a type by kind and name in raw BTF.
func btfID(b []byte, kind uint32, name string) (uint32, error) {
	u32 := func(at uint32) uint32 {
		if uint64(at)+4 > uint64(len(b)) {
			return ^uint32(0)
		}
		return binary.NativeEndian.Uint32(b[at:])
	}
	if len(b) < 24 || binary.NativeEndian.Uint16(b) != 0xeb9f {
		return 0, errBTF
	}
	head := u32(4)
	types, end := head+u32(8), head+u32(8)+u32(12)
	strs := head + u32(16)
	if uint64(end) > uint64(len(b)) || uint64(strs) > uint64(len(b)) || end < types {
		return 0, errBTF
	}
	for id, at := uint32(1), types; at+12 <= end; id++ {
		info := u32(at + 4)
		k, n := info>>24&0x1f, info&0xffff
		if k == kind && nameAt(b, strs+u32(at)) == name {
			return id, nil
		}
		at += 12
		switch k {
		case btfInt, btfVar, btfDeclTag:
			at += 4
		case btfArray:
			at += 12
		case btfStruct, btfUnion, btfDatasec, btfEnum64:
			at += 12 * n
		case btfEnum, btfFuncProto:
			at += 8 * n
		}
	}
	return 0, fmt.Errorf("the kernel has no %s", name)
}

// nameAt gives the NUL-terminated string at an offset.
func nameAt(b []byte, at uint32) string {
	if uint64(at) >= uint64(len(b)) {
		return ""
	}
	s := b[at:]
	for i, c := range s[:min(len(s), 256)] {
		if c == 0 {
			return string(s[:i])
		}
	}
	return ""
}
