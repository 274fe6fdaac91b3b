//go:build linux

package filter

import (
	"strings"

	"golang.org/x/sys/unix"
)

// allowed are the system calls that no argument makes dangerous: they act on
// the caller, on descriptors it holds, or on paths that Landlock and the mount
// namespace govern.
const allowed = `
	accept accept4 alarm arch_prctl bind brk cachestat capget capset
	chdir clock_getres clock_gettime clock_nanosleep close close_range
	copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
	epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 exit exit_group
	fadvise64 fallocate fchdir fcntl fdatasync fgetxattr
	file_getattr flistxattr flock fork fstat fstatfs fsync ftruncate futex
	futex_requeue futex_wait futex_waitv futex_wake get_mempolicy
	get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
	geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid
	getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
	getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat
	inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
	io_destroy io_getevents io_pgetevents io_setup io_submit ioprio_get kill
	landlock_add_rule landlock_create_ruleset landlock_restrict_self lgetxattr
	listmount listxattr listxattrat llistxattr lseek lsm_get_self_attr
	lsm_list_modules lstat madvise map_shadow_stack mbind membarrier mincore
	mlock mlock2 mlockall mremap mseal msync munlock munlockall munmap nanosleep
	newfstatat pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
	pkey_free poll ppoll pread64 preadv preadv2 process_madvise process_mrelease
	pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
	recvfrom recvmmsg recvmsg remap_file_pages restart_syscall rseq
	rseq_slice_yield rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
	rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
	sched_get_priority_max sched_get_priority_min sched_getaffinity
	sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
	sched_yield select sendfile set_mempolicy set_mempolicy_home_node
	set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid
	setgroups setitimer setpgid setregid setresgid setresuid setreuid setsid
	setuid shutdown sigaltstack signalfd signalfd4 splice stat statfs statmount
	statx sync sync_file_range syncfs sysinfo tee tgkill time timer_create
	timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
	timerfd_gettime timerfd_settime times tkill umask uname uprobe uretprobe
	vfork vmsplice wait4 waitid write writev
`

// refused are denied whatever their arguments, by reason.
var refused = []struct {
	action Action
	reason string
	calls  string
}{
	{eperm, "io_uring does file and network work that no filter sees",
		"io_uring_setup io_uring_enter io_uring_register"},
	{eperm, "programs for the kernel to run are the host's business",
		"bpf perf_event_open userfaultfd lookup_dcookie"},
	{eperm, "reaches into other processes",
		"process_vm_writev pidfd_getfd kcmp"},
	{eperm, "kernel keyrings are shared by every process of the user",
		"keyctl add_key request_key"},
	{eperm, "mounts belong to enforcement",
		"mount umount2 open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot"},
	{eperm, "namespaces belong to enforcement", "setns listns"},
	{eperm, "a handle opens a file past every path rule",
		"open_by_handle_at name_to_handle_at fanotify_init fanotify_mark"},
	{eperm, "administers the machine",
		"swapon swapoff reboot kexec_load kexec_file_load init_module finit_module delete_module " +
			"quotactl quotactl_fd acct settimeofday clock_settime adjtimex clock_adjtime " +
			"iopl ioperm syslog vhangup sethostname setdomainname lsm_set_self_attr"},
	{eperm, "16-bit segments are an old way into the kernel", "modify_ldt"},
	{eperm, "loads code by path, past every check", "uselib"},
	{enosys, "hides its flags in memory, where seccomp cannot look", "clone3"},
	{enosys, "memory that even the supervisor cannot read", "memfd_secret"},
	{enosys, "gone from Linux, or never in it",
		"_sysctl afs_syscall create_module get_kernel_syms getpmsg putpmsg query_module nfsservctl " +
			"security tuxcall vserver epoll_ctl_old epoll_wait_old sysfs ustat"},
}

var (
	eperm  = Errno(unix.EPERM)
	enosys = Errno(unix.ENOSYS)
)

