//go:build linux

package programs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// interpreter makes dir/i run this test binary, which then prints its
// arguments.
func interpreter(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	i := filepath.Join(dir, "i")
	if err := os.Symlink(exe, i); err != nil {
		t.Fatal(err)
	}
	return i
}

func script1(t *testing.T, path string, head []byte) {
	t.Helper()
	if err := os.WriteFile(path, head, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestScriptsAsTheKernel has the kernel run scripts with every kind of first
// line and compares whom it started, and with which argument.
func TestScriptsAsTheKernel(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "s") // a short path: 256 bytes are the limit
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	i := interpreter(t, dir)
	fill := func(n int) string { return strings.Repeat("y", n) }
	heads := []string{
		"#!" + i, "#!" + i + "\n", "#! \t" + i + " \t\n", "#!" + i + " a b \t\nrest", "#!" + i + "\ta", "#!" + i + " a\x00b\n", "#!" + i + "\x00 a\n",
		"#!" + i + "\r\n", "#!\n", "#!", "#! \t ", "#!\x00\n", "#! \n" + i, "#!" + i + " " + fill(300), "#!" + i + " " + fill(300) + "\n",
		"#!" + i + fill(300) + "\n", "#!" + i + strings.Repeat(" ", 300) + "a\n", "#!" + strings.Repeat(" ", 300) + i + "\n",
		"#!" + strings.Repeat(" ", 254-len(i)) + i, "#!" + strings.Repeat(" ", 253-len(i)) + i + "\n", "#!" + strings.Repeat(" ", 254-len(i)) + i + "\n",
		"#!" + strings.Repeat(" ", 253-len(i)) + i + " a", "#!" + strings.Repeat(" ", 252-len(i)) + i + " a", "#!" + i + strings.Repeat(" ", 252-len(i)) + "ab",
		"#!" + i + "\n\x00", "#!\x00" + i + "\n", " #!" + i + "\n", "#!./i\n", "#!i a\n",
	}
	rng := rand.New(rand.NewPCG(9, 9))
	parts := []string{i, i, i, " ", "\t", "\n", "\x00", "a", "\r", "-x", fill(120), strings.Repeat(" ", 110)}
	for range 300 {
		h := "#!"
		for range rng.IntN(7) {
			h += parts[rng.IntN(len(parts))]
		}
		heads = append(heads, h)
	}
	ran := 0
	path := filepath.Join(dir, "script")
	for _, h := range heads {
		script1(t, path, []byte(h))
		cmd := exec.Command(path)
		cmd.Dir, cmd.Env = dir, []string{peerEnv + "=argv"}
		out, runErr := cmd.Output()
		format, err := Inspect(strings.NewReader(h))
		if err != nil || !samePath(dir, format.Interpreter, i) {
			if runErr == nil {
				t.Errorf("%q: the kernel ran %s, Inspect says %+v, %v", h, out, format, err)
			}
			continue
		}
		want := append(append([]string{format.Interpreter}, format.Arguments...), path)
		var argv []string
		if runErr != nil || json.Unmarshal(out, &argv) != nil || !equal(argv, want) {
			t.Errorf("%q: the kernel ran %q (%v), Inspect says %q", h, argv, runErr, want)
		}
		ran++
	}
	if ran < 40 {
		t.Errorf("only %d scripts ran", ran)
	}
}

func samePath(dir, name, want string) bool {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return name != "" && filepath.Clean(name) == want
}

func equal(a, b []string) bool { return fmt.Sprintf("%q", a) == fmt.Sprintf("%q", b) }

func TestChain(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	i := interpreter(t, dir)
	path := func(n int) string { return filepath.Join(dir, fmt.Sprint("s", n)) }
	script1(t, path(0), []byte("#!"+i+"\n"))
	for n := 1; n <= 6; n++ {
		script1(t, path(n), []byte("#!"+path(n-1)+" x\n"))
	}
	real, err := filepath.EvalSymlinks(exe)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 7 {
		f, err := ownProcess().Resolve(unix.AT_FDCWD, path(n), FollowLast)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := ownProcess().Chain(f)
		cmd := exec.Command(path(n))
		cmd.Env = []string{peerEnv + "=argv"}
		if runErr := cmd.Run(); (runErr == nil) != (err == nil) {
			t.Errorf("%d scripts: the kernel says %v, Chain says %v", n+1, runErr, err)
		}
		if n >= 5 && !errors.Is(err, unix.ELOOP) {
			t.Errorf("%d scripts: %v, want ELOOP", n+1, err)
		}
		if err == nil && (chain[0] != f || chain[n+1].Path != real) {
			t.Errorf("%d scripts: the chain ends in %s, want %s", n+1, chain[n+1].Path, real)
		}
		for _, f := range chain {
			f.Close()
		}
	}
	f, err := ownProcess().Resolve(unix.AT_FDCWD, "/bin/sh", FollowLast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chain, err := ownProcess().Chain(f)
	if err != nil || len(chain) != 2 || !strings.Contains(chain[1].Path, "ld-") {
		t.Errorf("the chain of /bin/sh has %d files, %v", len(chain), err)
	}
	for _, f := range chain[1:] {
		f.Close()
	}
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("#!/bin/sh -e\n"))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Add(bytes.Repeat([]byte("#! "), 100))
	if b, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(b[:min(len(b), 4096)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		format, err := Inspect(bytes.NewReader(b))
		if err == nil && format.ELF == format.Script {
			t.Errorf("%q: %+v", b, format)
		}
		if strings.IndexByte(format.Interpreter+strings.Join(format.Arguments, ""), 0) >= 0 {
			t.Errorf("%q: a NUL in %+v", b, format)
		}
		if format.Script && format.Interpreter == "" {
			t.Errorf("%q: a script without interpreter", b)
		}
	})
}
