//go:build linux

package filter

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Class is a set of system calls that are put to the supervisor.
type Class uint

// The classes. A class costs one round trip for each of its system calls.
const (
	// Exec: execve, execveat.
	Exec Class = 1 << iota
	// Map: mmap of a file with PROT_EXEC.
	Map
	// Protect: mprotect and pkey_mprotect with PROT_EXEC, which is how a
	// mapping made without it becomes executable where the mount is not
	// noexec. Every just-in-time compiler pays for it.
	Protect
	// OpenWrite: open, openat and creat that may write, create or truncate,
	// and truncate, but for OpenNew. openat2 answers ENOSYS.
	OpenWrite
	// OpenNew: open and openat with O_CREAT and O_EXCL, which make a new file
	// or fail: they never meet what stands there.
	OpenNew
	// OpenRead: every other open and openat. openat2 answers ENOSYS.
	OpenRead
	// Remove: unlink, rmdir, rename and their *at forms.
	Remove
	// Link: link and linkat.
	Link
	// Make: mknod, symlink and their *at forms.
	Make
	// MakeDir: mkdir and mkdirat.
	MakeDir
	// Connect: connect, and sendto with an address. Unix datagram sockets are
	// then refused: sendmsg hides its address in memory, and for one system
	// call in ten thousand no round trip is worth paying by the others.
	Connect
	// Attributes: the chmod, chown, utimes, setxattr and removexattr families,
	// which Landlock does not govern. The ioctls that change an inode by a
	// descriptor that is open for reading then answer EOPNOTSUPP.
	Attributes
	// Chmod: chmod, fchmodat and fchmodat2, where Attributes does not ask.
	Chmod
	// Memfd: memfd_create without MFD_NOEXEC_SEAL, which the supervisor then
	// creates sealed. Without this class it answers EPERM.
	Memfd
	// Access: access and its *at forms that ask whether a file may be executed,
	// to which a noexec mount says no.
	Access

	classEnd
)

// AllClasses is every class there is.
const AllClasses = classEnd - 1

// Options vary the table with the tier and the rights.
type Options struct {
	// Arch is amd64 or arm64; empty means that of this build.
	Arch string
	// Notify is what the supervisor is asked about.
	Notify Class
	// Inet allows AF_INET and AF_INET6 stream sockets.
	Inet bool
	// PrivateNet says that the execution has a network namespace of its own,
	// without capabilities over it. It allows AF_INET and AF_INET6 datagram
	// sockets (they reach nothing, and programs make them to look at
	// addresses) and NETLINK_ROUTE (getifaddrs and glibc's getaddrinfo read
	// the interface list; without CAP_NET_ADMIN nothing can be changed, and
	// the namespace holds nothing to learn). Outside a private namespace
	// NETLINK_ROUTE would tell the host's addresses and neighbours; glibc
	// falls back without it.
	PrivateNet bool
	// Unix allows making AF_UNIX stream and seqpacket sockets. Landlock does
	// not govern connecting to a path: without a mount namespace that hides
	// the host's sockets, or the Connect class, leave it off. Pairs
	// (socketpair) are always allowed.
	Unix bool
	// UnixDatagram allows AF_UNIX datagram sockets, pairs included: any of
	// them can send to any path.
	UnixDatagram bool
	// Shared says that the execution has the pid, IPC and network namespaces
	// of others. It refuses what acts on processes outside without being a
	// signal (their limits, scheduling), memory and queues that are shared by
	// number, listening, and becoming unreadable to the supervisor.
	Shared bool
	// MemfdSealed says that vm.memfd_noexec is 1 or 2 in the execution's pid
	// namespace, so that a plain memfd_create is sealed by the kernel.
	MemfdSealed bool
	// Ptrace allows ptrace and process_vm_readv, for debuggers. Landlock
	// still keeps them inside the execution.
	Ptrace bool
	// Openat2 allows openat2; not together with a notified open.
	Openat2 bool
}

type architecture struct {
	name  string
	audit uint32
	index int // column of numbers
}

var architectures = [...]architecture{
	{"amd64", unix.AUDIT_ARCH_X86_64, 0},
	{"arm64", unix.AUDIT_ARCH_AARCH64, 1},
}

func (o Options) arch() (architecture, error) {
	want := o.Arch
	if want == "" {
		want = runtime.GOARCH
	}
	for _, a := range architectures {
		if a.name == want {
			return a, nil
		}
	}
	return architecture{}, fmt.Errorf("filter: no system call table for architecture %q", want)
}

func (o Options) validate() error {
	if o.Notify&^AllClasses != 0 {
		return fmt.Errorf("filter: unknown notify class %#x", uint(o.Notify&^AllClasses))
	}
	if o.Openat2 && o.Notify&(OpenRead|OpenWrite|OpenNew) != 0 {
		return fmt.Errorf("filter: openat2 hides its flags and cannot be allowed beside a notified open")
	}
	return nil
}

func (n number) on(a architecture) int {
	if a.index == 0 {
		return n.amd64
	}
	return n.arm64
}

func nameOf(a architecture, nr int) string {
	if nr < 0 {
		return ""
	}
	for _, n := range numbers {
		if n.on(a) == nr {
			return n.name
		}
	}
	return ""
}

// Name is the name of system call nr on this build's architecture, "" if there
// is none.
func Name(nr int) string {
	a, err := Options{}.arch()
	if err != nil {
		return ""
	}
	return nameOf(a, nr)
}

// Number is the inverse of Name; -1 if the architecture has no such call.
func Number(name string) int {
	a, err := Options{}.arch()
	if n, ok := byName(name); ok && err == nil {
		return n.on(a)
	}
	return -1
}

// byName finds a row of numbers, which are sorted by name.
func byName(name string) (number, bool) {
	i, ok := slices.BinarySearchFunc(numbers[:], name, func(n number, s string) int { return strings.Compare(n.name, s) })
	if !ok {
		return number{}, false
	}
	return numbers[i], true
}
