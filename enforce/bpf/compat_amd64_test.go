//go:build linux

package bpf

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// compatIoctl is exit_group(-ioctl(0, TIOCSTI, 0)), called as 32-bit programs call.
var compatIoctl = []byte{
	0xb8, 54, 0, 0, 0, // mov eax, ioctl
	0x31, 0xdb, // xor ebx, ebx
	0xb9, 0x12, 0x54, 0, 0, // mov ecx, TIOCSTI
	0x31, 0xd2, // xor edx, edx
	0xcd, 0x80, // int 0x80
	0xf7, 0xd8, // neg eax
	0x89, 0xc7, // mov edi, eax
	0xb8, 231, 0, 0, 0, // mov eax, exit_group
	0x0f, 0x05, // syscall
}

// TestLSMIoctl32: a call of 32 bits types into no terminal either.
func TestLSMIoctl32(t *testing.T) {
	g := newKernelGate(t)
	dir, c := governed(t, g)
	setPlaces(t, g, c, Place{"/", Read | Write})
	prog, err := canary(compatIoctl, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	x, err := g.Identify(prog)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Allow(c, x); err != nil {
		t.Fatal(err)
	}
	run := func(cgroup string) *os.ProcessState {
		t.Helper()
		cmd := in(t, cgroup, "/proc/self/fd/3")
		cmd.ExtraFiles = []*os.File{prog}
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState
	}
	if free := run(""); free.ExitCode() != int(unix.ENOTTY) {
		t.Skipf("this kernel takes no calls of 32 bits: %v", free)
	}
	if held := run(dir); held.ExitCode() != int(unix.EPERM) {
		t.Errorf("TIOCSTI by a call of 32 bits: %v", held)
	}
}
