//go:build linux

package enforce

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// helper gives the argument vector of a helper that runs from the workspace.
func (b *box) helper(args ...string) []string {
	b.t.Helper()
	p := b.path("helper-program")
	if _, err := os.Stat(p); err != nil {
		b.copy(os.Args[0], "helper-program")
	}
	return append([]string{p, "helper"}, args...)
}

// attack runs a helper without governance, where it must succeed, and then
// inside, where it must not.
func (b *box) attack(args ...string) string {
	b.t.Helper()
	argv := b.helper(args...)
	control := exec.Command(argv[0], argv[1:]...)
	control.Dir = b.dir
	if out, err := control.CombinedOutput(); err != nil {
		b.t.Fatalf("control of %q failed, so the attack proves nothing: %v %s", args, err, out)
	}
	return b.refused(args...)
}

func (b *box) refused(args ...string) string {
	b.t.Helper()
	code, out := b.run(b.helper(args...)...)
	if code == 0 || strings.Contains(out, "ok\n") {
		b.t.Errorf("%q succeeded: %s", args, out)
	}
	return out
}

func (b *box) works(args ...string) {
	b.t.Helper()
	if code, out := b.run(b.helper(args...)...); code != 0 || !strings.HasSuffix(out, "ok\n") {
		b.t.Errorf("%q: exit %d: %s (messages %q)", args, code, out, b.msgs.String())
	}
}

func denyPrograms(suffix string) func(exeq.Activity) bool {
	return func(a exeq.Activity) bool { return strings.HasSuffix(a.Resource.ID, suffix) }
}

func TestForbiddenProgram(t *testing.T) {
	b := newBox(t)
	b.gate.deny = denyPrograms("/forbidden")
	p := b.copy("/bin/true", "forbidden")
	b.attack("exec", p)
	if want := "exec " + p + " denied by the test"; strings.Count(b.msgs.String(), want) != 1 {
		t.Errorf("messages: %q", b.msgs.String())
	}
	// By other names of the same file.
	for _, name := range []string{"/proc/self/root" + p, "/proc/self/cwd/forbidden", b.dir + "/../work/forbidden"} {
		b.attack("exec", name)
	}
	if err := os.Symlink("forbidden", b.path("link")); err != nil {
		t.Fatal(err)
	}
	b.attack("exec", b.path("link"))
}

func TestNoExecRight(t *testing.T) {
	b := newBox(t)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("data")+"=rw")
	p := b.copy("/bin/true", "data/program")
	b.attack("exec", p)
}

func TestLoaderTricks(t *testing.T) {
	b := newBox(t)
	b.gate.deny = denyPrograms("/forbidden")
	p := b.copy("/bin/true", "forbidden")
	b.attack("exec", "/lib64/ld-linux-x86-64.so.2", p)
	b.attack("mapexec", p)
	b.attack("mprotect", p)
	b.attack("memfd", p)
}

