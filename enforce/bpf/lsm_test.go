//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// newKernelGate loads a gate of tier kernel, and skips where the kernel takes
// no LSM programs.
func newKernelGate(t *testing.T) *Gate {
	t.Helper()
	g, err := LoadKernel(filepath.Join(bpffs(t), "gate"), cgroupRoot(t))
	var lacks *FeatureError
	if errors.As(err, &lacks) {
		t.Skip(err)
	}
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%v\n%s", err, strings.Join(refused.Log[max(0, len(refused.Log)-60):], "\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// libraries are the dynamic loader and the libraries of a program.
func libraries(t *testing.T, program string) (files []string) {
	t.Helper()
	out, _ := exec.Command(loaderPath(t), "--list", program).Output() // a static one has none
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`).FindAllSubmatch(out, -1) {
		files = append(files, string(m[1]))
	}
	return files
}

func loaderPath(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if p, err := filepath.EvalSymlinks(p); err == nil {
			return p
		}
	}
	t.Skip("no dynamic loader that this test knows")
	return ""
}

// setLibraries sets those of the programs, and more, and opens all files.
func setLibraries(t *testing.T, g *Gate, c Cgroup, more []string, programs ...string) {
	t.Helper()
	files := []File{identify(t, g, loaderPath(t))}
	for _, p := range programs {
		more = append(more, libraries(t, p)...)
	}
	for _, p := range more {
		files = append(files, identify(t, g, p))
	}
	if err := g.SetLibraries(c, files); err != nil {
		t.Fatal(err)
	}
	setPlaces(t, g, c, Place{"/", Read | Write})
}

func setPlaces(t *testing.T, g *Gate, c Cgroup, places ...Place) {
	t.Helper()
	if err := g.SetPlaces(c, places); err != nil {
		t.Fatal(err)
	}
}

// attempt is one thing that an attacker tries, in the directory that is its
// argument; what it gives up with is printed.
type attempt struct {
	name string
	try  func(dir string) error
}

// attack makes the attempts of one set.
func attack(arg string) {
	set, dir, _ := strings.Cut(arg, "\n")
	switch set {
	case "wait":
		select {}
	case "equal":
		openAll(dir)
	case "cost":
		cost(dir)
	}
	for _, a := range attacks[set] {
		err := a.try(dir)
		var no unix.Errno
		switch {
		case err == nil:
			fmt.Println(a.name, "ok")
		case errors.As(err, &no):
			fmt.Println(a.name, unix.ErrnoName(no))
		default:
			fmt.Println(a.name, err)
		}
	}
}

// tryAll makes a set of attempts in the cgroup and gives what came of each.
func tryAll(t *testing.T, cgroup, set, dir string) map[string]string {
	t.Helper()
	cmd := in(t, cgroup, self(t))
	cmd.Env = append(os.Environ(), "EXEQ_BPF_TRY="+set+"\n"+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = what
	}
	return got
}

// compare wants every attempt to succeed outside and to be refused in the
// cgroup, but for those that are allowed there, or fail otherwise (name=error).
func compare(t *testing.T, cgroup, set, dir string, allowed ...string) {
	t.Helper()
	plain, held := tryAll(t, "", set, dir), tryAll(t, cgroup, set, dir)
	for _, a := range attacks[set] {
		want := "EPERM"
		for _, w := range allowed {
			if name, how, other := strings.Cut(w, "="); name == a.name {
				if want = "ok"; other {
					want = how
				}
			}
		}
		if plain[a.name] != "ok" {
			t.Errorf("%s gives %q outside", a.name, plain[a.name])
		}
		if held[a.name] != want {
			t.Errorf("%s gives %q in the governed cgroup, want %s", a.name, held[a.name], want)
		}
	}
}

var attacks map[string][]attempt

func init() {
	attacks = map[string][]attempt{"code": codeAttempts, "files": fileAttempts, "remove": removeAttempts, "pins": pinAttempts, "receive": receiveAttempts, "reach": reachAttempts}
}

// runs starts a program that ends with 99.
func runs(cmd *exec.Cmd) error {
	err := cmd.Run()
	var e *exec.ExitError
	if errors.As(err, &e) && e.ExitCode() == 99 {
		return nil
	}
	if err == nil {
		return errors.New("it did not run")
	}
	return err
}

// mapFile maps a file, and changes the protection to another if that is not 0.
func mapFile(path string, open, prot, flags, then int) error {
	fd, err := unix.Open(path, open|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, err := unix.Mmap(fd, 0, 4096, prot, flags)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	if prot&unix.PROT_WRITE != 0 {
		b[100] = 0xc3
	}
	if then != 0 {
		return unix.Mprotect(b, then)
	}
	return nil
}

const (
	pr, pw, px = unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC
)

var codeAttempts = []attempt{
	{"good", func(dir string) error { return runs(exec.Command(dir + "/good")) }},
	{"bad", func(dir string) error { return runs(exec.Command(dir + "/bad")) }},
	{"copy-of-good", func(dir string) error {
		b, err := os.ReadFile(dir + "/good")
		if err == nil {
			os.Remove(dir + "/copy")
			err = os.WriteFile(dir+"/copy", b, 0o755)
		}
		if err != nil {
			return err
		}
		return runs(exec.Command(dir + "/copy"))
	}},
	{"through-proc", func(dir string) error { return runs(exec.Command("/proc/self/root" + dir + "/bad")) }},
	{"by-descriptor", func(dir string) error {
		f, err := os.Open(dir + "/bad")
		if err != nil {
			return err
		}
		defer f.Close()
		return runs(&exec.Cmd{Path: "/proc/self/fd/3", ExtraFiles: []*os.File{f}})
	}},
	{"memory", func(dir string) error {
		b, err := os.ReadFile(dir + "/good")
		if err != nil {
			return err
		}
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		w := os.NewFile(uintptr(fd), "x")
		w.Write(b)
		r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		w.Close()
		if err != nil {
			return err
		}
		defer r.Close()
		return runs(&exec.Cmd{Path: "/proc/self/fd/3", ExtraFiles: []*os.File{r}})
	}},
	{"script", func(dir string) error { return runs(exec.Command(dir + "/script")) }},
	{"library-as-program", func(dir string) error { return runs(exec.Command(dir + "/lib")) }},
	{"map", func(dir string) error { return mapFile(dir+"/bad", unix.O_RDONLY, pr|px, unix.MAP_PRIVATE, 0) }},
	{"map-shared", func(dir string) error { return mapFile(dir+"/bad", unix.O_RDONLY, px, unix.MAP_SHARED, 0) }},
	{"map-library", func(dir string) error { return mapFile(dir+"/lib", unix.O_RDONLY, pr|px, unix.MAP_PRIVATE, 0) }},
	{"map-then-protect", func(dir string) error { return mapFile(dir+"/bad", unix.O_RDONLY, pr, unix.MAP_PRIVATE, pr|px) }},
	{"map-write-then-protect", func(dir string) error {
		return mapFile(dir+"/bad", unix.O_RDONLY, pr|pw, unix.MAP_PRIVATE, pr|px)
	}},
	{"map-all-at-once", func(dir string) error { return mapFile(dir+"/new", unix.O_RDWR, pr|pw|px, unix.MAP_SHARED, 0) }},
	{"map-zero", func(dir string) error { return mapFile("/dev/zero", unix.O_RDWR, pr|pw|px, unix.MAP_PRIVATE, 0) }},
	{"shared-memory", func(string) error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o700)
		if err != nil {
			return err
		}
		defer unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		b, err := unix.SysvShmAttach(id, 0, 0o100000) // SHM_EXEC
		if err == nil {
			unix.SysvShmDetach(b)
		}
		return err
	}},
	// A limit: memory that is no file's.
	{"anonymous", func(string) error {
		b, err := unix.Mmap(-1, 0, 4096, pr|pw|px, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			unix.Munmap(b)
		}
		return err
	}},
}

// TestLSMCode: nothing is executed or mapped executable but what is set, uid 0
// or not; what is set works, and a library is no program.
func TestLSMCode(t *testing.T) {
	g := newKernelGate(t)
	if !g.Kernel() {
		t.Error("not of tier kernel")
	}
	tmp := t.TempDir()
	good := marker(t, filepath.Join(tmp, "good"))
	marker(t, filepath.Join(tmp, "bad"))
	lib := marker(t, filepath.Join(tmp, "lib"))
	for name, text := range map[string]string{"script": "#!" + good + "\n", "new": string(make([]byte, 4096))} {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, c := governed(t, g, self(t), good)
	setLibraries(t, g, c, []string{lib}, self(t))
	if err := g.SelfTest(dir); err != nil {
		t.Error(err)
	}
	compare(t, dir, "code", tmp, "good", "map-library", "anonymous")

	// The script allowed, too.
	if err := g.Allow(c, identify(t, g, filepath.Join(tmp, "script"))); err != nil {
		t.Fatal(err)
	}
	compare(t, dir, "code", tmp, "good", "map-library", "anonymous", "script")
	// Taken back, or changed.
	f, err := os.OpenFile(lib, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("x")
	f.Close()
	if err := g.Forbid(c, identify(t, g, good)); err != nil {
		t.Fatal(err)
	}
	compare(t, dir, "code", tmp, "anonymous")
}

// TestLSMLoader: who may run the dynamic loader may not load what it likes, and
// preloading does not work.
func TestLSMLoader(t *testing.T) {
	g := newKernelGate(t)
	sh, ld, tmp := real(t, "sh"), loaderPath(t), t.TempDir()
	own := copyProgram(t, real(t, "true"), filepath.Join(tmp, "true"))
	libc := libraries(t, sh)
	evil := copyProgram(t, libc[0], filepath.Join(tmp, "evil.so"))
	dir, c := governed(t, g, sh, ld)
	setLibraries(t, g, c, nil, sh)
	for script, want := range map[string]string{
		sh + " -c 'echo fine'":                              "fine\n",
		ld + " " + own + " && echo ran":                     "ran\n",
		"LD_PRELOAD=" + evil + " " + sh + " -c 'echo fine'": "fine\n",
	} {
		if out := shell(t, "", tmp, script+" 2>&1"); out != want {
			t.Errorf("outside, %s gives %q", script, out)
		}
		out := shell(t, dir, tmp, script+" 2>&1")
		if refused := strings.Contains(out, "failed to map segment"); refused != (script != sh+" -c 'echo fine'") {
			t.Errorf("%s gives %q", script, out)
		}
	}
}

// TestLSMOpen: the gate of tier kernel is taken up as such, and refused when an
// LSM program is gone.
func TestLSMOpen(t *testing.T) {
	g := newKernelGate(t)
	again, err := Open(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Kernel() || len(again.links) != len(g.links) {
		t.Errorf("taken up: kernel %v, %d links of %d", again.Kernel(), len(again.links), len(g.links))
	}
	again.Close()
	pins := []string{"map-" + lsmMapPlaces, "map-" + lsmMapNames}
	for _, h := range lsmHooks {
		pins = append(pins, "link-"+h.name)
	}
	for _, name := range pins {
		pin, aside := filepath.Join(g.dir, name), filepath.Join(g.dir, "aside")
		if err := os.Rename(pin, aside); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(g.dir); !errors.Is(err, ErrBroken) {
			t.Errorf("without %s: %v", name, err)
		}
		if err := os.Rename(aside, pin); err != nil {
			t.Fatal(err)
		}
	}
	// The self-test notices what nobody else does.
	dir, _ := governed(t, g)
	if err := g.SelfTest(dir); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(g.dir, "link-"+lsmProgCheckMap))
	g.links[lsmProgCheckMap].Close()
	delete(g.links, lsmProgCheckMap)
	if err := g.SelfTest(dir); err == nil || !strings.Contains(err.Error(), "mapped executable") {
		t.Errorf("without check_map: %v", err)
	}
}
