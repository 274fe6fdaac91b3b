//go:build linux

package attacks

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq/node"
	"github.com/exeq/exeq/node/wire"
)

// scene is the world around one run: a workspace, a home with secrets, an
// outside that is nobody's business, and whoever listens or lives there.
type scene struct {
	t      *testing.T
	uid    int
	dir    string
	secret string // what no attack may learn
	places map[string]string
	ears   *ears
	victim *victim
	before map[string]string // fingerprints of what an attack may want to change
	node   bool              // exeq finds the node
}

// newScene builds what the attack's line names.
func newScene(t *testing.T, a Attack, uid int) *scene {
	t.Helper()
	dir, err := os.MkdirTemp(world.dir, "s")
	must(t, err)
	s := &scene{t: t, uid: uid, dir: dir, secret: random("secret-"), before: map[string]string{}}
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chown(dir, uid, uid))
	ws, home, out := filepath.Join(dir, "ws"), filepath.Join(dir, "home"), filepath.Join(dir, "out")
	token := random("t")
	own := dir
	if a.Deep {
		own = filepath.Join(ws, "conf", "own")
	}
	s.places = map[string]string{
		"ws": ws, "home": home, "out": out, "token": token, "SECRET": s.secret,
		"secret": out + "/secret", "target": out + "/target", "rootsecret": out + "/rootsecret",
		"tool": ws + "/tools/tool", "lib": ws + "/tools/evil.so", "code": ws + "/tools/code",
		"faraway": out + "/tool", "exeq": dir + "/exeq", "state": own + "/state", "policy": own + "/policy", "linkedpolicy": ws + "/rules/linked.cedar", "wide": ws + "/wide",
		"sock": out + "/d.sock", "wssock": ws + "/d.sock", "fdsock": out + "/fd.sock", "dgram": out + "/dg.sock",
		"abstract": random("a"), "agent": out + "/agent.sock", "key": random("k"),
		"TOOLHASH": world.tool, "LIBHASH": world.lib, "CODEHASH": world.code, "LOADERHASH": world.loader, "SCRIPTHASH": world.script,
		"script": ws + "/tools/script", "seqsock": out + "/seq.sock", "prelinked": ws + "/prelinked", "lan": ownAddress(), "cgroup2": cgroup2(),
		"interface": networkInterface(), "cgroup": "/sys/fs/cgroup/pids",
		"shmfile": "/dev/shm/" + random("exeq-"), "mq": "/" + random("q"),
		"shmkey": fmt.Sprint(keyNumber()), "msgkey": fmt.Sprint(keyNumber()), "victimname": random("v")[:12],
		"gitfile": ws + "/.git", "module": ws + "/module", "worktree": ws + "/wt3", "submodule": ws + "/m",
		"linkedenvrc": ws + "/.envrc", "linkedhooks": ws + "/.git/hooks", "linkedenv": ws + "/.env",
		"node": world.dir + "/node/sock", "dbus": "unix:path=" + out + "/dbus.sock",
	}
	for _, d := range []string{ws, ws + "/tools", home, home + "/.ssh", home + "/.aws", home + "/.cache", home + "/.cache/go-build", out} {
		s.mkdir(d)
	}
	s.write(out+"/secret", s.secret, 0o600)
	s.write(out+"/target", "as it was\n", 0o644)
	s.write(out+"/tool.sh", "echo FORBIDDEN-PROGRAM-RAN\n", 0o755)
	s.write(home+"/.ssh/id_ed25519", s.secret, 0o600)
	s.write(home+"/.aws/credentials", s.secret, 0o600)
	s.write(home+"/.bash_history", s.secret, 0o600)
	s.write(home+"/.bashrc", "# as it was\n", 0o644)
	s.write(ws+"/.env", s.secret, 0o600)
	s.write(ws+"/.envrc", "# as it was\n", 0o644)
	s.mkdir(ws + "/.vscode")
	s.write(ws+"/.vscode/tasks.json", "{}\n", 0o644)
	install(t, "tool", ws+"/tools/tool", 0o755, uid)
	install(t, "evil.so", ws+"/tools/evil.so", 0o755, uid)
	for _, name := range []string{"code", "loader", "script"} {
		install(t, name, ws+"/tools/"+name, 0o755, uid)
	}
	install(t, "tool", out+"/tool", 0o755, uid)
	install(t, "evil.so", out+"/evil.so", 0o755, uid)
	for name := range world.programs {
		if strings.Contains(a.Line, "./"+name+" ") {
			install(t, name, ws+"/"+name, 0o755, uid)
		}
	}
	if a.Deep {
		s.mkdir(ws + "/conf")
		s.mkdir(own)
		s.policy(a)
		s.mkdir(ws + "/rules")
		s.write(s.places["linkedpolicy"], "// as it was\n", 0o644)
		must(t, os.Symlink("../../../rules/linked.cedar", s.places["policy"]+"/linked.cedar"))
	}
	s.special(a.Line + " " + a.Proof.What)
	s.ears = listen(s, a)
	for _, p := range []string{"target", "exeq", "shmfile"} {
		s.fingerprint(s.places[p])
	}
	s.note(a)
	return s
}

