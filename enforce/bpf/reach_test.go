//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func socket(family, kind, protocol int) func(string) error {
	return func(string) error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func dial(network, at string) func(string) error {
	return func(dir string) error {
		if at[0] != '@' {
			at = dir + "/" + at
		}
		c, err := net.Dial(network, at)
		if err == nil {
			c.Close()
		}
		return err
	}
}

// victim gives the process outside that the test started.
func victim(dir string) int {
	b, _ := os.ReadFile(dir + "/victim")
	pid, _ := strconv.Atoi(string(b))
	return pid
}

// child starts a process of the attacker's own and passes its number.
func child(f func(pid int) error) func(string) error {
	return func(dir string) error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"EXEQ_BPF_TRY=wait\n"}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		return f(cmd.Process.Pid)
	}
}

func seize(pid int) error {
	runtime.LockOSThread()
	if _, _, no := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); no != 0 {
		return no
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return err
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return err
	}
	return unix.PtraceDetach(pid)
}

func call(trap uintptr, a ...uintptr) error {
	a = append(a, 0, 0, 0, 0, 0, 0)
	fd, _, no := unix.Syscall6(trap, a[0], a[1], a[2], a[3], a[4], a[5])
	if no != 0 {
		return no
	}
	if fd > 2 {
		unix.Close(int(fd))
	}
	return nil
}

// fresh runs something in a thread that is not used again.
func fresh(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

var reachAttempts = []attempt{
	{"tcp", socket(unix.AF_INET, unix.SOCK_STREAM, 0)},
	{"udp6", socket(unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP)},
	{"interfaces", func(string) error { _, err := net.Interfaces(); return err }},
	{"pair", func(string) error {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err == nil {
			err = unix.Send(p[0], []byte("x"), 0)
		}
		return err
	}},
	{"unix-own", func(dir string) error {
		os.Remove(dir + "/own")
		l, err := net.Listen("unix", dir+"/own")
		if err != nil {
			return err
		}
		defer l.Close()
		return dial("unix", "own")(dir)
	}},
	{"unix-open", dial("unix", "open/socket")},
	{"unix-abstract-set", dial("unix", "@exeq-test-set")},
	{"kill-child", child(func(pid int) error { return unix.Kill(pid, unix.SIGKILL) })},
	{"trace-child", child(seize)},

	{"packet", socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300)},
	{"uevents", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT)},
	{"audit", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)},
	{"raw", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
	{"mptcp", socket(unix.AF_INET, unix.SOCK_STREAM, 262)},
	{"listen-unbound", func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Listen(fd, 1)
	}},
	{"unix-shut", dial("unix", "shut/socket")},
	{"unix-shut-datagram", dial("unixgram", "shut/datagram")},
	{"unix-abstract", dial("unix", "@exeq-test-other")},

	{"trace", func(dir string) error { return fresh(func() error { return seize(victim(dir)) }) }},
	{"memory", func(dir string) error { return open(unix.O_RDWR, "mem")(fmt.Sprintf("/proc/%d", victim(dir))) }},
	{"environment", func(dir string) error { return open(unix.O_RDONLY, "environ")(fmt.Sprintf("/proc/%d", victim(dir))) }},
	{"vm-read", func(dir string) error {
		// The loader's base is not known: an address that is not mapped is
		// looked at only by who may look.
		b := make([]byte, 8)
		_, err := unix.ProcessVMReadv(victim(dir), []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 8, Len: 8}}, 0)
		if err == unix.EFAULT {
			return nil
		}
		return err
	}},
	{"take-descriptor", func(dir string) error {
		fd, err := unix.PidfdOpen(victim(dir), 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		got, err := unix.PidfdGetfd(fd, 0, 0)
		if err == nil {
			unix.Close(got)
		}
		return err
	}},
	{"kill", func(dir string) error { return unix.Kill(victim(dir), unix.SIGCONT) }},
	{"kill-0", func(dir string) error { return unix.Kill(victim(dir), 0) }},
	{"kill-thread", func(dir string) error { return unix.Tgkill(victim(dir), victim(dir), unix.SIGCONT) }},
	{"kill-by-pidfd", func(dir string) error {
		fd, err := unix.PidfdOpen(victim(dir), 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
	}},
	{"kill-group", func(dir string) error { return unix.Kill(-victim(dir), unix.SIGCONT) }},
	{"owner", func(dir string) error {
		_, err := unix.FcntlInt(0, unix.F_SETOWN, victim(dir))
		return err
	}},
	{"signal-of-choice", func(string) error { _, err := unix.FcntlInt(0, 10, int(unix.SIGURG)); return err }},
	{"owner-ioctl", func(dir string) error {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(p[0], 0x8901, victim(dir))
	}},
	{"nice", func(dir string) error { return unix.Setpriority(unix.PRIO_PROCESS, victim(dir), 1) }},
	{"affinity", func(dir string) error {
		var s unix.CPUSet
		s.Set(0)
		return unix.SchedSetaffinity(victim(dir), &s)
	}},

	{"mount", func(dir string) error {
		if err := unix.Mount("x", dir+"/mnt", "tmpfs", 0, ""); err != nil {
			return err
		}
		return unix.Unmount(dir+"/mnt", 0)
	}},
	{"bind", func(dir string) error {
		if err := unix.Mount(dir+"/open", dir+"/mnt", "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return unix.Unmount(dir+"/mnt", 0)
	}},
	{"clone-mount", func(dir string) error { return call(unix.SYS_OPEN_TREE, ^uintptr(99), path(dir+"/open"), 1) }},
	{"unmount", func(dir string) error {
		if err := unix.Unmount(dir+"/mounted", 0); err != nil {
			return err
		}
		return unix.Mount("x", dir+"/mounted", "tmpfs", 0, "")
	}},
	{"move-mount", func(dir string) error {
		fd, err := unix.OpenTree(-1, dir+"/open", 1) // OPEN_TREE_CLONE
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.MoveMount(fd, "", -1, dir+"/mnt", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return err
		}
		return unix.Unmount(dir+"/mnt", unix.MNT_DETACH) // the descriptor is there still
	}},
	{"new-filesystem", func(string) error { return call(unix.SYS_FSOPEN, path("tmpfs"), 0) }},
	{"mount-namespace", func(string) error { return fresh(func() error { return unix.Unshare(unix.CLONE_NEWNS) }) }},
	{"user-namespace", func(dir string) error {
		cmd := exec.Command(dir + "/good")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		return runs(cmd)
	}},
	{"bpf", func(string) error {
		attr := [8]uint32{2, 4, 4, 1} // an array of one
		return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}},
	{"perf", func(string) error {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: unix.PERF_ATTR_SIZE_VER0}
		return call(unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&attr)), 0, ^uintptr(0), ^uintptr(0), 0)
	}},
	{"uring-thread", func(string) error {
		var params [30]uint32
		params[2] = 2 // IORING_SETUP_SQPOLL
		return call(unix.SYS_IO_URING_SETUP, 2, uintptr(unsafe.Pointer(&params)))
	}},
	{"uring-credentials", func(dir string) error { return uringOpen(dir+"/good", true) }},
	{"host-name", func(string) error {
		b, err := os.ReadFile("/proc/sys/kernel/hostname")
		if err != nil {
			return err
		}
		return unix.Sethostname([]byte(strings.TrimSpace(string(b))))
	}},
	{"device", func(dir string) error {
		return made(dir+"/open/dev", unix.Mknod(dir+"/open/dev", unix.S_IFCHR|0o600, 1<<8|3))
	}},
	{"memory-device", func(string) error { return open(unix.O_RDONLY, "mem")("/dev") }},
	// Where kernel.dmesg_restrict is on, as in Debian.
	{"kernel-log", func(string) error { _, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 16)); return err }},
	{"interface-up", func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	}},
}