func TestPreloadIsDecided(t *testing.T) {
	b := newBox(t)
	b.write("evil.c", "#include <unistd.h>\n__attribute__((constructor)) static void f(void) { write(1, \"preloaded\\n\", 10); }\n", 0o644)
	lib := b.path("evil.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", lib, b.path("evil.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	b.env = append(b.env, "LD_PRELOAD="+lib)
	b.want(0, "preloaded\nhi\n", "sh", "-c", "echo hi") // asked and allowed
	if b.gate.asked(exeq.ActionMap, "/evil.so") == 0 {
		t.Error("the library was never put to the gate")
	}
	b.gate.deny = denyPrograms("/evil.so")
	if _, out := b.run("sh", "-c", "echo hi"); strings.Contains(out, "preloaded\n") {
		t.Errorf("a denied library ran: %q", out)
	}
}

func TestShebang(t *testing.T) {
	b := newBox(t)
	interp := b.copy("/bin/sh", "interp")
	s := b.write("script", "#!"+interp+"\necho from script\n", 0o755)
	b.want(0, "from script\n", "sh", "-c", s)
	if b.gate.asked(exeq.ActionExec, "/script") != 1 || b.gate.asked(exeq.ActionExec, "/interp") != 1 {
		t.Errorf("asked: %v", b.gate.asks)
	}
	b.gate.deny = denyPrograms("/interp")
	if _, out := b.run("sh", "-c", s); strings.Contains(out, "from script") {
		t.Error("the script ran although its interpreter is denied")
	}
	b.gate.deny = denyPrograms("/script")
	if _, out := b.run("sh", "-c", s); strings.Contains(out, "from script") {
		t.Error("the script ran although it is denied")
	}
}

func TestSwapRaces(t *testing.T) {
	b := newBox(t)
	b.gate.deny = denyPrograms("/bad")
	for name, code := range map[string]int{"good": 0, "bad": 77} {
		b.write(name+".c", fmt.Sprintf("int main(void) { return %d; }\n", code), 0o644)
		if out, err := exec.Command("gcc", "-o", b.path(name), b.path(name+".c")).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	b.attack("swapmem", b.path("good"), b.path("bad"))
	digestOf := func(name string) exeq.Digest { return digestOfFile(t, b.path(name)) }
	bad := digestOf("bad")
	b.gate.deny = func(a exeq.Activity) bool { return a.Resource.SHA256 == bad }
	b.attack("swappath", b.path("path"), b.path("good"), b.path("bad"))
}

func TestNamespacesStay(t *testing.T) {
	b := newBox(t)
	for _, a := range [][]string{{"userns"}, {"cloneuserns"}, {"mount"}, {"iouring"}, {"umount", "/proc"}, {"umount", b.dir}} {
		b.refused(a...)
	}
	b.refused("ptrace")
	b.refused("readmem")
	b.refused("killinit")
	b.refused("caps")
	b.refused("fds")
	b.refused("write", "/proc/sys/kernel/core_pattern")
	b.refused("write", "/sys/kernel/uevent_helper")
	b.works("listen")
}

func TestHidden(t *testing.T) {
	b := newBox(t)
	state := filepath.Join(filepath.Dir(b.dir), "state")
	secret := filepath.Join(state, "secret")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{secret, "/proc/self/root" + secret, filepath.Join(b.dir, "../state/secret")} {
		b.attack("open", p)
	}
	b.refused("write", secret)
	b.refused("open", filepath.Join(state, "programs"))
}

// What leads to a hidden path keeps its name: else another could be put there,
// and the next start would take it for Exeq's own.
func TestHiddenByRenamedParent(t *testing.T) {
	for _, kind := range []string{"directory", "file"} {
		b := newBox(t)
		hidden := b.path("conf/deep/state")
		if kind == "file" {
			b.write("conf/deep/state", "ours", 0o644)
		} else {
			b.write("conf/deep/state/x", "ours", 0o644)
		}
		b.write("beside/y", "", 0o644)
		b.setup = func(l *exeq.Launch) { l.Hidden = append(l.Hidden, hidden) }
		code, out := b.run("sh", "-c", `
mv conf conf2 && echo MOVED
mv conf/deep conf/deep2 && echo MOVED
mv conf/deep/state conf/deep/state2 && echo MOVED
rm -rf conf && echo MOVED
mkdir -p conf/deep/state && echo theirs >conf/deep/state/x
mv beside beside2 && touch conf/new conf/deep/new && mv conf/new conf/newer && echo WORKED`)
		if strings.Contains(out, "MOVED") || !strings.Contains(out, "WORKED") {
			t.Errorf("%s: exit %d: %s", kind, code, out)
		}
		name := hidden
		if kind != "file" {
			name += "/x"
		}
		if got, err := os.ReadFile(name); string(got) != "ours" {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
}

func TestMasks(t *testing.T) {
	b := newBox(t)
	b.write("open/a", "a", 0o644)
	b.write("closed/b", "b", 0o644)
	b.write("closed/again/c", "c", 0o644)
	b.write("fixed/d", "d", 0o644)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("closed")+"=", b.path("closed/again")+"=r", b.path("fixed")+"=r")
	b.works("open", b.path("open/a"))
	b.works("write", b.path("open/a"))
	b.attack("open", b.path("closed/b"))
	b.works("open", b.path("closed/again/c"))
	b.attack("write", b.path("closed/again/c"))
	b.works("open", b.path("fixed/d"))
	b.attack("write", b.path("fixed/d"))
	b.attack("chmod", b.path("fixed/d"))
	if code, out := b.run("sh", "-c", "mv closed other || mv fixed other || rm -rf fixed closed/again"); code == 0 {
		t.Errorf("a protected path could be moved: %s", out)
	}
	if _, err := os.Stat(b.path("fixed/d")); err != nil {
		t.Error(err)
	}
}

func TestOutsideIsReadOnly(t *testing.T) {
	b := newBox(t)
	outside := filepath.Join(filepath.Dir(b.dir), "outside")
	if err := os.WriteFile(outside, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	b.attack("write", outside)
	b.attack("chmod", outside)
}

func TestNetwork(t *testing.T) {
	b := newBox(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock := b.path("host.sock")
	u, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	a, err := net.Listen("unix", "@exeq-test-"+filepath.Base(filepath.Dir(b.dir)))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, s := range []net.Listener{l, u, a} {
		go greet(s)
	}
	b.attack("dial", "tcp", l.Addr().String())
	b.attack("dial", "unix", sock)
	b.attack("dial", "unix", a.Addr().String())
	b.works("unixpair", b.path("own.sock"))
	// The one way out.
	b.setup = func(l *exeq.Launch) { l.Egress = greet }
	code, out := b.run("sh", "-c", `a=${https_proxy#http://}; [ "$HTTP_PROXY" = "http://$a" ] && [ -z "$no_proxy" ] && `+b.helper()[0]+` helper dial tcp "$a"`)
	if code != 0 || out != "hello ok\n" {
		t.Errorf("the proxy was not reached: exit %d %s", code, out)
	}
}

func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Write([]byte("hello"))
		c.Close()
	}
}

// A device node in the workspace is no door to the device.
func TestDeviceNodes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make one")
	}
	b := newBox(t)
	if err := unix.Mknod(b.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	b.attack("write", b.path("null"))
	b.works("write", "/dev/null")
	b.refused("open", "/dev/mem")
}
