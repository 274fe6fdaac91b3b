//go:build linux

package enforce

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/filter"
	"github.com/exeq/exeq/enforce/internal/nobody"
)

const likeDocker = "EXEQ_TEST_LIKE_DOCKER"

func init() {
	// docker executes the rest of the arguments as Docker's default profile
	// leaves an ordinary user.
	helpers["docker"] = func(a []string) error {
		refused := []uint32{unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
			unix.SYS_MOUNT_SETATTR, unix.SYS_FSOPEN, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
			unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_KCMP}
		const load, equal, bits, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
			unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		prog := []unix.SockFilter{{Code: load, K: 0}}
		for _, nr := range refused {
			prog = append(prog, unix.SockFilter{Code: equal, K: nr, Jf: 1}, unix.SockFilter{Code: ret, K: uint32(filter.Errno(unix.EPERM))})
		}
		prog = append(prog, unix.SockFilter{Code: equal, K: unix.SYS_CLONE3, Jf: 1}, unix.SockFilter{Code: ret, K: uint32(filter.Errno(unix.ENOSYS))},
			unix.SockFilter{Code: equal, K: unix.SYS_CLONE, Jf: 3}, unix.SockFilter{Code: load, K: 16},
			unix.SockFilter{Code: bits, K: 0x7e020000, Jf: 1}, unix.SockFilter{Code: ret, K: uint32(filter.Errno(unix.EPERM))},
			unix.SockFilter{Code: ret, K: uint32(filter.Allow)})
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		if _, err := filter.Install(prog, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
			return err
		}
		return syscall.Exec(a[0], a, append(os.Environ(), likeDocker+"=1"))
	}
}

// Inside a plain container the strongest tier is this one, and it works.
func TestNestedLikeDocker(t *testing.T) {
	if os.Getenv(likeDocker) != "" {
		t.Skip("runs outside of it")
	}
	out, err := exec.Command(os.Args[0], "helper", "docker", os.Args[0], "-test.v", "-test.run",
		"^(TestInsideDocker|TestNested(ForbidsInside|Bystanders|KeepersKilled|KeepersOutOfReach|Network|Evidence))$").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInsideDocker (") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestInsideDocker(t *testing.T) {
	if os.Getenv(likeDocker) == "" {
		t.Skip("TestNestedLikeDocker runs it")
	}
	if err := unix.Unshare(unix.CLONE_NEWUSER); !errors.Is(err, unix.EPERM) {
		t.Fatalf("this is not like Docker: %v", err)
	}
	e, err := Prepare(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Tier() != exeq.TierNested {
		t.Errorf("chose %s", e.Tier())
	}
	e.Close()
	if e, err := Prepare(Options{Tier: exeq.TierRootless}); err == nil {
		e.Close()
		t.Error("rootless was asked for, cannot be had, and no error says so")
	}
	inNested(t)
	for name, test := range map[string]func(*testing.T){
		"Commands": TestCommands, "ForbiddenProgram": TestForbiddenProgram, "LoaderTricks": TestLoaderTricks,
		"PreloadIsDecided": TestPreloadIsDecided, "Shebang": TestShebang, "LeaseLapses": TestLeaseLapses,
		"SupervisorKilled": TestSupervisorKilled, "SwapRaces": TestSwapRaces,
	} {
		t.Run(name, test)
	}
}

// As an ordinary user in such a container.
func TestNestedLikeDockerAsNobody(t *testing.T) { nobody.Rerun(t, "^TestNestedLikeDocker$") }