func path(s string) uintptr {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	keep = append(keep, b)
	return uintptr(unsafe.Pointer(b))
}

var keep []*byte // what the kernel was given addresses of

// TestLSMReach: sockets, other processes and the kernel itself, uid 0 or not.
func TestLSMReach(t *testing.T) {
	g := newKernelGate(t)
	tmp := t.TempDir()
	good := marker(t, filepath.Join(tmp, "good"))
	for _, d := range []string{"open", "shut", "mnt", "mounted"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []string{tmp + "/open/socket", tmp + "/shut/socket", "@exeq-test-set", "@exeq-test-other"} {
		l, err := net.Listen("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if err := unix.Mount("x", tmp+"/mounted", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(tmp+"/mounted", unix.MNT_DETACH)
	l, err := net.ListenPacket("unixgram", tmp+"/shut/datagram")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sleep := in(t, "", real(t, "sleep"), "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	if err := os.WriteFile(tmp+"/victim", fmt.Append(nil, sleep.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}

	dir, c := governed(t, g, self(t), good)
	setLibraries(t, g, c, nil, self(t))
	setPlaces(t, g, c, Place{"/", Read | Write}, Place{tmp + "/shut", Read})
	// The names are set, so that it is the inode that is refused.
	if err := g.SetUnixNames(c, []string{tmp + "/own", tmp + "/open/socket", tmp + "/shut/socket", tmp + "/shut/datagram", "\x00exeq-test-set"}); err != nil {
		t.Fatal(err)
	}
	works := []string{"tcp", "udp6", "interfaces", "pair", "unix-own", "unix-open", "unix-abstract-set", "kill-child", "trace-child",
		"memory=EACCES", "environment=EACCES"}
	compare(t, dir, "reach", tmp, append(works, "perf=EACCES")...)
	// Without check_capable: what the other programs hold by themselves.
	if err := os.Remove(filepath.Join(g.dir, "link-"+lsmProgCheckCapable)); err != nil {
		t.Fatal(err)
	}
	g.links[lsmProgCheckCapable].Close()
	compare(t, dir, "reach", tmp, append(works, "clone-mount", "new-filesystem", "mount-namespace", "host-name", "memory-device", "kernel-log", "interface-up")...)
	if err := sleep.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process outside: %v", err)
	}
	// Revoked, it does nothing more of it.
	if err := g.Revoke(c); err != nil {
		t.Fatal(err)
	}
	if err := in(t, dir, self(t)).Run(); !errors.Is(err, unix.EPERM) {
		t.Errorf("revoked, a start gives %v", err)
	}
}
