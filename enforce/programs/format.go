//go:build linux

package programs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Format is what a program needs beside itself to run.
type Format struct {
	// ELF or Script; neither: the kernel answers ENOEXEC.
	ELF, Script bool
	// Interpreter is the script's, or the ELF file's dynamic loader
	// (PT_INTERP); "" for a static program.
	Interpreter string
	// Argument is what stands behind a script's interpreter, one argument.
	Argument string
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

// script parses "#! interpreter [argument]" as fs/binfmt_script.c does: the
// line ends at a newline or NUL, or with the buffer, in which case the
// interpreter's name must be complete; blanks are space and tab.
func script(head []byte) (Format, error) {
	line := head[2:]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	} else if len(head) == headBytes {
		rest := bytes.TrimLeft(line, " \t")
		if !bytes.ContainsAny(rest, " \t\x00") {
			return Format{}, fmt.Errorf("%w: the interpreter's name does not fit in %d bytes", ErrFormat, headBytes)
		}
		line = line[:len(line)-1]
	}
	text := strings.Trim(string(line), " \t")
	if i := strings.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	name, arg := text, ""
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		name, arg = text[:i], strings.TrimLeft(text[i:], " \t")
	}
	if name == "" {
		return Format{}, fmt.Errorf("%w: no interpreter behind #!", ErrFormat)
	}
	return Format{Script: true, Interpreter: name, Argument: arg}, nil
}

func loader(r io.ReaderAt) (Format, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return Format{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz < 2 || p.Filesz > maxInterpLen {
			return Format{}, fmt.Errorf("%w: a loader's name of %d bytes", ErrFormat, p.Filesz)
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil || b[len(b)-1] != 0 {
			return Format{}, fmt.Errorf("%w: the loader's name is cut off", ErrFormat)
		}
		return Format{ELF: true, Interpreter: string(b[:bytes.IndexByte(b, 0)])}, nil
	}
	return Format{ELF: true}, nil
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
