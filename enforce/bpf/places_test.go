//go:build linux

package bpf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLSMFiles: of files, nothing is opened or changed but what the places
// allow, by whatever way; masks and what leads to them stay where they are.
func TestLSMFiles(t *testing.T) {
	g := newKernelGate(t)
	tmp := t.TempDir()
	for _, d := range []string{"rw/kept", "rw/keptdir", "ro/sparedir", "rw/mask/open", "rw/deep/er/mask", "wo", "out"} {
		if err := os.MkdirAll(filepath.Join(tmp, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(tmp, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"rw/keptfile", "rw/keptfile2", "ro/file", "ro/spare", "rw/file", "rw/secret", "rw/mask/file", "rw/mask/open/file", "rw/deep/er/mask/file", "wo/file", "out/file"} {
		write(f)
	}
	if err := os.WriteFile(filepath.Join(tmp, "out/file"), []byte("out"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := marker(t, filepath.Join(tmp, "rw/program"))
	dir, c := governed(t, g, self(t), program)
	setLibraries(t, g, c, nil, self(t))
	all := []Place{
		{"/usr", Read}, {"/lib", Read}, {"/etc/ld.so.cache", Read}, {"/proc", Read}, {"/dev/null", Read | Write},
		{tmp + "/ro", Read}, {tmp + "/rw", Read | Write}, {tmp + "/wo", Write},
		{tmp + "/rw/secret", 0}, {tmp + "/rw/mask", 0}, {tmp + "/rw/mask/open", Read}, {tmp + "/rw/deep/er/mask", 0}, {tmp + "/rw/absent", 0},
		{tmp + "/rw/kept", Read | Write}, {tmp + "/rw/keptdir", Read | Write}, {tmp + "/rw/keptfile", Read | Write}, {tmp + "/rw/keptfile2", Read | Write},
	}
	if s, err := os.Lstat("/lib"); err == nil && s.Mode()&os.ModeSymlink != 0 {
		all = append(all[:1], all[2:]...)
	}
	setPlaces(t, g, c, all...)
	works := []string{"read-ro", "read-rw", "write-rw", "write-wo", "list-ro", "make-rw", "makedir-rw", "read-below-mask", "rename-rw", "link-rw",
		"chmod-rw", "null", "pipe-again", "uring-rw", "rename-wo-rw=EXDEV", "link-wo-rw=EXDEV", "exchange-wo-rw=EXDEV"}
	compare(t, dir, "files", tmp, works...)
	// A governed cgroup below it may do all, which makes no difference.
	inner := newCgroup(t, dir)
	ci, err := g.Govern(inner, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SetPrograms(ci, []File{identify(t, g, self(t))}); err != nil {
		t.Fatal(err)
	}
	setLibraries(t, g, ci, nil, self(t))
	compare(t, inner, "files", tmp, works...)

	// Another file takes the secret's place, as editors do.
	write("new")
	if err := os.Rename(tmp+"/new", tmp+"/rw/secret"); err != nil {
		t.Fatal(err)
	}
	compare(t, dir, "files", tmp, works...)
	// The directory is moved by the host: what was masked stays so.
	if err := os.Rename(tmp+"/rw/deep", tmp+"/rw/moved"); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, "", tmp, "cat rw/moved/er/mask/file"); got != "x" {
		t.Errorf("outside: %q", got)
	}
	if err := os.Rename(tmp+"/rw/moved", tmp+"/rw/deep"); err != nil {
		t.Fatal(err)
	}

	// What succeeds outside cannot be tried again: inside first.
	held, plain := tryAll(t, dir, "remove", tmp), tryAll(t, "", "remove", tmp)
	for _, a := range removeAttempts {
		if held[a.name] != "EPERM" || plain[a.name] != "ok" {
			t.Errorf("%s gives %q in the governed cgroup, %q outside", a.name, held[a.name], plain[a.name])
		}
	}

	for _, wrong := range []Place{{tmp + "/nowhere/x", Read}, {"relative", Read}, {tmp + "/rw/", Read}, {tmp, 4}, {"/proc/self/exe", Read}, {g.dir, Read}, {g.dir + "/link-" + lsmProgCheckOpen, Read}, {tmp + "/" + strings.Repeat("x", 64), 0}} {
		if err := g.SetPlaces(c, []Place{wrong}); err == nil {
			t.Errorf("%+v was taken", wrong)
		}
	}
	// The pins are nobody's, whatever is open.
	newScopes(t, g)
	setPlaces(t, g, c, Place{"/", Read | Write})
	held = tryAll(t, dir, "pins", g.dir)
	for _, a := range pinAttempts {
		if held[a.name] != "EPERM" {
			t.Errorf("%s gives %q in the governed cgroup", a.name, held[a.name])
		}
	}
	if err := g.SelfTest(dir); err != nil {
		t.Error(err)
	}
	for name, got := range tryAll(t, "", "pins", g.dir) {
		if got != "ok" {
			t.Errorf("%s gives %q outside", name, got)
		}
	}
	// Set anew, what was set is gone; lifted, all is.
	if n, m := count(t, g, c); n < 1 || m != 2 { // the names of the pins
		t.Errorf("%d inodes and %d names of one place", n, m)
	}
	if err := g.Lift(c); err != nil {
		t.Fatal(err)
	}
	if n, m := count(t, g, c); n+m != 0 {
		t.Errorf("%d inodes and %d names of a lifted cgroup", n, m)
	}
}

// TestLSMReceive: a descriptor that somebody outside sends in counts as opened.
func TestLSMReceive(t *testing.T) {
	g := newKernelGate(t)
	tmp := t.TempDir()
	for _, name := range []string{"open", "shut"} {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, c := governed(t, g, self(t))
	setLibraries(t, g, c, nil, self(t))
	setPlaces(t, g, c, Place{"/usr", Read}, Place{"/etc/ld.so.cache", Read}, Place{tmp + "/open", Read})
	receive := func(cgroup, name string) string {
		t.Helper()
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(p[0]), "ours"), os.NewFile(uintptr(p[1]), "theirs")
		defer ours.Close()
		defer theirs.Close()
		f, err := os.Open(filepath.Join(tmp, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Sendmsg(p[0], []byte("x"), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
			t.Fatal(err)
		}
		cmd := in(t, cgroup, self(t))
		cmd.Env = append(os.Environ(), "EXEQ_BPF_TRY=receive\n")
		cmd.ExtraFiles = []*os.File{theirs}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, c := range []struct{ cgroup, name, want string }{
		{"", "open", "receive ok"}, {"", "shut", "receive ok"},
		{dir, "open", "receive ok"}, {dir, "shut", "receive nothing came"},
	} {
		if got := receive(c.cgroup, c.name); got != c.want {
			t.Errorf("%s in %q: %q, want %q", c.name, c.cgroup, got, c.want)
		}
	}
}

// TestLSMPlacesEqual: what can be opened, of random trees with random places, is
// what the longest place says.
func TestLSMPlacesEqual(t *testing.T) {
	g := newKernelGate(t)
	dir, c := governed(t, g, self(t))
	setLibraries(t, g, c, nil, self(t))
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	t.Logf("seed %d", seed)
	allowed, refused := 0, 0
	for round := range 6 {
		tmp := t.TempDir()
		dirs, files := []string{tmp}, []string{}
		for i := range 120 {
			p := filepath.Join(dirs[r.IntN(len(dirs))], fmt.Sprint("n", i))
			if r.IntN(3) == 0 {
				if err := os.Mkdir(p, 0o755); err != nil {
					t.Fatal(err)
				}
				dirs = append(dirs, p)
			} else {
				if err := os.WriteFile(p, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files, p)
			}
		}
		all := []Place{{"/usr", Read}, {"/etc/ld.so.cache", Read}, {tmp + "-list", Read}}
		absent := []string{}
		for i := range 20 {
			at := dirs[r.IntN(len(dirs))]
			switch r.IntN(4) {
			case 0:
				at = files[r.IntN(len(files))]
			case 1: // it comes into being below
				at = filepath.Join(at, fmt.Sprint("a", i))
				absent = append(absent, at)
			}
			p := Place{at, Access(r.IntN(4))}
			if !slices.ContainsFunc(all, func(o Place) bool { return o.Path == at }) {
				all = append(all, p)
			}
		}
		list := append(files, absent...)
		if err := os.WriteFile(tmp+"-list", []byte(strings.Join(list, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		setPlaces(t, g, c, all...)
		for _, p := range absent {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := tryAll(t, dir, "equal", tmp)
		for _, p := range list {
			access, _ := longest(all, p)
			if want := fmt.Sprint(access&Read != 0, access&Write != 0); got[p] != want {
				t.Errorf("round %d: %s: read, write: %s, want %s", round, p, got[p], want)
			}
			for _, may := range []bool{access&Read != 0, access&Write != 0} {
				if may {
					allowed++
				} else {
					refused++
				}
			}
		}
	}
	if t.Logf("%d allowed, %d refused", allowed, refused); allowed == 0 || refused == 0 {
		t.Error("it shows nothing")
	}
}

// TestLSMEvents: a refusal is told with what it was about.
func TestLSMEvents(t *testing.T) {
	g := newKernelGate(t)
	tmp := t.TempDir()
	if err := os.WriteFile(tmp+"-list", []byte(tmp), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, c := governed(t, g, self(t))
	setLibraries(t, g, c, nil, self(t))
	setPlaces(t, g, c, Place{"/usr", Read}, Place{"/etc/ld.so.cache", Read}, Place{"/proc", Read}, Place{"/sys", Read}, Place{tmp + "-list", Read})
	events, err := g.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	tryAll(t, dir, "equal", tmp)
	var st unix.Stat_t
	if err := unix.Stat(tmp, &st); err != nil {
		t.Fatal(err)
	}
	for {
		e, err := events.Next(time.Now().Add(10 * time.Second))
		if err != nil {
			t.Fatalf("no event of the refused open: %v", err)
		}
		if e.Verb == "open" && e.Ino == st.Ino {
			if e.Why != "absent" || e.Cgroup != c || e.Dev == 0 || e.PID == 0 {
				t.Errorf("a refused open: %+v", e)
			}
			return
		}
	}
}

// count counts the entries of a cgroup.
func count(t *testing.T, g *Gate, c Cgroup) (inodes, names int) {
	t.Helper()
	var k lsmProgram
	var n lsmPlaceName
	var v uint32
	for it := g.maps[lsmMapPlaces].Iterate(); it.Next(&k, &v); {
		if k.Cgroup == uint64(c) {
			inodes++
		}
	}
	for it := g.maps[lsmMapNames].Iterate(); it.Next(&n, &v); {
		if n.Dir.Cgroup == uint64(c) {
			names++
		}
	}
	return inodes, names
}