// note is how what the attack may change is before it.
func (s *scene) note(a Attack) {
	if a.Proof.Kind == changed {
		s.fingerprint(s.expand(a.Proof.What))
	}
}

// special makes what only some lines need.
func (s *scene) special(line string) {
	has := func(word string) bool { return strings.Contains(line, word) }
	ws, out := s.places["ws"], s.places["out"]
	if has("suid-reader") {
		install(s.t, "reader", ws+"/suid-reader", 0o755|os.ModeSetuid, 0)
		s.rootSecret()
	}
	if has("cap-reader") {
		install(s.t, "reader", ws+"/cap-reader", 0o755, s.uid)
		// VFS_CAP_REVISION_2 with the effective bit; CAP_DAC_OVERRIDE permitted.
		must(s.t, unix.Setxattr(ws+"/cap-reader", "security.capability",
			[]byte{1, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		s.rootSecret()
	}
	if has("{rootsecret}") && !has("-reader") {
		s.rootSecret()
	}
	if has(".git") {
		s.must("git", "init", "-q", ws)
		s.mkdir(ws + "/.git/hooks")
		s.write(ws+"/.git/hooks/pre-commit", "#!/bin/sh\n", 0o644)
	}
	if has("{gitfile}") {
		s.must("git", "init", "-q", "--separate-git-dir", out+"/main.git", ws)
	}
	if has("{linked") {
		s.linked()
	}
	if has("{module}") {
		s.module()
	}
	if has("{worktree}") || has("{submodule}") {
		s.family()
	}
	if has("{prelinked}") {
		must(s.t, os.Link(s.places["secret"], s.places["prelinked"]))
	}
	if has(".netrc") {
		for _, name := range []string{".netrc", ".git-credentials", ".kube/config", ".docker/config.json", ".config/gh/hosts.yml", ".gnupg/private-keys-v1.d/k", ".npmrc", ".pypirc"} {
			s.mkdir(filepath.Dir(s.places["home"] + "/" + name))
			s.write(s.places["home"]+"/"+name, s.secret, 0o600)
		}
	}
	if has("{exeq}") {
		b, err := os.ReadFile(exeqBinary(s.t))
		must(s.t, err)
		s.write(s.places["exeq"], string(b), 0o755)
	}
	if has("{wide}") {
		s.mkdir(s.places["wide"])
		s.write(s.places["wide"]+"/all.cedar", "@id(\"all\")\npermit (principal, action, resource);\n", 0o644)
	}
	if has("{shmfile}") {
		s.write(s.places["shmfile"], s.secret, 0o600)
		s.t.Cleanup(func() { os.Remove(s.places["shmfile"]) })
	}
	if has("{shmkey}") || has("{msgkey}") || has("{mq}") {
		s.outsider(s.secret, world.programs["system"], "leave-ipc", s.places["shmkey"], s.places["msgkey"], s.places["mq"])
	}
	if has("{key}") {
		s.must(world.programs["system"], "leave-key", s.places["key"], s.secret)
	}
	if has("{victim") {
		s.victim = newVictim(s)
	}
	if has("{agent}") {
		s.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", s.places["token"], "-f", out+"/key")
		s.outsider("", "ssh-agent", "-D", "-a", s.places["agent"])
		add := s.as(exec.Command("ssh-add", "-q", out+"/key"))
		add.Env = append(add.Env, "SSH_AUTH_SOCK="+s.places["agent"])
		if b, err := add.CombinedOutput(); err != nil {
			s.t.Fatalf("ssh-add: %v\n%s", err, b)
		}
	}
	if has("{dbus}") {
		s.outsider("", "dbus-daemon", "--session", "--nofork", "--print-address", "--address="+s.places["dbus"])
	}
}

// linked puts symbolic links in the place of protected files.
func (s *scene) linked() {
	ws := s.places["ws"]
	link := func(to, at string) {
		must(s.t, os.RemoveAll(at))
		must(s.t, os.Symlink(to, at))
		must(s.t, os.Lchown(at, s.uid, s.uid))
	}
	s.must("git", "init", "-q", ws)
	s.mkdir(ws + "/hk")
	s.write(ws+"/hk/pre-commit", "#!/bin/sh\n", 0o755)
	link("../hk", ws+"/.git/hooks")
	s.write(ws+"/real", "# as it was\n", 0o644)
	link("real", ws+"/.envrc")
	s.mkdir(ws + "/sec")
	s.write(ws+"/sec/env", s.secret, 0o600)
	link("sec/env", ws+"/.env")
}

// module embeds a repository in the workspace's index.
func (s *scene) module() {
	ws, m := s.places["ws"], s.places["module"]
	s.must("git", "init", "-q", ws)
	s.mkdir(m)
	s.must("git", "init", "-q", m)
	s.must("git", "-C", m, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")
	s.must("git", "-C", ws, "add", m)
}

// family gives the workspace's repository a linked worktree and a submodule.
func (s *scene) family() {
	s.must("bash", "-c", `export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
		set -e; git init -q .; git commit -q --allow-empty -m x; git clone -q . ../origin
		git -c protocol.file.allow=always submodule --quiet add ../origin m; git commit -qm m; git worktree add -q wt3
		git -C wt3 -c protocol.file.allow=always submodule --quiet update --init`)
}

func (s *scene) rootSecret() {
	p := s.places["rootsecret"]
	must(s.t, os.WriteFile(p, []byte(s.secret), 0o600))
}

func (s *scene) mkdir(p string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(p, 0o755))
	must(s.t, os.Chown(p, s.uid, s.uid))
}

func (s *scene) write(p, text string, mode os.FileMode) {
	s.t.Helper()
	syscall.ForkLock.RLock()
	err := os.WriteFile(p, []byte(text), mode)
	syscall.ForkLock.RUnlock()
	must(s.t, err)
	must(s.t, os.Chown(p, s.uid, s.uid))
	must(s.t, os.Chmod(p, mode))
}

// expand puts the places in for the words in braces.
func (s *scene) expand(text string) string {
	for name, value := range s.places {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// env is what the run finds: a secret among what is ordinary.
func (s *scene) env() []string {
	env := []string{
		"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + s.places["home"], "USER=somebody", "LANG=C.UTF-8", "TERM=xterm", "SHELL=/bin/bash",
		"GOFLAGS=-mod=mod", "GOTOOLCHAIN=local",
		"AWS_SECRET_ACCESS_KEY=" + s.secret, "GITHUB_TOKEN=" + s.secret,
	}
	if s.node {
		env = append(env, wire.Variable+"="+s.places["node"])
	}
	return env
}

// as runs a command as the scene's user.
func (s *scene) as(c *exec.Cmd) *exec.Cmd {
	c.Env = s.env()
	c.Dir = s.places["ws"]
	c.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}
	}
	return c
}

func (s *scene) must(name string, args ...string) {
	s.t.Helper()
	if b, err := s.as(exec.Command(name, args...)).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, b)
	}
}

// outsider starts a process outside and returns its first line; it lives
// until the test ends.
func (s *scene) outsider(input, name string, args ...string) (string, *exec.Cmd, io.WriteCloser) {
	s.t.Helper()
	c := s.as(exec.Command(name, args...))
	c.Dir = s.places["out"]
	c.Env = append(c.Env, "LC_ALL=C")
	in, err := c.StdinPipe()
	must(s.t, err)
	out, err := c.StdoutPipe()
	must(s.t, err)
	c.Stderr = os.Stderr
	must(s.t, c.Start())
	s.t.Cleanup(func() {
		in.Close()
		c.Process.Signal(syscall.SIGCONT)
		if input == "" {
			c.Process.Kill()
		}
		c.Wait()
	})
	io.WriteString(in, input)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatalf("%s said nothing: %v", name, err)
	}
	return line, c, in
}