// Flags that x/sys does not name, or names by another number type.
const (
	// namespaces that clone can make. CLONE_NEWTIME is missing: in clone the
	// bit is part of the exit signal; only unshare and clone3 take it.
	cloneNewAny = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	unshareNewAny = cloneNewAny | unix.CLONE_NEWTIME

	readImpliesExec = 0x0400000
	personaQuery    = 0xffffffff
	sockTypeMask    = 0xf
	userfaultfdNew  = 0xaa00 // USERFAULTFD_IOC_NEW on /dev/userfaultfd
	solTCP          = 6
	setUID          = 0o4000
	execFlag        = unix.MFD_EXEC
)

// Table gives the policy of o, in the order in which its rows are tried.
func Table(o Options) []Rule {
	t := make(table, 0, 512)
	for _, c := range strings.Fields(allowed) {
		t.add(c, Allow, "")
	}
	for _, r := range refused {
		for _, c := range strings.Fields(r.calls) {
			t.add(c, r.action, r.reason)
		}
	}
	t.processes(o)
	t.memory(o)
	t.files(o)
	t.sockets(o)
	t.shared(o)
	return t
}

type table []Rule

func (t *table) add(call string, a Action, reason string, when ...Arg) {
	*t = append(*t, Rule{Syscall: call, When: when, Action: a, Reason: reason})
}

// each adds one row for each of several calls.
func (t *table) each(calls string, a Action, reason string, when ...Arg) {
	for _, c := range strings.Fields(calls) {
		t.add(c, a, reason, when...)
	}
}

// asked is Notify if the class is put to the supervisor, else Allow.
func asked(o Options, c Class) Action {
	if o.Notify&c != 0 {
		return Notify
	}
	return Allow
}

const whyAsked = "put to the supervisor"

func (t *table) processes(o Options) {
	t.each("execve execveat", asked(o, Exec), whyAsked)

	t.add("clone", eperm, "a new user namespace would bring capabilities and mounts", anyOf(0, cloneNewAny))
	t.add("clone", eperm, "hides a child from a tracer", anyOf(0, unix.CLONE_UNTRACED))
	t.add("clone", Allow, "")
	t.add("unshare", eperm, "a new user namespace would bring capabilities and mounts", anyOf(0, unshareNewAny))
	t.add("unshare", Allow, "")

	trace := eperm
	if o.Ptrace {
		trace = Allow
	}
	t.each("ptrace process_vm_readv", trace, "reaches into other processes")

	t.add("personality", Allow, "", is(0, personaQuery))
	t.add("personality", eperm, "READ_IMPLIES_EXEC makes every readable mapping executable", anyOf(0, readImpliesExec))
	t.add("personality", Allow, "")

	t.add("prctl", eperm, "rewrites where the kernel believes program and arguments to be", is(0, unix.PR_SET_MM))
	if o.Shared {
		t.add("prctl", eperm, "hides the process from the supervisor", is(0, unix.PR_SET_DUMPABLE), is(1, 0))
	}
	t.add("prctl", Allow, "")

	// A further filter only takes away; a listener of its own would answer
	// for ours, since of two notifying filters the later one is asked.
	t.add("seccomp", eperm, "a second listener would answer in the supervisor's place",
		is(0, unix.SECCOMP_SET_MODE_FILTER), anyOf(1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER))
	t.add("seccomp", Allow, "")
}

func (t *table) memory(o Options) {
	// MAP_ANONYMOUS decides, not the descriptor: with it the kernel ignores
	// the descriptor, without it -1 is EBADF.
	t.add("mmap", asked(o, Map), whyAsked, anyOf(2, unix.PROT_EXEC), noneOf(3, unix.MAP_ANONYMOUS))
	t.add("mmap", Allow, "")
	t.each("mprotect pkey_mprotect", asked(o, Protect), whyAsked, anyOf(2, unix.PROT_EXEC))
	t.each("mprotect pkey_mprotect", Allow, "")

	t.add("memfd_create", eperm, "an executable file that has no path", anyOf(1, execFlag))
	t.add("memfd_create", Allow, "", anyOf(1, unix.MFD_NOEXEC_SEAL))
	switch {
	case o.MemfdSealed:
		t.add("memfd_create", Allow, "")
	case o.Notify&Memfd != 0:
		t.add("memfd_create", Notify, whyAsked)
	default:
		t.add("memfd_create", eperm, "an executable file that has no path (MFD_NOEXEC_SEAL is allowed)")
	}
}

