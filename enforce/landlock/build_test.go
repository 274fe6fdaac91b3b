//go:build linux

package landlock

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/internal/nobody"
)

var (
	all  = exeq.Access{Read: true, Write: true, Exec: exeq.ExecAll}
	read = exeq.Access{Read: true}
)

func rights(cells ...exeq.Cell) *exeq.Rights {
	slices.SortFunc(cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
	return &exeq.Rights{Version: 1, Cells: cells}
}

func both(p string, a exeq.Access) exeq.Cell {
	return exeq.Cell{Path: exeq.EncodeBytes(p), At: a, Under: a}
}

// under runs f on a thread restricted to r and gives the report.
func under(t *testing.T, r *exeq.Rights, o Options, f func()) Report {
	t.Helper()
	ruleset, rep, err := Build(r, o)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ruleset)
	onThread(func() {
		if err := Restrict(ruleset); err != nil {
			t.Error(err)
			return
		}
		f()
	})
	return rep
}

// TestNothingIsWrittenInPseudoFileSystems: the rights allow everything, the
// files belong to the user that runs the test.
func TestNothingIsWrittenInPseudoFileSystems(t *testing.T) {
	switches := []string{"/proc/self/oom_score_adj"}
	if os.Getuid() == 0 {
		switches = append(switches, "/proc/sys/kernel/core_pattern", "/sys/kernel/mm/transparent_hugepage/enabled")
	}
	open := opened(unix.O_WRONLY)
	for _, s := range switches {
		if err := open(s); err != nil {
			t.Fatalf("control: %s: %v", s, err)
		}
	}
	dir := t.TempDir()
	name := filepath.Join("/", filepath.Base(dir)+"-landlock-test")
	rep := under(t, rights(both("/", all)), Options{}, func() {
		for _, s := range switches {
			if err := open(s); err != unix.EACCES {
				t.Errorf("open %s for writing: %v, want EACCES", s, err)
			}
			if err := opened(unix.O_RDONLY)(s); err != nil {
				t.Errorf("open %s for reading: %v", s, err)
			}
		}
		if err := open("/dev/null"); err != nil {
			t.Errorf("open /dev/null for writing: %v", err)
		}
		if err := opened(unix.O_WRONLY | unix.O_CREAT)(filepath.Join(dir, "x")); err != nil {
			t.Errorf("create in a directory: %v", err)
		}
		if err := unix.Mkdir(name, 0o755); !denied(err) && err != unix.EROFS {
			t.Errorf("mkdir %s: %v", name, err)
			os.Remove(name)
		}
	})
	if !slices.ContainsFunc(rep.Narrowed, func(d Difference) bool { return d.Path == "/" && d.Access == Write }) {
		t.Errorf("the report does not say that / itself is narrowed: %+v", rep.Narrowed)
	}

	if rep = under(t, rights(both("/", all), both("/proc", read)), Options{}, func() {}); len(rep.Masks) != 1 || rep.Masks[0].Over != Exec {
		t.Errorf("masks %+v: what is never granted needs none", rep.Masks)
	}
	rep = under(t, rights(both("/", read), both("/proc", all), both("/proc/self", all)), Options{}, func() {
		if err := open(switches[0]); err != unix.EACCES {
			t.Errorf("open %s for writing: %v, want EACCES", switches[0], err)
		}
	})
	if !slices.ContainsFunc(rep.Narrowed, func(d Difference) bool { return d.Path == "/proc" && d.Access == Write }) {
		t.Errorf("the report does not say that /proc is narrowed: %+v", rep.Narrowed)
	}
}

func TestTooOldAKernelIsAnError(t *testing.T) {
	abi, err := ABI()
	if err != nil {
		t.Fatal(err)
	}
	fd, rep, err := Build(rights(both("/", read)), Options{MinABI: abi + 1})
	if err == nil || fd != -1 || rep.ABI != abi || !strings.Contains(err.Error(), "ABI") {
		t.Fatalf("got descriptor %d, report %+v, error %v", fd, rep, err)
	}
}

