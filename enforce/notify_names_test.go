//go:build linux

package enforce

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// What is written to is read from memory that another thread changes: whatever
// the supervisor made of it, what may not be written is not, and what was
// written is decided on before it runs.
func TestSwapWrites(t *testing.T) {
	b := newBox(t)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("fixed")+"=r")
	for _, name := range []string{"plain", "fixed"} {
		b.write(name, "as before", 0o666)
	}
	b.attack("swapwrite", b.path("plain"), b.path("fixed"))
	for name, code := range map[string]int{"good": 0, "evil": 77} {
		b.write(name+".c", fmt.Sprintf("int main(void) { return %d; }\n", code), 0o644)
		if out, err := exec.Command("gcc", "-o", b.path(name), b.path(name+".c")).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	evil := digestOfFile(t, b.path("evil"))
	b.gate.deny = func(a exeq.Activity) bool { return a.Resource.SHA256 == evil }
	b.attack("swapbuild", b.path("spot"), b.path("good"), b.path("evil"))
	b.works("exec", b.path("good")) // as it was left
}

// swapWrite writes, cuts, replaces and removes a path that changes to the
// protected one. It has won when that is not as it was.
func swapWrite(a []string) error {
	plain, fixed := a[0], a[1]
	was, err := os.ReadFile(fixed)
	if err != nil {
		return err
	}
	p, stop := flipping(plain, fixed)
	defer stop()
	for i := range 4000 {
		if err := os.WriteFile(plain, was, 0o666); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		switch i % 4 {
		case 0:
			writeAt(p, []byte("written"))
		case 1:
			unix.RawSyscall(unix.SYS_TRUNCATE, uintptr(p), 0, 0)
		case 2:
			unix.RawSyscall6(unix.SYS_UNLINKAT, atCWDArg, uintptr(p), 0, 0, 0, 0)
		case 3:
			if err := os.WriteFile(plain+".new", []byte("renamed"), 0o666); err != nil {
				return err
			}
			from, _ := unix.BytePtrFromString(plain + ".new")
			unix.RawSyscall6(unix.SYS_RENAMEAT2, atCWDArg, uintptr(unsafe.Pointer(from)), atCWDArg, uintptr(p), 0, 0)
		}
		if is, err := os.ReadFile(fixed); err != nil || !bytes.Equal(is, was) {
			return os.WriteFile(fixed, was, 0o666)
		}
	}
	return errors.New("never won")
}

// swapBuild writes the forbidden program to a path that changes to that of an
// approved one, and runs that.
func swapBuild(a []string) error {
	spot, good, evil := a[0], a[1], a[2]
	goodText, err := os.ReadFile(good)
	if err != nil {
		return err
	}
	evilText, err := os.ReadFile(evil)
	if err != nil {
		return err
	}
	p, stop := flipping(spot, good)
	defer stop()
	for range 300 {
		if err := exec.Command(good).Run(); err != nil {
			return fmt.Errorf("the approved program does not run: %w", err)
		}
		for range 16 {
			writeAt(p, evilText)
		}
		var exit *exec.ExitError
		err := exec.Command(good).Run()
		won := errors.As(err, &exit) && exit.ExitCode() == 77
		if err := os.WriteFile(good, goodText, 0o755); err != nil {
			return err
		}
		if won {
			return nil
		}
	}
	return errors.New("never won")
}

const atCWDArg = ^uintptr(99) // AT_FDCWD

// writeAt opens the path at p anew and writes to it.
func writeAt(p unsafe.Pointer, text []byte) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, atCWDArg, uintptr(p), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o755, 0, 0)
	if errno == 0 {
		unix.Write(int(fd), text)
		unix.Close(int(fd))
	}
}
