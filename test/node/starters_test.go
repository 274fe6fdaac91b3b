//go:build linux

package node

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq/test/debian"
)

// starters that people and machines really use: each starts a line for a shell as
// the made-up user, in a mount namespace in which the user is known.
type realStarter struct {
	name string
	// start begins it, and gives what ends it.
	start func(line string) (end func())
}

// household makes what the starters need: a user in files of their own, which lie
// over those of the system in their mount namespace alone.
type household struct {
	*scopeScene
	user, dir string
	port      int
	packages  map[string]string // name to where its files lie; none is installed
}

func newHousehold(s *scopeScene) *household {
	s.t.Helper()
	h := &household{scopeScene: s, user: "exeqheld", dir: filepath.Join(s.dir, "household"), packages: map[string]string{}}
	for _, p := range []string{"cron", "openssh-server", "libwrap0"} {
		at, err := debian.Unpacked(s.t.Context(), p)
		s.must(err)
		h.packages[p] = at
	}
	for _, d := range []string{"", "home", "crontabs"} {
		s.must(os.Mkdir(filepath.Join(h.dir, d), 0o755))
	}
	s.must(os.Chown(filepath.Join(h.dir, "home"), governed, governed))
	for name, line := range map[string]string{
		"passwd": fmt.Sprintf("%s:x:%d:%d::%s/home:/bin/sh\nsshd:x:%d:65534::/run/sshd:/usr/sbin/nologin\n", h.user, governed, governed, h.dir, person),
		"shadow": fmt.Sprintf("%s:*:20000:0:99999:7:::\n", h.user),
		"group":  fmt.Sprintf("%s:x:%d:\n", h.user, governed),
	} {
		b, err := os.ReadFile("/etc/" + name)
		s.must(err)
		s.must(os.WriteFile(filepath.Join(h.dir, name), append(b, line...), 0o644))
	}
	for _, key := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(h.dir, key)).CombinedOutput()
		if err != nil {
			s.t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	h.port = l.Addr().(*net.TCPAddr).Port
	s.must(l.Close())
	s.must(os.WriteFile(filepath.Join(h.dir, "sshd"), fmt.Appendf(nil, `ListenAddress 127.0.0.1:%d
HostKey %[2]s/host
PidFile none
AuthorizedKeysFile %[2]s/user.pub
StrictModes no
UsePAM no
`, h.port, h.dir), 0o644))
	return h
}

// at is a command in the household's mount namespace; all of it dies with it.
func (h *household) at(script string) *exec.Cmd {
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `
set -e
for f in passwd shadow group; do mount --bind "$1/$f" /etc/$f; done
mount -t tmpfs none /run
mkdir /run/sshd
if [ -d /etc/cron.d ]; then mount -t tmpfs none /etc/cron.d; fi
if [ -e /etc/crontab ]; then mount --bind /dev/null /etc/crontab; fi
mount -t tmpfs none /var/spool
mkdir -p /var/spool/cron/crontabs
mount --bind "$1/crontabs" /var/spool/cron/crontabs
shift
`+script, "household", h.dir, h.user)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// begin starts a command and gives what ends it.
func (h *household) begin(cmd *exec.Cmd) (end func()) {
	h.t.Helper()
	log := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = log, log
	h.must(cmd.Start())
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
		if h.t.Failed() {
			h.t.Log(log)
		}
	}
}

func (h *household) starters() []realStarter {
	return []realStarter{
		{"su, a login shell", func(line string) func() {
			return h.begin(h.at("exec su - \"$1\" -c '" + line + "'"))
		}},
		{"cron, as the machine starts", func(line string) func() {
			tab := filepath.Join(h.dir, "crontabs", h.user)
			h.must(os.WriteFile(tab, []byte("@reboot "+line+"\n"), 0o600))
			h.must(os.Chown(tab, governed, governed))
			return h.begin(h.at("exec " + h.packages["cron"] + "/usr/sbin/cron -f"))
		}},
		{"sshd", func(line string) func() {
			daemon := h.begin(h.at(fmt.Sprintf("export LD_LIBRARY_PATH=$(dirname %s/usr/lib/*/libwrap.so.0)\nexec %s/usr/sbin/sshd -D -e -f %s/sshd",
				h.packages["libwrap0"], h.packages["openssh-server"], h.dir)))
			at := "127.0.0.1:" + strconv.Itoa(h.port)
			h.wait("sshd to listen", func() bool {
				c, err := net.Dial("tcp", at)
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			client := h.begin(exec.Command("ssh", "-F", "none", "-i", filepath.Join(h.dir, "user"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
				"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", strconv.Itoa(h.port), h.user+"@127.0.0.1", line))
			return func() { client(); daemon() }
		}},
	}
}

// wait polls for what nobody tells.
func (h *household) wait(what string, is func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(end) {
			h.t.Errorf("waited in vain for %s", what)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// runs has a starter start a line, waits until the shell is past the program, and
// tells whether that ran.
func (h *household) runs(s realStarter) bool {
	h.t.Helper()
	ran, past := filepath.Join(h.dir, "home", "ran"), filepath.Join(h.dir, "home", "past")
	os.Remove(ran)
	os.Remove(past)
	end := s.start("touch " + ran + "; echo > " + past)
	defer end()
	h.wait(s.name+" to be past the program", func() bool { _, err := os.Stat(past); return err == nil })
	_, err := os.Stat(ran)
	return err == nil
}

// TestScopeRealStarters: a login shell, a job of cron and an ssh login start the
// governed user's shell, by which the machine lives here, and nothing else.
func TestScopeRealStarters(t *testing.T) {
	s := newScopeScene(t)
	h := newHousehold(s)
	shell, err := filepath.EvalSymlinks("/bin/sh")
	s.must(err)
	s.lives(shell)
	touch, err := exec.LookPath("touch")
	s.must(err)
	if touch, err = filepath.EvalSymlinks(touch); err != nil {
		t.Fatal(err)
	}
	all := h.starters()
	for _, x := range all {
		if !h.runs(x) {
			t.Fatalf("%s, without a scope: nothing ran", x.name)
		}
	}
	s.enforce()
	for _, x := range all {
		if h.runs(x) {
			t.Errorf("%s: it ran", x.name)
		}
	}
	s.report(touch, "denied", len(all))
	s.scope("lift", "--policy", s.policy, s.over)
	for _, x := range all {
		if !h.runs(x) {
			t.Errorf("%s, lifted: nothing ran", x.name)
		}
	}
}
