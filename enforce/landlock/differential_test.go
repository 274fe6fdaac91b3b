//go:build linux

package landlock

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// onThread runs f on an OS thread that ends with it: a ruleset stays with the
// thread that took it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f) // the main thread never ends: keep off it
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// tree makes files and directories with names that sort against their paths.
func tree(t *testing.T) (root string, files, dirs []string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a", "a/b", "a/b/c", "a-b", "a-b/c", "d", "d/e", "d/e/f", "d/e/f/g"} {
		dirs = append(dirs, filepath.Join(root, d))
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"x", "y z"} {
			f := filepath.Join(root, d, n)
			if err := os.WriteFile(f, []byte("#!/bin/true\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	if err := os.Symlink("a/x", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	return root, files, dirs
}

func randomAccess(rng *rand.Rand) exeq.Access {
	a := exeq.Access{Read: rng.IntN(3) > 0, Write: rng.IntN(3) == 0,
		Exec: []exeq.ExecMode{exeq.ExecNo, exeq.ExecAsk, exeq.ExecAll}[rng.IntN(3)]}
	if a.Read && rng.IntN(6) == 0 {
		a.Labels = []string{"pii"}
	}
	return a
}

func randomRights(rng *rand.Rand, root string, files, dirs []string) *exeq.Rights {
	universe := append(append([]string{root}, files...), dirs...)
	for _, d := range dirs {
		universe = append(universe, d+"/absent", d+"/absent/below")
	}
	universe = append(universe, root+"/link", root+"/link/below")
	byPath := map[string]exeq.Cell{"/": {Path: "/"}}
	for range 1 + rng.IntN(7) {
		p := universe[rng.IntN(len(universe))]
		c := exeq.Cell{Path: exeq.EncodeBytes(p), At: randomAccess(rng)}
		if c.Under = c.At; rng.IntN(4) == 0 {
			c.Under = randomAccess(rng)
		}
		byPath[c.Path] = c
	}
	r := &exeq.Rights{Version: 1}
	for _, c := range byPath {
		r.Cells = append(r.Cells, c)
	}
	slices.SortFunc(r.Cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
	return r
}

// atExecveCheck asks whether execveat would be permitted (Linux 6.14).
const atExecveCheck = 0x10000

func execCheck(p string) error {
	b, err := unix.BytePtrFromString(p)
	if err != nil {
		return err
	}
	argv := []*byte{b, nil}
	at := int64(unix.AT_FDCWD)
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(at), uintptr(unsafe.Pointer(b)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[1])), atExecveCheck, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// try does one thing that needs one use of a path, and undoes it from outside.
type attempt struct {
	what string
	use  Access
	do   func(p string) error
}

func opened(flags int) func(string) error {
	return func(p string) error {
		fd, err := unix.Open(p, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

var (
	onFile = []attempt{
		{"read", Read, opened(unix.O_RDONLY)},
		{"write", Write, opened(unix.O_WRONLY)},
		{"read and truncate", Read | Write, opened(unix.O_RDONLY | unix.O_TRUNC)},
		{"truncate", Write, func(p string) error { return unix.Truncate(p, 12) }},
		{"execute", Read | Exec, execCheck},
	}
	onDir = []attempt{
		{"list", Read, opened(unix.O_RDONLY | unix.O_DIRECTORY)},
	}
	onName = []attempt{ // of a name that is not there yet
		{"create", Write, opened(unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL)},
		{"mkdir", Write, func(p string) error { return unix.Mkdir(p, 0o755) }},
		{"symlink", Write, func(p string) error { return unix.Symlink("x", p) }},
		{"fifo", Write, func(p string) error { return unix.Mkfifo(p, 0o644) }},
	}
)

// denied reports whether the kernel refused for Landlock's reasons.
func denied(err error) bool { return err == unix.EACCES || err == unix.EXDEV }

// check compares what rights say with what kernel and masks let through.
func check(t *testing.T, r *exeq.Rights, o Options, rep Report, a attempt, p string, err error) {
	t.Helper()
	if err != nil && !denied(err) {
		t.Fatalf("%s %s: %v", a.what, p, err)
	}
	want := o.access(r.Lookup(exeq.EncodeBytes(p)))&a.use == a.use
	through := err == nil
	for _, m := range slices.Backward(rep.Masks) { // parents come first
		if within(p, m.Path) {
			care := a.use
			if o.Gated {
				care &^= Exec
			}
			through = through && m.Leave&care == care
			break
		}
	}
	if through == want {
		return
	}
	cut := p // the cell that decides
	for !slices.ContainsFunc(r.Cells, func(c exeq.Cell) bool { return c.Path == exeq.EncodeBytes(cut) }) {
		cut = path.Dir(cut)
	}
	has := func(list []Difference) bool {
		return slices.ContainsFunc(list, func(d Difference) bool { return d.Path == cut && d.Access&a.use != 0 })
	}
	for _, m := range rep.Missing {
		if m.Path == cut && (through && m.Over&a.use != 0 || want && m.Grant&a.use != 0) {
			return
		}
	}
	if want && has(rep.Narrowed) || through && has(rep.Widened) {
		return
	}
	if o.Gated && through && a.use&Exec != 0 {
		return // the gate's to refuse
	}
	if parent := r.Lookup(exeq.EncodeBytes(path.Dir(p) + "/\x01")); want && a.use == Write && cut == p && !parent.Write {
		return // a name is made and removed only with its directory's rights
	}
	b, _ := r.Canonical()
	t.Errorf("%s %s: rights say %v, kernel and masks say %v (kernel: %v)\n%s\n%+v\n%+v", a.what, p, want, through, err, b, rep, o)
}

func TestRightsAgainstKernel(t *testing.T) {
	root, files, dirs := tree(t)
	if err := execCheck(files[0]); err != nil {
		t.Skipf("the kernel cannot check an execution: %v", err)
	}
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	compared, pinned := 0, 0
	for round := range rounds {
		rng := rand.New(rand.NewPCG(7, uint64(round)))
		r := randomRights(rng, root, files, dirs)
		o := Options{Labelled: rng.IntN(2) == 0, Gated: rng.IntN(2) == 0}
		ruleset, rep, err := Build(r, o)
		if err != nil {
			t.Fatal(err)
		}
		type result struct {
			a   attempt
			p   string
			err error
		}
		var results []result
		undo := make(chan string)
		undone := make(chan error)
		go func() {
			for p := range undo {
				undone <- os.RemoveAll(p)
			}
		}()
		var moved []string
		onThread(func() {
			if err := Restrict(ruleset); err != nil {
				t.Error(err)
				return
			}
			for _, p := range files {
				for _, a := range onFile {
					results = append(results, result{a, p, a.do(p)})
				}
			}
			for _, p := range dirs {
				for _, a := range onDir {
					results = append(results, result{a, p, a.do(p)})
				}
				for _, name := range []string{"absent", "new"} {
					a := onName[rng.IntN(len(onName))]
					p := p + "/" + name
					err := a.do(p)
					results = append(results, result{a, p, err})
					undo <- p
					if err := <-undone; err != nil {
						t.Error(err)
					}
				}
				// Can it be moved away, and what is forbidden below with it?
				if err := unix.Rename(p, p+".moved"); err == nil {
					moved = append(moved, p)
					if err := unix.Rename(p+".moved", p); err != nil {
						t.Error(err)
					}
				}
			}
		})
		close(undo)
		unix.Close(ruleset)
		for _, x := range results {
			check(t, r, o, rep, x.a, x.p, x.err)
		}
		compared += len(results)
		// A directory that moves must hold nothing that may not be written.
		for _, d := range moved {
			held := slices.Contains(rep.Pins, d) || slices.ContainsFunc(rep.Masks, func(m Mask) bool { return m.Path == d })
			if held {
				pinned++
				continue
			}
			for _, c := range r.Cells {
				raw, err := exeq.DecodeBytes(c.Path)
				if err != nil {
					t.Fatal(err)
				}
				above := slices.ContainsFunc(rep.Masks, func(m Mask) bool { return within(d, m.Path) && m.Leave&Write == 0 })
				free := c.At.Write && (c.Under.Write || slices.Contains(files, raw)) // Widened speaks of a file's Under
				if within(raw, d) && !above && !free && r.Lookup(exeq.EncodeBytes(path.Dir(raw)+"/\x01")).Write {
					b, _ := r.Canonical()
					t.Errorf("%s can be moved away from over %s: %s\n%+v", d, raw, b, rep)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	t.Logf("%d attempts compared, %d movable directories pinned", compared, pinned)
	if compared < rounds*50 || pinned == 0 {
		t.Fatal("compared too little")
	}
}

// TestControl: without a ruleset every attempt succeeds.
func TestControl(t *testing.T) {
	_, files, dirs := tree(t)
	for _, a := range onFile {
		if err := a.do(files[0]); err != nil {
			t.Errorf("%s: %v", a.what, err)
		}
	}
	for _, a := range onDir {
		if err := a.do(dirs[0]); err != nil {
			t.Errorf("%s: %v", a.what, err)
		}
	}
	for i, a := range onName {
		if err := a.do(fmt.Sprint(dirs[0], "/", i)); err != nil {
			t.Errorf("%s: %v", a.what, err)
		}
	}
	if err := opened(unix.O_RDONLY)(files[0] + "-"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a file that is not there: %v", err)
	}
}
