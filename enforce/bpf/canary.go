//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

const (
	canaryBase    = 0x400000
	canaryAddress = 0x200 // of what it is about, within the file and from the base
)

// SelfTest proves that the gate bites in the governed cgroup at path, with
// processes that are really started there: a program that is not allowed must
// die before its first system call, one that is allowed must run, and its
// connection to an address that is not allowed must be refused. Each is first
// shown to succeed outside, for a canary that cannot sing proves nothing.
//
// Call it before a workload is released, and release nothing on an error. It
// allows a program of its own for its own time, and leaves two denials among
// the events.
func (g *Gate) SelfTest(path string) error {
	if err := g.selfTest(path); err != nil {
		return fmt.Errorf("%w: self-test of the gate in %s: %w", exeq.ErrEnforce, path, err)
	}
	return nil
}

func (g *Gate) selfTest(path string) (err error) {
	dir, err := openCgroup(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	c, err := CgroupOf(path)
	if err != nil {
		return err
	}
	var have gateScope
	if err := g.maps[gateMapGoverned].Lookup(uint64(c), &have); err != nil {
		return ErrNotGoverned
	}
	if have.Revoked != 0 {
		return ErrRevoked
	}
	if err := g.Check(); err != nil {
		return err
	}

	sing, err := canary(canaryExec, nil)
	if err != nil {
		return err
	}
	defer sing.Close()
	disown, err := g.own(sing)
	if err != nil {
		return err
	}
	defer disown()
	if s, out, err := fly(sing, nil); err != nil || s.ExitStatus() != 99 || len(out) != 1 {
		return fmt.Errorf("the canary does not run outside: %v, exit status %d, %d bytes", err, s.ExitStatus(), len(out))
	}
	s, out, err := fly(sing, dir)
	refused := g.kernel && errors.Is(err, unix.EPERM)
	if err != nil && !refused {
		return err
	}
	if !refused && (len(out) != 0 || !s.Signaled() || s.Signal() != unix.SIGKILL) {
		return fmt.Errorf("a program that is not allowed ran in the governed cgroup (status %#x, wrote %d bytes)", uint32(s), len(out))
	}

	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	call, err := canary(canaryConnect, socketAddress(l.Addr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		return err
	}
	defer call.Close()
	if disown, err = g.own(call); err != nil {
		return err
	}
	defer disown()
	if s, _, err := fly(call, nil); err != nil || s.ExitStatus() != 0 {
		return fmt.Errorf("the canary does not connect outside: %v, exit status %d", err, s.ExitStatus())
	}
	s, err = g.flyAllowed(call, dir, c)
	switch {
	case err != nil:
		return err
	case s.Signaled():
		return fmt.Errorf("a program that is allowed died in the governed cgroup (%v); is a cgroup above it governed too?", s.Signal())
	case s.ExitStatus() != int(unix.EPERM):
		return fmt.Errorf("a connection that is not allowed was not refused (%v)", syscall.Errno(s.ExitStatus()))
	}
	if g.kernel {
		return g.selfTestLSM(dir, c)
	}
	return nil
}

// selfTestLSM: an allowed program must not map executable what is not allowed,
// nor open the pins of the gate.
func (g *Gate) selfTestLSM(dir *os.File, c Cgroup) error {
	maps, err := canary(canaryMap, nil)
	if err != nil {
		return err
	}
	defer maps.Close()
	disown, err := g.own(maps)
	if err != nil {
		return err
	}
	defer disown()
	other, err := canary(canaryExec, nil)
	if err != nil {
		return err
	}
	defer other.Close()
	if s, _, err := fly(maps, nil, other); err != nil || s.ExitStatus() != 0 {
		return fmt.Errorf("the canary does not map a file executable outside: %v, exit status %d", err, s.ExitStatus())
	}
	switch s, err := g.flyAllowed(maps, dir, c, other); {
	case err != nil:
		return err
	case s.ExitStatus() != int(unix.EPERM):
		return fmt.Errorf("a file that is not allowed was mapped executable (status %#x)", uint32(s))
	}

	// The gate's own pins are open to nobody inside.
	opens, err := canary(canaryOpen, append([]byte(g.dir), 0))
	if err != nil {
		return err
	}
	defer opens.Close()
	if disown, err = g.own(opens); err != nil {
		return err
	}
	defer disown()
	if s, _, err := fly(opens, nil); err != nil || s.ExitStatus() != 0 {
		return fmt.Errorf("the canary does not open %s outside: %v, exit status %d", g.dir, err, s.ExitStatus())
	}
	switch s, err := g.flyAllowed(opens, dir, c); {
	case err != nil:
		return err
	case s.ExitStatus() != int(unix.EPERM):
		return fmt.Errorf("%s was opened in the governed cgroup (status %#x)", g.dir, uint32(s))
	}
	return nil
}

// flyAllowed allows a canary for its own time.
func (g *Gate) flyAllowed(program, dir *os.File, c Cgroup, also ...*os.File) (syscall.WaitStatus, error) {
	f, err := g.Identify(program)
	if err != nil {
		return 0, err
	}
	if err := g.Allow(c, f); err != nil {
		return 0, err
	}
	s, _, err := fly(program, dir, also...)
	return s, errors.Join(err, g.Forbid(c, f))
}

// socketAddress is a sockaddr_in.
func socketAddress(to netip.AddrPort) []byte {
	sa := make([]byte, 16)
	binary.NativeEndian.PutUint16(sa, unix.AF_INET)
	binary.BigEndian.PutUint16(sa[2:], to.Port())
	copy(sa[4:], to.Addr().AsSlice())
	return sa
}

// canary makes a program in memory: the code, loaded at canaryBase, and what it
// is about, at canaryAddress from there.
func canary(code, about []byte) (*os.File, error) {
	const header, segment = 64, 56
	var b bytes.Buffer
	le, size := binary.LittleEndian, uint64(canaryAddress+len(about))
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	for _, v := range []any{
		uint16(2), uint16(canaryMachine), uint32(1), uint64(canaryBase + header + segment), uint64(header), uint64(0),
		uint32(0), uint16(header), uint16(segment), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(canaryBase), uint64(canaryBase), size, size, uint64(0x10000),
	} {
		binary.Write(&b, le, v)
	}
	b.Write(code)
	b.Write(make([]byte, canaryAddress-b.Len()))
	b.Write(about)

	fd, err := unix.MemfdCreate("exeq-canary", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("exeq-canary", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make a canary: %w", err)
	}
	w := os.NewFile(uintptr(fd), "exeq-canary")
	defer w.Close()
	if _, err := w.Write(b.Bytes()); err != nil {
		return nil, err
	}
	// What is open for writing does not execute.
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// fly runs the canary in the cgroup (nil: this process's), with what it also
// gets as descriptor 3, and gives its status and what it wrote.
func fly(program, cgroup *os.File, also ...*os.File) (syscall.WaitStatus, []byte, error) {
	return flyAs(nil, program, cgroup, also...)
}

// flyAs is fly as another user; nil: as this one.
func flyAs(who *syscall.Credential, program, cgroup *os.File, also ...*os.File) (syscall.WaitStatus, []byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	attr := &os.ProcAttr{Files: append([]*os.File{nil, w, nil}, append(also[:len(also):len(also)], program)...), Env: []string{}, Sys: &syscall.SysProcAttr{Setsid: true, Credential: who}}
	if cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(cgroup.Fd())
	}
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", 3+len(also)), []string{"exeq-canary"}, attr)
	w.Close()
	if err != nil {
		return 0, nil, fmt.Errorf("start the canary: %w", err)
	}
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	out, rerr := io.ReadAll(r)
	if rerr != nil {
		p.Kill()
	}
	s, err := p.Wait()
	if err == nil {
		err = rerr
	}
	if err != nil {
		return 0, nil, err
	}
	return s.Sys().(syscall.WaitStatus), out, nil
}