func TestRightsThatDoNotValidate(t *testing.T) {
	for _, r := range []*exeq.Rights{{}, {Version: 1}, {Version: 2, Cells: []exeq.Cell{both("/", all)}}} {
		if fd, _, err := Build(r, Options{}); err == nil || fd != -1 {
			t.Errorf("%+v: descriptor %d, error %v", r, fd, err)
		}
	}
}

func TestPorts(t *testing.T) {
	listen := func() (net.Listener, uint16) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l, uint16(l.Addr().(*net.TCPAddr).Port)
	}
	_, allowed := listen()
	_, other := listen()
	connect := func(port uint16) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	}
	bind := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	for _, err := range []error{connect(allowed), connect(other), bind()} {
		if err != nil {
			t.Fatalf("control: %v", err)
		}
	}
	under(t, rights(both("/", read)), Options{Net: true, Connect: []uint16{allowed}}, func() {
		if err := connect(allowed); err != nil {
			t.Errorf("connect to the allowed port: %v", err)
		}
		if err := connect(other); err != unix.EACCES {
			t.Errorf("connect to another port: %v, want EACCES", err)
		}
		if err := bind(); err != unix.EACCES {
			t.Errorf("bind: %v, want EACCES", err)
		}
	})
}

func TestScope(t *testing.T) {
	name := "\x00exeq-landlock-" + filepath.Base(t.TempDir())
	l, err := net.Listen("unix", "@"+name[1:])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + name[1:]})
	}
	// The other threads of this very process are outside the domain, and
	// signals among them are allowed: a child is needed.
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()
	signal := func() error { return unix.Kill(child.Process.Pid, 0) }
	if err := connect(); err != nil {
		t.Fatalf("control: %v", err)
	}
	if err := signal(); err != nil {
		t.Fatalf("control: %v", err)
	}
	rep := under(t, rights(both("/", read)), Options{Scope: true}, func() {
		if err := connect(); err != unix.EPERM {
			t.Errorf("connect to an abstract socket outside: %v, want EPERM", err)
		}
		if err := signal(); err != unix.EPERM {
			t.Errorf("signal to a process outside: %v, want EPERM", err)
		}
	})
	if rep.Scoped == 0 {
		t.Error("the report does not name the scopes")
	}
}

func TestLabelledReads(t *testing.T) {
	root, files, _ := tree(t)
	pii := exeq.Access{Read: true, Labels: []string{"pii"}}
	r := rights(both("/", exeq.Access{}), both(root, read), both(files[0], pii))
	rep := under(t, r, Options{}, func() {})
	if len(rep.Masks) != 1 || rep.Masks[0].Path != files[0] || rep.Masks[0].Over != Read {
		t.Errorf("masks %+v", rep.Masks)
	}
	if rep := under(t, r, Options{Labelled: true}, func() {}); len(rep.Masks) != 0 {
		t.Errorf("masks %+v where each open is asked about", rep.Masks)
	}
	r = rights(both("/", exeq.Access{}), both(root, pii))
	under(t, r, Options{}, func() {
		if err := opened(unix.O_RDONLY)(files[0]); err != unix.EACCES {
			t.Errorf("a labelled read: %v, want EACCES", err)
		}
	})
	under(t, r, Options{Labelled: true}, func() {
		if err := opened(unix.O_RDONLY)(files[0]); err != nil {
			t.Errorf("a labelled read where each open is asked about: %v", err)
		}
	})
}

func TestReplacedAreLate(t *testing.T) {
	root, files, _ := tree(t)
	rep := under(t, rights(both("/", exeq.Access{}), both(root, read)), Options{Replaced: []string{root}}, func() {
		if err := opened(unix.O_RDONLY)(files[0]); err != unix.EACCES {
			t.Errorf("read below a replaced directory: %v, want EACCES", err)
		}
	})
	if len(rep.Rules) != 0 || len(rep.Late) != 1 || rep.Late[0].Path != root {
		t.Errorf("rules %+v, late %+v", rep.Rules, rep.Late)
	}
}

