//go:build linux

package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// more tries what only `exeq doctor` asks for.
func (f *Facts) more(o Options) {
	getfd, trace := tryChild()
	f.add(Ptrace, trace, "a child was traced", "kernel.yama.ptrace_scope must be 0 to 2, and a container's seccomp profile must allow ptrace")
	f.add(PidfdGetfd, getfd, "a descriptor was taken from a child", "a container's seccomp profile must allow pidfd_getfd; without it unix sockets are refused")
	where, err := tryCgroup()
	f.add(Cgroup, err, where, "delegate a cgroup v2 subtree to this user (systemd-run --user --scope -p Delegate=yes)")
	f.add(BPFTracing, tryBPF(unix.BPF_PROG_TYPE_TRACING, unix.BPF_TRACE_RAW_TP, btfTypedef, "btf_trace_sched_process_exec"),
		"a program loaded on sched_process_exec", "tier kernel-lite needs exeq-node as root and CONFIG_DEBUG_INFO_BTF")
	f.add(BPFLSM, tryBPF(unix.BPF_PROG_TYPE_LSM, unix.BPF_LSM_MAC, btfFunc, "bpf_lsm_bprm_check_security"),
		"a program loaded on bprm_check_security", "tier kernel needs exeq-node as root and a kernel with bpf among its lsm= modules")
	if o.Scratch != "" {
		f.add(FSVerity, tryVerity(o.Scratch), "a file of "+o.Scratch+" was sealed", "a file system with the verity feature (tune2fs -O verity)")
	}
	f.add(IMA, tryIMA(), "the kernel measures what it runs", "boot with ima_policy=tcb on a kernel with CONFIG_IMA")
	f.add(MemfdNoexec, readable("/proc/sys/vm/memfd_noexec"), "there", "needs Linux 6.3; memfd_create is put to the supervisor without it")
	f.add(Container, inContainer(), "no sign of one", "inside a container only what its own profile leaves can be enforced")
}

func readable(path string) error {
	_, err := os.ReadFile(path)
	return err
}

// waiter is what the child of tryChild touches.
type waiter struct {
	fd  int
	buf [1]byte
}

//go:noinline
//go:norace
//go:nosplit
func forkWaiter(w *waiter) (uintptr, unix.Errno) {
	beforeFork()
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	for {
		unix.RawSyscall(unix.SYS_READ, uintptr(w.fd), uintptr(unsafe.Pointer(&w.buf)), 1)
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// tryChild forks a child that waits, takes a descriptor from it and traces it.
func tryChild() (getfd, trace error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err, err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	w := &waiter{fd: p[0]}
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	syscall.ForkLock.Lock()
	n, errno := forkWaiter(w)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return errno, errno
	}
	pid := int(n)
	defer func() {
		unix.Kill(pid, unix.SIGKILL)
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
	getfd = func() error {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return fmt.Errorf("pidfd_open: %w", err)
		}
		defer unix.Close(pidfd)
		fd, err := unix.PidfdGetfd(pidfd, p[0], 0)
		if err != nil {
			return fmt.Errorf("pidfd_getfd: %w", err)
		}
		return unix.Close(fd)
	}()
	if err := unix.PtraceSeize(pid); err != nil {
		trace = fmt.Errorf("ptrace: %w", err)
	}
	return getfd, trace
}

// tryCgroup makes and removes a cgroup below our own.
func tryCgroup() (where string, err error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	mount := ""
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			mount = fields[4]
			break
		}
	}
	if mount == "" {
		return "", errors.New("cgroup v2 is not mounted")
	}
	for line := range strings.Lines(string(own)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		dir, err := os.MkdirTemp(filepath.Join(mount, path), "exeq-probe-")
		if err != nil {
			return "", err
		}
		defer os.Remove(dir)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
			return "", err
		}
		return "made one below " + filepath.Dir(dir), nil
	}
	return "", errors.New("this process is in no cgroup of version 2")
}

// tryVerity seals a file.
func tryVerity(dir string) error {
	f, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString("exeq")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	r, err := os.Open(f.Name())
	if err != nil {
		return err
	}
	defer r.Close()
	// struct fsverity_enable_arg: version 1, SHA-256, blocks of 4096 bytes.
	arg := [32]uint32{0: 1, 1: 1, 2: 4096}
	if err := ioctl(int(r.Fd()), unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("seal a file of %s: %w", dir, err)
	}
	return nil
}

// tryIMA asks for the number of measurements.
func tryIMA() error {
	const count = "/sys/kernel/security/ima/runtime_measurements_count"
	b, err := os.ReadFile(count)
	if err != nil {
		return err
	}
	if n := strings.TrimSpace(string(b)); n == "0" || n == "1" {
		return fmt.Errorf("%s measurements: no policy", n)
	}
	return nil
}

// inContainer looks for what container engines leave. It is told to people and
// decides nothing.
func inContainer() error {
	for _, p := range []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"} {
		if _, err := os.Stat(p); err == nil {
			return fmt.Errorf("%s is there", p)
		}
	}
	if b, err := os.ReadFile("/proc/1/cgroup"); err == nil {
		for _, w := range []string{"docker", "kubepods", "containerd", "libpod", "lxc"} {
			if strings.Contains(string(b), w) {
				return fmt.Errorf("process 1 is in a cgroup of %s", w)
			}
		}
	}
	return nil
}
