//go:build linux

package vm

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// initramfs writes the machine's file system: a cpio archive with init, the job
// and its files.
func initramfs(ctx context.Context, path, nonce string, j Job) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	a := &archive{w: w, have: map[string]bool{"/": true}}

	init := path + "-init"
	build := exec.CommandContext(ctx, "go", "build", "-o", init, "github.com/exeq/exeq/test/vm/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build init: %w: %s", err, out)
	}
	if err := a.file("/init", init, 0o755); err != nil {
		return err
	}
	c, err := j.config(nonce)
	if err != nil {
		return err
	}
	a.entry("/job.json", 0o100600, int64(len(c)))
	a.data(strings.NewReader(string(c)))
	for _, d := range []string{"/dev", "/proc", "/sys", "/tmp", "/run"} {
		if err := a.directory(d); err != nil {
			return err
		}
	}
	if j.Dir != "" {
		if err := a.directory(j.Dir); err != nil {
			return err
		}
	}
	for _, p := range append([]string{j.Args[0]}, j.Files...) {
		if err := a.add(p); err != nil {
			return err
		}
	}
	a.entry("TRAILER!!!", 0, 0)
	if a.err != nil {
		return a.err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// archive writes cpio's format newc. Everything belongs to root.
type archive struct {
	w    io.Writer
	have map[string]bool
	ino  int
	size int64
	err  error
}

func (a *archive) entry(name string, mode uint32, size int64) {
	a.ino++
	name = strings.TrimPrefix(name, "/")
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0))
	a.write([]byte(name + "\x00"))
	a.pad()
}

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
		a.size += int64(len(b))
	}
}

func (a *archive) pad() { a.write(make([]byte, -a.size&3)) }

func (a *archive) data(r io.Reader) {
	if a.err == nil {
		var n int64
		n, a.err = io.Copy(a.w, r)
		a.size += n
	}
	a.pad()
}

// file puts a regular file under a name.
func (a *archive) file(name, from string, perm fs.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return err
	}
	a.entry(name, 0o100000|uint32(perm), s.Size())
	a.data(io.LimitReader(f, s.Size()))
	return a.err
}

// directory makes sure of a directory and of those above it, as they are here:
// some are links.
func (a *archive) directory(path string) error {
	if a.have[path] {
		return nil
	}
	if err := a.directory(filepath.Dir(path)); err != nil {
		return err
	}
	if s, err := os.Lstat(path); err == nil && s.Mode()&fs.ModeSymlink != 0 {
		to, err := a.link(path)
		if err != nil {
			return err
		}
		return a.directory(to)
	}
	a.have[path] = true
	a.entry(path, 0o040755, 0)
	return a.err
}

// link puts a symbolic link and gives what it leads to.
func (a *archive) link(path string) (string, error) {
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !a.have[path] {
		a.have[path] = true
		a.entry(path, 0o120777, int64(len(to)))
		a.data(strings.NewReader(to))
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	return to, a.err
}

// add puts what is at the path, with what it needs.
func (a *archive) add(path string) error {
	if err := a.directory(filepath.Dir(path)); err != nil {
		return err
	}
	s, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch {
	case s.Mode()&fs.ModeSymlink != 0:
		to, err := a.link(path)
		if err != nil {
			return err
		}
		return a.add(to)
	case s.IsDir():
		if err := a.directory(path); err != nil {
			return err
		}
		all, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range all {
			if err := a.add(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
		return nil
	case !s.Mode().IsRegular() || a.have[path]:
		return nil
	}
	a.have[path] = true
	if err := a.file(path, path, s.Mode().Perm()); err != nil {
		return err
	}
	need, err := needs(path)
	if err != nil {
		return err
	}
	for _, p := range need {
		if err := a.add(p); err != nil {
			return err
		}
	}
	return nil
}

var library = regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`)

// needs names the dynamic loader and the libraries of a program, as the loader
// itself finds them.
func needs(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, nil // a script, or data
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return nil, err
		}
		loader := strings.TrimRight(string(name), "\x00")
		out, err := exec.Command(loader, "--list", path).Output()
		if err != nil {
			return nil, fmt.Errorf("the libraries of %s: %w", path, err)
		}
		need := []string{loader}
		for _, m := range library.FindAllSubmatch(out, -1) {
			need = append(need, string(m[1]))
		}
		return need, nil
	}
	return nil, nil
}