func (t *table) files(o Options) {
	const mayWrite = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC
	const makesNew = unix.O_CREAT | unix.O_EXCL
	const whySetUID = "a set-user-ID file would outlive the execution and serve others"
	write, makeNew, read := asked(o, OpenWrite), asked(o, OpenNew), asked(o, OpenRead)

	// O_TMPFILE may set the mode too, but a file without a name that gets one
	// by linkat keeps it, so it counts.
	const makes = unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY
	// Most opens only read: one look at their flags decides on them.
	t.add("open", read, whyAsked, noneOf(1, mayWrite|makes))
	t.add("open", eperm, whySetUID, anyOf(1, makes), anyOf(2, setUID))
	t.add("open", makeNew, whyAsked, bits(1, makesNew, makesNew))
	t.add("open", write, whyAsked, anyOf(1, mayWrite))
	t.add("open", read, whyAsked)
	t.add("openat", read, whyAsked, noneOf(2, mayWrite|makes))
	t.add("openat", eperm, whySetUID, anyOf(2, makes), anyOf(3, setUID))
	t.add("openat", makeNew, whyAsked, bits(2, makesNew, makesNew))
	t.add("openat", write, whyAsked, anyOf(2, mayWrite))
	t.add("openat", read, whyAsked)
	t.add("creat", eperm, whySetUID, anyOf(1, setUID))
	t.add("creat", write, whyAsked)
	t.add("truncate", write, whyAsked)
	if o.Openat2 {
		t.add("openat2", Allow, "")
	} else {
		t.add("openat2", enosys, "hides its flags in memory, where seccomp cannot look")
	}

	t.add("access", asked(o, Access), whyAsked, anyOf(1, unix.X_OK))
	t.each("faccessat faccessat2", asked(o, Access), whyAsked, anyOf(2, unix.X_OK))
	t.each("access faccessat faccessat2", Allow, "")
	t.each("unlink unlinkat rmdir rename renameat renameat2", asked(o, Remove), whyAsked)
	t.each("link linkat", asked(o, Link), whyAsked)
	t.each("mkdir mkdirat", asked(o, MakeDir), whyAsked)
	t.each("symlink symlinkat", asked(o, Make), whyAsked)

	t.add("mknod", eperm, whySetUID, anyOf(1, setUID))
	t.add("mknod", asked(o, Make), whyAsked)
	t.add("mknodat", eperm, whySetUID, anyOf(2, setUID))
	t.add("mknodat", asked(o, Make), whyAsked)
	t.each("chmod fchmod", eperm, whySetUID, anyOf(1, setUID))
	t.each("fchmodat fchmodat2", eperm, whySetUID, anyOf(2, setUID))
	t.each("chmod fchmodat fchmodat2", asked(o, Attributes|Chmod), whyAsked)
	t.each("fchmod chown lchown fchown fchownat utime utimes futimesat utimensat "+
		"setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr setxattrat removexattrat file_setattr",
		asked(o, Attributes), whyAsked)

	t.add("ioctl", eperm, "types into the terminal in the user's place", is(1, unix.TIOCSTI))
	t.add("ioctl", eperm, "pastes into the console in the user's place", is(1, unix.TIOCLINUX))
	t.add("ioctl", eperm, "changes the terminal's line discipline, an old way into the kernel", is(1, unix.TIOCSETD))
	t.add("ioctl", eperm, "takes the console's output", is(1, unix.TIOCCONS))
	t.add("ioctl", eperm, "userfaultfd by another door", is(1, userfaultfdNew))
	if o.Notify&Attributes != 0 {
		t.inodeIoctls()
	}
	t.add("ioctl", Allow, "")
}

