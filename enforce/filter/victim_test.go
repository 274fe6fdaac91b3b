//go:build linux

package filter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A victim is this test binary started again: it installs the filter, tries
// every act and prints the errno of each. The control is the same without the
// filter. An act counts only if the control reached the kernel's own code, so
// got another answer than the governed one.

const victimEnv = "EXEQ_FILTER_VICTIM"

func TestMain(m *testing.M) {
	switch os.Getenv(victimEnv) {
	case "":
		os.Exit(m.Run())
	case "control":
		victim(false)
	case "governed":
		victim(true)
	case "exec-control":
		execVictim(false)
	case "exec-governed":
		execVictim(true)
	case "int80":
		install(Options{})
		fallthrough
	case "int80-control":
		fmt.Print(int80())
	}
	os.Exit(0)
}

var victimOptions = Options{Unix: true}

func install(o Options) {
	prog, err := Assemble(o)
	if err == nil {
		_, err = Install(prog, unix.SECCOMP_FILTER_FLAG_TSYNC)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func victim(governed bool) {
	runtime.LockOSThread()
	dir, err := os.MkdirTemp("", "victim")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	defer os.RemoveAll(dir)
	if governed {
		install(victimOptions)
	}
	out := map[string]unix.Errno{}
	for _, a := range acts(dir) {
		out[a.name] = a.try()
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		os.Exit(3)
	}
}

type act struct {
	name string
	want unix.Errno // when governed; 0: must succeed when governed, too
	try  func() unix.Errno
	// control: what the ungoverned control must get; reached means anything
	// but want.
	control unix.Errno
}

const reached = unix.Errno(0xffff)

func call(name string, args ...uintptr) func() unix.Errno {
	var a [6]uintptr
	copy(a[:], args)
	return func() unix.Errno {
		nr := Number(name)
		if nr < 0 {
			return unix.ENOTSUP
		}
		_, _, errno := unix.Syscall6(uintptr(nr), a[0], a[1], a[2], a[3], a[4], a[5])
		return errno
	}
}

const bad = ^uintptr(0) // a descriptor and a pointer that are none

func ptr(b *[64]byte) uintptr { return uintptr(unsafe.Pointer(b)) }

var (
	emptyName = &[64]byte{}
	sink      [64]byte
)

// clone makes a child that ends at once.
func clone(flags uintptr) func() unix.Errno {
	return func() unix.Errno {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			for {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		if errno == 0 {
			var ws unix.WaitStatus
			unix.Wait4(int(pid), &ws, 0, nil)
		}
		return errno
	}
}

func acts(dir string) []act {
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		panic(err)
	}
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	cstr := func(s string) uintptr {
		var b [64]byte
		if copy(b[:], s) == len(b) {
			panic("path too long")
		}
		p := new([64]byte)
		*p = b
		kept = append(kept, p)
		return ptr(p)
	}
	path := cstr(file)
	sock := func(f, k, p uintptr) func() unix.Errno { return call("socket", f, k, p) }
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tcp = -1 // governed: the rule on socket stands before
	}
	var out []act
	for _, r := range refused { // with arguments that no kernel code accepts
		for _, c := range strings.Fields(r.calls) {
			if Number(c) >= 0 {
				out = append(out, act{c, unix.Errno(r.action & unix.SECCOMP_RET_DATA), call(c, bad, bad, bad, bad, bad, bad), reached})
			}
		}
	}
	return append(out, []act{
		{"clone with a user namespace", unix.EPERM, clone(unix.CLONE_NEWUSER), 0},
		{"clone with every namespace", unix.EPERM, clone(cloneNewAny), 0},
		{"clone hidden from a tracer", unix.EPERM, clone(unix.CLONE_UNTRACED), 0},
		{"plain clone", 0, clone(0), 0},
		{"clone with garbage above bit 31", unix.EPERM, clone(unix.CLONE_NEWUSER | 1<<40), 0},
		{"unshare a user namespace", unix.EPERM, call("unshare", unix.CLONE_NEWUSER), reached}, // EINVAL: threads
		{"unshare the files", 0, call("unshare", unix.CLONE_FILES), 0},
		{"ptrace", unix.EPERM, call("ptrace", unix.PTRACE_PEEKDATA, bad), reached},
		{"process_vm_readv", unix.EPERM, call("process_vm_readv", uintptr(os.Getpid())), 0},
		{"personality READ_IMPLIES_EXEC", unix.EPERM, call("personality", readImpliesExec), 0},
		{"personality query", 0, call("personality", personaQuery), 0},
		{"personality without randomisation", 0, call("personality", 0x0040000), 0},
		{"prctl PR_SET_MM", unix.EPERM, call("prctl", unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, ptr(&sink)), 0},
		{"prctl PR_SET_NAME", 0, call("prctl", unix.PR_SET_NAME, ptr(emptyName)), 0},
		{"seccomp new listener", unix.EPERM, call("seccomp", unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, 0), reached},
		{"seccomp new listener, garbage above", unix.EPERM, call("seccomp", 1|1<<35, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|1<<36, 0), reached},
		{"seccomp further filter", unix.EFAULT, call("seccomp", unix.SECCOMP_SET_MODE_FILTER, 0, 0), unix.EFAULT},
		{"memfd", unix.EPERM, call("memfd_create", ptr(emptyName), 0), 0},
		{"memfd executable", unix.EPERM, call("memfd_create", ptr(emptyName), unix.MFD_EXEC), 0},
		{"memfd sealed", 0, call("memfd_create", ptr(emptyName), unix.MFD_NOEXEC_SEAL), 0},
		{"openat2", unix.ENOSYS, call("openat2", bad, bad, bad, bad), reached},
		{"create set-user-ID", unix.EPERM, call("openat", bad, cstr(file+"1"), unix.O_CREAT|unix.O_WRONLY, 0o4755), 0},
		{"create unnamed set-user-ID", unix.EPERM, call("openat", bad, cstr(dir), unix.O_TMPFILE|unix.O_WRONLY, 0o4755), 0},
		{"create", 0, call("openat", bad, cstr(file+"2"), unix.O_CREAT|unix.O_WRONLY, 0o755), 0},
		{"chmod set-user-ID", unix.EPERM, call("fchmodat", bad, path, 0o4755), 0},
		{"fchmod set-user-ID", unix.EPERM, call("fchmod", uintptr(fd), 0o4755), 0},
		{"fchmodat2 set-user-ID", unix.EPERM, call("fchmodat2", bad, path, 0o4755, 0), 0},
		{"mknod set-user-ID", unix.EPERM, call("mknodat", bad, cstr(file+"3"), unix.S_IFREG|0o4755, 0), 0},
		{"chmod", 0, call("fchmodat", bad, path, 0o755), 0},
		{"TIOCSTI", unix.EPERM, call("ioctl", uintptr(fd), unix.TIOCSTI, 0), unix.ENOTTY},
		{"TIOCSTI, garbage above", unix.EPERM, call("ioctl", uintptr(fd), unix.TIOCSTI|1<<32, 0), unix.ENOTTY},
		{"TIOCLINUX", unix.EPERM, call("ioctl", uintptr(fd), unix.TIOCLINUX, 0), unix.ENOTTY},
		{"TIOCSETD", unix.EPERM, call("ioctl", uintptr(fd), unix.TIOCSETD, 0), unix.ENOTTY},
		{"TIOCCONS", unix.EPERM, call("ioctl", uintptr(fd), unix.TIOCCONS, 0), unix.ENOTTY},
		{"USERFAULTFD_IOC_NEW", unix.EPERM, call("ioctl", uintptr(fd), userfaultfdNew, 0), unix.ENOTTY},
		{"TCGETS", unix.ENOTTY, call("ioctl", uintptr(fd), unix.TCGETS, 0), unix.ENOTTY},
		{"TCP socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_STREAM, 0), 0},
		{"TCP socket, garbage above", unix.EACCES, sock(unix.AF_INET|1<<32, unix.SOCK_STREAM, 0), 0},
		{"TCP6 socket", unix.EACCES, sock(unix.AF_INET6, unix.SOCK_STREAM, 0), reached},
		{"UDP socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_DGRAM, 0), 0},
		{"MPTCP socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), reached},
		{"SCTP socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), reached},
		{"UDPLITE socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE), reached},
		{"ping socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), reached},
		{"netlink socket", unix.EACCES, sock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), 0},
		{"netfilter socket", unix.EACCES, sock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER), 0},
		{"vsock socket", unix.EACCES, sock(unix.AF_VSOCK, unix.SOCK_STREAM, 0), reached},
		{"crypto socket", unix.EACCES, sock(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), reached},
		{"unix socket", 0, sock(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0), 0},
		{"unix datagram socket", unix.EACCES, sock(unix.AF_UNIX, unix.SOCK_DGRAM, 0), 0},
		{"unix raw socket", unix.EACCES, sock(unix.AF_UNIX, unix.SOCK_RAW, 0), 0},
		{"unix pair", 0, call("socketpair", unix.AF_UNIX, unix.SOCK_STREAM, 0, ptr(&sink)), 0},
		{"unix datagram pair", unix.EACCES, call("socketpair", unix.AF_UNIX, unix.SOCK_DGRAM, 0, ptr(&sink)), 0},
		{"fast open by sendto", unix.EPERM, call("sendto", uintptr(tcp), ptr(&sink), 1, unix.MSG_FASTOPEN, ptr(emptyName), 16), reached},
		{"fast open by sendmsg", unix.EPERM, call("sendmsg", uintptr(tcp), bad, unix.MSG_FASTOPEN), reached},
		{"fast open by sendmmsg", unix.EPERM, call("sendmmsg", uintptr(tcp), bad, 1, unix.MSG_FASTOPEN), reached},
		{"TCP_ULP", unix.EPERM, call("setsockopt", uintptr(tcp), solTCP, unix.TCP_ULP, bad, 3), reached},
		{"TCP_FASTOPEN_CONNECT", unix.EPERM, call("setsockopt", uintptr(tcp), solTCP, unix.TCP_FASTOPEN_CONNECT, bad, 4), reached},
		{"SO_ATTACH_BPF", unix.EPERM, call("setsockopt", uintptr(tcp), unix.SOL_SOCKET, unix.SO_ATTACH_BPF, bad, 4), reached},
		{"a call from the future", unix.ENOSYS, func() unix.Errno { _, _, e := unix.Syscall(999, 0, 0, 0); return e }, unix.ENOSYS},
		{"packet socket", unix.EACCES, sock(unix.AF_PACKET, unix.SOCK_RAW, 0), reached},
		{"raw socket", unix.EACCES, sock(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), reached},
	}...)
}

var kept []*[64]byte // C strings, alive as long as the acts

func start(t *testing.T, mode string, uid int) (stdout []byte, state *os.ProcessState) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), victimEnv+"="+mode, "TMPDIR="+os.TempDir())
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	var so, se bytes.Buffer
	cmd.Stdout, cmd.Stderr = &so, &se
	err = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("%s: %v", mode, err)
	}
	if cmd.ProcessState.ExitCode() > 0 {
		t.Fatalf("%s: %v: %s", mode, err, se.Bytes())
	}
	return so.Bytes(), cmd.ProcessState
}

// absentHere are calls that kernels are commonly built without; the control
// gets ENOSYS or EOPNOTSUPP for them, so nothing is shown of them but by the
// comparison of program and table.
var absentHere = "kexec_load kexec_file_load init_module finit_module delete_module lookup_dcookie uselib " +
	"userfaultfd io_uring_setup io_uring_enter io_uring_register memfd_secret " +
	"_sysctl afs_syscall create_module get_kernel_syms getpmsg putpmsg query_module nfsservctl security " +
	"tuxcall vserver epoll_ctl_old epoll_wait_old sysfs ustat listns open_tree_attr modify_ldt quotactl swapon swapoff ping socket"

func TestVictims(t *testing.T) {
	uids := []int{os.Getuid()}
	if os.Getuid() == 0 {
		shareBinary(t)
		uids = append(uids, 65534)
	}
	for _, uid := range uids {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) {
			var control, governed map[string]unix.Errno
			for mode, into := range map[string]*map[string]unix.Errno{"control": &control, "governed": &governed} {
				out, _ := start(t, mode, uid)
				if err := json.Unmarshal(out, into); err != nil {
					t.Fatalf("%s: %v: %q", mode, err, out)
				}
			}
			shown := 0
			for _, a := range acts(t.TempDir()) {
				c, g := control[a.name], governed[a.name]
				if g != a.want {
					t.Errorf("%s: governed got %v, want %v", a.name, g, a.want)
				}
				switch {
				case a.control == reached && c != a.want, a.control != reached && c == a.control:
					shown++
				case uid != 0 && (c == unix.EPERM || c == unix.EACCES):
					// Refused to this user by the kernel too; root's round shows it.
				case strings.Contains(" "+absentHere+" ", " "+a.name+" ") && (c == unix.ENOSYS || c == unix.EOPNOTSUPP || c == a.want):
					t.Logf("%s: this kernel answers %v to everybody", a.name, c)
				default:
					t.Errorf("%s: the control got %v: the act proves nothing", a.name, c)
				}
			}
			t.Logf("%d acts shown", shown)
			if uid == 0 && shown < 80 {
				t.Errorf("only %d acts were shown", shown)
			}
		})
	}
}

