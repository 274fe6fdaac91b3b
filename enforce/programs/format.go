//go:build linux

package programs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Format is what a program needs beside itself to run.
type Format struct {
	// ELF or Script; neither: the kernel answers ENOEXEC.
	ELF, Script bool
	// Interpreter is the script's, or the ELF file's dynamic loader
	// (PT_INTERP); "" for a static program.
	Interpreter string
	// Arguments is what a script hands its interpreter before its own path:
	// nothing, or one argument, which may be empty.
	Arguments []string
}

// Kernel limits: BINPRM_BUF_SIZE, the nesting of interpreters (bprm loop).
const (
	headBytes    = 256
	maxScripts   = 5
	maxInterpLen = unix.PathMax
)

// ErrFormat: neither a script nor an ELF file that the kernel would take.
var ErrFormat = errors.New("exec format error")

// Inspect reads a program's head the way the kernel does.
func Inspect(r io.ReaderAt) (Format, error) {
	head := make([]byte, headBytes)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Format{}, fmt.Errorf("programs: read: %w", err)
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		return script(head)
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return loader(r)
	}
	return Format{}, ErrFormat
}

// script parses "#! interpreter [argument]" as fs/binfmt_script.c does, on a
// buffer that is filled up with NULs: a newline counts only before the first
// NUL, and a line that does not end in the buffer is taken if the interpreter's
// name does.
func script(head []byte) (Format, error) {
	var buf [headBytes]byte
	copy(buf[:], head)
	const last = headBytes - 1
	blank := func(i int) bool { return buf[i] == ' ' || buf[i] == '\t' }
	find := func(from, to int, what func(int) bool) int {
		for i := from; i <= to; i++ {
			if what(i) {
				return i
			}
		}
		return -1
	}
	filled := func(i int) bool { return !blank(i) }
	ends := func(i int) bool { return blank(i) || buf[i] == 0 }

	end := bytes.IndexByte(buf[:], '\n')
	if nul := bytes.IndexByte(buf[:], 0); end < 0 || nul >= 0 && nul < end {
		name := find(2, last, filled)
		if name < 0 || find(name, last, ends) < 0 {
			return Format{}, fmt.Errorf("%w: the interpreter's name does not fit in %d bytes", ErrFormat, headBytes)
		}
		end = last
	}
	for blank(end - 1) {
		end--
	}
	buf[end] = 0
	name := find(2, end, filled)
	if name == end || buf[name] == 0 {
		return Format{}, fmt.Errorf("%w: no interpreter behind #!", ErrFormat)
	}
	sep := find(name, end, ends)
	f := Format{Script: true, Interpreter: string(buf[name:sep])}
	if buf[sep] != 0 {
		arg := buf[find(sep, end, filled) : end+1]
		f.Arguments = []string{string(arg[:bytes.IndexByte(arg, 0)])}
	}
	return f, nil
}

// loader reads the program headers of a 64-bit little-endian ELF file, and
// nothing else: the kernel does not look at sections either.
func loader(r io.ReaderAt) (Format, error) {
	var head elf.Header64
	if err := readAt(r, 0, &head); err != nil {
		return Format{}, fmt.Errorf("%w: ELF header: %w", ErrFormat, err)
	}
	if head.Ident[elf.EI_CLASS] != byte(elf.ELFCLASS64) || head.Ident[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return Format{}, fmt.Errorf("%w: not a 64-bit little-endian ELF file", ErrFormat)
	}
	const size = 56 // of a program header; the kernel takes no other, and 64 KiB of them
	if head.Phentsize != size || head.Phnum == 0 || int(head.Phnum) > 64<<10/size || head.Phoff > 1<<62 {
		return Format{}, fmt.Errorf("%w: %d program headers of %d bytes", ErrFormat, head.Phnum, head.Phentsize)
	}
	for i := range int64(head.Phnum) {
		var p elf.Prog64
		if err := readAt(r, int64(head.Phoff)+i*size, &p); err != nil {
			return Format{}, fmt.Errorf("%w: program header: %w", ErrFormat, err)
		}
		if elf.ProgType(p.Type) != elf.PT_INTERP {
			continue
		}
		if p.Filesz < 2 || p.Filesz > maxInterpLen || p.Off > 1<<62 {
			return Format{}, fmt.Errorf("%w: a loader's name of %d bytes", ErrFormat, p.Filesz)
		}
		b := make([]byte, p.Filesz)
		if err := readAt(r, int64(p.Off), b); err != nil || b[len(b)-1] != 0 || b[0] == 0 {
			return Format{}, fmt.Errorf("%w: the loader's name is cut off", ErrFormat)
		}
		return Format{ELF: true, Interpreter: string(b[:bytes.IndexByte(b, 0)])}, nil
	}
	return Format{ELF: true}, nil
}

func readAt(r io.ReaderAt, off int64, into any) error {
	return binary.Read(io.NewSectionReader(r, off, 1<<20), binary.LittleEndian, into)
}

// Chain gives every file that executing f runs, f first: a script's
// interpreter, its interpreter, at last an ELF file's loader. Each but f is the
// caller's to close, also beside an error.
func (p Process) Chain(f *File) ([]*File, error) {
	chain := []*File{f}
	for scripts := 0; ; {
		last := chain[len(chain)-1]
		r, err := last.Open()
		if err != nil {
			return chain, err
		}
		format, err := Inspect(r)
		r.Close()
		if err != nil {
			return chain, fmt.Errorf("programs: %s: %w", last.Path, err)
		}
		if format.Interpreter == "" {
			return chain, nil
		}
		if format.Script {
			if scripts++; scripts > maxScripts {
				return chain, fmt.Errorf("programs: %s: %w", f.Path, unix.ELOOP)
			}
		}
		next, err := p.Resolve(unix.AT_FDCWD, format.Interpreter, FollowLast)
		if err != nil {
			return chain, err
		}
		chain = append(chain, next)
		if format.ELF {
			return chain, nil
		}
	}
}

// ownProcess resolves as this process itself.
func ownProcess() Process { return Process{PID: os.Getpid()} }