// fingerprint notes how a file is now.
func (s *scene) fingerprint(p string) { s.before[p] = look(p) }

// look describes everything about a file that an attack could change.
func look(p string) string {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return err.Error()
	}
	b, _ := os.ReadFile(p)
	if len(b) > 1<<16 {
		b = b[:1<<16]
	}
	mark := make([]byte, 256)
	n, _ := unix.Lgetxattr(p, "user.mark", mark)
	var flags int
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		if f, err := os.Open(p); err == nil {
			flags, _ = unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
			f.Close()
		}
	}
	return fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Gid, st.Mtim, st.Size, flags, max(n, 0), string(b))
}

func networkInterface() string {
	dirs, _ := filepath.Glob("/sys/class/net/*")
	for _, d := range dirs {
		if n := filepath.Base(d); n != "lo" {
			return n
		}
	}
	return "lo"
}

// ownAddress is one of this machine's that is neither loopback nor link-local.
func ownAddress() string {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

// cgroup2 is the root of the hierarchy of version 2.
func cgroup2() string {
	dir, err := node.DefaultCgroup()
	if err != nil {
		return ""
	}
	return filepath.Dir(dir)
}

func keyNumber() int64 {
	n, _ := strconv.ParseInt(random("")[:7], 16, 64)
	return n + 1
}
