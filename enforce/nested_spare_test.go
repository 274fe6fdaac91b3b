//go:build linux

package enforce

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// lived is a box whose tree holds a file that may not be read, so that Landlock
// grants nothing to what comes into being beside it.
func lived(t *testing.T) *box {
	inNested(t)
	b := newBox(t)
	b.write("secret", "s", 0o600)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("secret")+"=")
	return b
}

// A program that is made beside a forbidden path runs, wherever below it was
// made and however it got its name.
func TestNestedNewPrograms(t *testing.T) {
	b := lived(t)
	b.want(0, "one\ntwo\nthree\nfour\nfive\nsix\nseven\n", "sh", "-ec", `
		cp /bin/echo new; ./new one
		mkdir -p made/deep; cp /bin/echo made/deep/p; made/deep/p two
		printf '#!/bin/sh\necho three\n' >script; chmod +x script; ./script
		printf '#!/bin/sh\necho four\n' >script; ./script
		printf '#!/bin/sh\necho five\n' >next; chmod +x next; mv next script; ./script
		ln -s made/deep/p link; ./link six
		mv new moved; ./moved seven
		rm -r made moved script link`)
	if left, _ := os.ReadDir(b.dir); len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
}

// The file that takes a program's place is like the one that was there.
func TestNestedPlanted(t *testing.T) {
	b := lived(t)
	b.want(0, "same\n", "sh", "-ec", `
		umask 027; cp /bin/true p; chmod 751 p; touch -d 2001-02-03T04:05:06.789 p; before=$(stat -c '%a %u %g %s %y' p)
		./p; after=$(stat -c '%a %u %g %s %y' p); [ "$before" = "$after" ] && cmp p /bin/true && echo same`)
	st, err := os.Stat(b.path("p"))
	if err != nil || st.Mode().Perm() != 0o751 {
		t.Errorf("afterwards it is %v, %v", st, err)
	}
}

// More programs than there are spare files: a denial that says so, and what was
// there at the start goes on running.
func TestNestedSparesEnd(t *testing.T) {
	b := lived(t)
	b.copy("/bin/true", "old")
	code, out := b.run("sh", "-c", fmt.Sprintf(`
		for i in $(seq %d); do cp /bin/true p$i; ./p$i 2>/dev/null || { echo $i; break; }; done; ./old && ./p1 && echo on; rm p*`, spareFiles+1))
	if code != 0 || out != fmt.Sprintf("%d\non\n", spareFiles+1) {
		t.Errorf("exit %d: %s", code, out)
	}
	if !strings.Contains(b.msgs.String(), "no more programs that were made beside a forbidden path") {
		t.Errorf("messages %q", b.msgs.String())
	}
}

// Putting another file in a program's place while it is being planted neither
// runs that file without a decision nor loses it.
func TestNestedPlantRace(t *testing.T) {
	b := lived(t)
	forbidden := b.copy("/bin/false", "forbidden")
	digest := digestOfFile(t, forbidden)
	b.gate.deny = func(a exeq.Activity) bool { return a.Resource.SHA256 == digest }
	code, out := b.run("sh", "-c", `
		cp forbidden bad; cp /bin/true good
		(for i in $(seq 300); do cp good a; mv a x; cp bad a; mv a x; done) &
		ran=0; for i in $(seq 100); do ./x 2>/dev/null; case $? in 1) echo FORBIDDEN-RAN;; esac; done
		wait; cmp x bad && echo kept; ls`)
	if code != 0 || strings.Contains(out, "FORBIDDEN") || !strings.Contains(out, "kept") || strings.Contains(out, ".exeq-") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// What Landlock refuses although it was decided to run is said.
func TestNestedKernelRefuses(t *testing.T) {
	inNested(t)
	TestKernelRefuses(t)
}

func TestKernelRefuses(t *testing.T) {
	b := newBox(t)
	p := b.copy("/bin/true", "bin/p")
	b.setup = func(l *exeq.Launch) { l.Dir = "/" }
	b.rights = rightsOf("/=", "/usr=rX", "/lib=rX", "/lib64=rX", "/dev=rw", p+"=rx")
	if testTier == exeq.TierNested {
		b.rights = rightsOf("/=", "/usr=rX", "/lib=rX", "/lib64=rX", "/dev=rw", p+"=x")
	}
	if code, out := b.run("/usr/bin/sh", "-c", p); code != 126 {
		t.Errorf("exit %d: %s", code, out)
	}
	if m := b.msgs.String(); !strings.Contains(m, "exec "+p+" denied") {
		t.Errorf("messages %q", m)
	}
}

// What has no path (a pipe by its link in /proc) is opened as ever.
func TestNestedPipesByName(t *testing.T) {
	b := lived(t)
	b.want(0, "through\nthrough\n", "sh", "-c", "echo through | cat /dev/fd/0; echo through | cat /proc/self/fd/0")
	b.want(0, "in\n", "sh", "-c", "echo in | tee /dev/fd/1 >/dev/null | cat; echo in >/dev/stdout")
}

// What the supervisor makes has the mode that the process asked for.
func TestNestedModes(t *testing.T) {
	b := lived(t)
	defer unix.Umask(unix.Umask(0o077))
	b.want(0, "666 777 640 2775\n", "sh", "-ec", `umask 0; touch f; mkdir d; umask 027; touch g; chmod 2775 d; umask 002; mkdir d/e
		echo $(stat -c %a f; umask 0; mkdir h; stat -c %a h; stat -c %a g; stat -c %a d/e)`)
}

// Root that may not look at others' programs says so before anything runs.
func TestNestedNeedsPtrace(t *testing.T) {
	if err := (identity{uid: os.Geteuid()}).lookable(); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	out, err := exec.Command("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", os.Args[0], "helper", "lookable").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CAP_SYS_PTRACE") {
		t.Errorf("%v: %s", err, out)
	}
}

func init() {
	helpers["lookable"] = func([]string) error { return identity{uid: 65534, change: true}.lookable() }
}