// TestDevices: control of a device is granted with writing it.
func TestDevices(t *testing.T) {
	ptmx, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ptmx)
	winsize := func(flags int) error {
		fd, err := unix.Open("/dev/ptmx", flags|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	}
	if err := winsize(unix.O_RDWR); err != nil {
		t.Fatalf("control: %v", err)
	}
	under(t, rights(both("/", read), both("/dev", all)), Options{}, func() {
		if err := winsize(unix.O_RDWR); err != nil {
			t.Errorf("control of a writable device: %v", err)
		}
	})
	under(t, rights(both("/", read)), Options{}, func() {
		if err := winsize(unix.O_RDONLY); err != unix.EACCES {
			t.Errorf("control of a readable device: %v, want EACCES", err)
		}
	})
}

// TestFileGrantUnderGate: the directory gets EXECUTE, nothing else.
func TestFileGrantUnderGate(t *testing.T) {
	root, files, _ := tree(t)
	if err := execCheck(files[0]); err != nil {
		t.Skipf("the kernel cannot check an execution: %v", err)
	}
	r := rights(both("/", exeq.Access{}), both(root, read), both(files[0], exeq.Access{Read: true, Exec: exeq.ExecAsk}))
	rep := under(t, r, Options{Gated: true}, func() {
		if err := execCheck(files[0]); err != nil {
			t.Errorf("execute the file: %v", err)
		}
		if err := execCheck(files[6]); err != unix.EACCES {
			t.Errorf("execute a file elsewhere: %v, want EACCES", err)
		}
	})
	if len(rep.Masks) != 0 {
		t.Errorf("masks %+v", rep.Masks)
	}
}

func TestUnreachable(t *testing.T) {
	if os.Getuid() == 0 {
		return // root reaches everything; TestAsNobody runs this
	}
	root, files, dirs := tree(t)
	if err := os.Chmod(dirs[0], 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dirs[0], 0o755)
	rep := under(t, rights(both("/", exeq.Access{}), both(root, all), both(files[0], read)), Options{}, func() {})
	if len(rep.Missing) != 1 || !rep.Missing[0].Unreachable || rep.Missing[0].Over != Write|Exec {
		t.Errorf("missing %+v", rep.Missing)
	}
}

// TestAnothersMount: what root has mounted in a directory of its own costs
// another user the writing there, and not the whole ruleset.
func TestAnothersMount(t *testing.T) {
	const name = "EXEQ_TEST_MOUNTED"
	if os.Getuid() == 0 {
		dir := t.TempDir()
		if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
			t.Skipf("nothing can be mounted here: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, dir)
		nobody.Rerun(t, "TestAnothersMount$")
		return
	}
	mounted := os.Getenv(name)
	if mounted == "" {
		t.Skip("needs root, who mounts something in a directory of its own")
	}
	if _, err := os.ReadDir(filepath.Dir(mounted)); !os.IsPermission(err) {
		t.Fatalf("its directory can be listed: %v", err)
	}
	mine := filepath.Join(t.TempDir(), "file")
	rep := under(t, rights(both("/", all)), Options{}, func() {
		if err := os.WriteFile(mine, nil, 0o600); err != nil {
			t.Errorf("beside it: %v", err)
		}
	})
	for _, r := range rep.Rules {
		if r.Access&Write != 0 && within(mounted, r.Path) {
			t.Errorf("writing is granted on %s", r.Path)
		}
	}
}

func TestAsNobody(t *testing.T) {
	nobody.Rerun(t, "Rights|Pseudo|Kernel|Ports|Scope|Labelled|Late|Devices|Gate|Unreachable")
}