// shareBinary lets another user run the test binary and use the directory for
// temporary files.
func shareBinary(t *testing.T) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(exe); d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o055 != 0o055 {
			if err := os.Chmod(d, st.Mode().Perm()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestForeignArchitectureDies(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("int 0x80 is an instruction of amd64")
	}
	out, state := start(t, "int80-control", os.Getuid())
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() || strings.HasPrefix(string(out), "-") {
		t.Skipf("this kernel has no 32-bit system calls: %v %s", state, out)
	}
	if string(out) != fmt.Sprint(state.Pid()) {
		t.Fatalf("the control called getpid by int 0x80 and got %s, is %d", out, state.Pid())
	}
	_, state = start(t, "int80", os.Getuid())
	if ws := state.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != unix.SIGSYS {
		t.Fatalf("a 32-bit system call ended in %v, want death by SIGSYS", state)
	}
}

// int80 calls getpid through the 32-bit gate.
func int80() int32 {
	code := []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3} // mov eax, 20; int 0x80; ret
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return -1
	}
	copy(m, code)
	p := unsafe.Pointer(&m[0])
	f := *(*func() int32)(unsafe.Pointer(&p2{p: &p}))
	return f()
}

// p2 is a func value: a pointer to a pointer to code.
type p2 struct{ p *unsafe.Pointer }