// inodeIoctls refuses what changes a file, or a directory's entries, by a
// descriptor that is open for reading, where no mount is read-only.
func (t *table) inodeIoctls() {
	const (
		kind      = 0xff00 // of an ioctl's number
		flags     = 'f' << 8
		versions  = 'v' << 8
		btrfs     = 0x9400
		setXFlags = 0x401c5820 // FS_IOC_FSSETXATTR
	)
	for _, reads := range []uint32{
		0x80086601, 0x80046601, // FS_IOC_GETFLAGS
		0xc020660b,             // FS_IOC_FIEMAP
		0x80087601, 0x80047601, // FS_IOC_GETVERSION
		0x40049409, 0x4020940d, 0xc0189436, // FICLONE, FICLONERANGE, FIDEDUPERANGE: into what is open for writing
	} {
		t.add("ioctl", Allow, "", is(1, reads))
	}
	notsup := Errno(unix.EOPNOTSUPP)
	const why = "changes a file by a descriptor that is open for reading"
	for _, k := range []uint32{flags, versions, btrfs} {
		t.add("ioctl", notsup, why, bits(1, kind, k))
	}
	t.add("ioctl", notsup, why, is(1, setXFlags))
}

func (t *table) sockets(o Options) {
	family := func(f uint32) Arg { return is(0, f) }
	kind := func(k uint32) Arg { return bits(1, sockTypeMask, k) }
	proto := func(p uint32) Arg { return is(2, p) }

	if o.Unix {
		t.add("socket", Allow, "", family(unix.AF_UNIX), kind(unix.SOCK_STREAM))
		t.add("socket", Allow, "", family(unix.AF_UNIX), kind(unix.SOCK_SEQPACKET))
	}
	t.add("socketpair", Allow, "", family(unix.AF_UNIX), kind(unix.SOCK_STREAM))
	t.add("socketpair", Allow, "", family(unix.AF_UNIX), kind(unix.SOCK_SEQPACKET))
	if o.UnixDatagram {
		t.add("socket", Allow, "", family(unix.AF_UNIX), kind(unix.SOCK_DGRAM))
		t.add("socketpair", Allow, "", family(unix.AF_UNIX), kind(unix.SOCK_DGRAM))
	}
	for _, f := range []uint32{unix.AF_INET, unix.AF_INET6} {
		if o.Inet {
			t.add("socket", Allow, "", family(f), kind(unix.SOCK_STREAM), proto(0))
			t.add("socket", Allow, "", family(f), kind(unix.SOCK_STREAM), proto(unix.IPPROTO_TCP))
		}
		if o.PrivateNet {
			t.add("socket", Allow, "", family(f), kind(unix.SOCK_DGRAM), proto(0))
			t.add("socket", Allow, "", family(f), kind(unix.SOCK_DGRAM), proto(unix.IPPROTO_UDP))
		}
	}
	if o.PrivateNet {
		t.add("socket", Allow, "", family(unix.AF_NETLINK), kind(unix.SOCK_RAW), proto(unix.NETLINK_ROUTE))
		t.add("socket", Allow, "", family(unix.AF_NETLINK), kind(unix.SOCK_DGRAM), proto(unix.NETLINK_ROUTE))
	}
	// EACCES is what the kernel itself answers to a socket nobody may make.
	t.each("socket socketpair", Errno(unix.EACCES), "a socket of this family, type or protocol passes the egress proxy by")

	t.add("connect", asked(o, Connect), whyAsked)
	const whyFast = "TCP fast open connects without connect"
	t.add("sendto", eperm, whyFast, anyOf(3, unix.MSG_FASTOPEN))
	t.add("sendto", asked(o, Connect), whyAsked, notNull(4))
	t.add("sendto", Allow, "")
	t.add("sendmsg", eperm, whyFast, anyOf(2, unix.MSG_FASTOPEN))
	t.add("sendmsg", Allow, "")
	t.add("sendmmsg", eperm, whyFast, anyOf(3, unix.MSG_FASTOPEN))
	t.add("sendmmsg", Allow, "")
	t.add("setsockopt", eperm, whyFast, is(1, solTCP), is(2, unix.TCP_FASTOPEN_CONNECT))
	t.add("setsockopt", eperm, "stacks a kernel protocol on the connection", is(1, solTCP), is(2, unix.TCP_ULP))
	t.add("setsockopt", eperm, "programs for the kernel to run are the host's business", is(1, unix.SOL_SOCKET), is(2, unix.SO_ATTACH_BPF))
	t.add("setsockopt", eperm, "programs for the kernel to run are the host's business", is(1, unix.SOL_SOCKET), is(2, unix.SO_ATTACH_REUSEPORT_EBPF))
	t.add("setsockopt", Allow, "")
}
