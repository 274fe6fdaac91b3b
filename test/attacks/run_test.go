//go:build linux

package attacks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

// patience bounds one run; a compiler with a cold cache on a busy machine takes
// the longest.
const patience = 4 * time.Minute

// result is what one run of an attack left.
type result struct {
	code     int // exit status, 128 + signal
	out, err []byte
	gone     bool // nothing with the token lives
}

// begun: the attack itself came to run.
func (r *result) begun() bool {
	return bytes.Contains(r.err, []byte("attack-begin")) || bytes.Contains(r.out, []byte("attack-begin"))
}

// argv is the attack's command line.
func (s *scene) argv(a Attack) []string {
	line := s.expand(a.Line)
	if strings.HasPrefix(line, "./") && !strings.ContainsAny(line, ";&|'\"\\*") {
		return strings.Fields(line)
	}
	return []string{"bash", "-c", "echo attack-begin >&2\n" + line}
}

// governed puts `exeq run` before a command line.
func (s *scene) governed(a Attack, tier exeq.Tier, argv []string) []string {
	s.installState(a)
	if s.node = tier >= exeq.TierKernelLite; s.node {
		s.trustNode()
	}
	head := []string{exeqBinary(s.t), "run", "--state", s.places["state"], "--tier", tier.String()}
	if strings.Contains(a.Line, "{exeq}") {
		head[0] = s.places["exeq"]
	}
	if a.Deep {
		head = append(head, "--policy", s.places["policy"])
	} else if a.Policy != "" || a.Quotas != (exeq.Quotas{}) {
		head = append(head, "--policy", s.policy(a))
	}
	return append(append(head, "--"), argv...)
}

// installState makes a state directory and plants a secret in it.
func (s *scene) installState(a Attack) {
	s.t.Helper()
	s.t.Cleanup(func() { // the detached drainer ends before its state goes
		if state := s.places["state"]; !die(state, bearing, time.Minute) {
			s.t.Error("the drainer of this state does not end")
			end(state)
		}
	})
	s.must(exeqBinary(s.t), "init", "--state", s.places["state"])
	s.plant()
}

func (s *scene) plant() {
	s.mkdir(s.places["state"])
	s.write(s.places["state"]+"/planted", s.secret, 0o600)
	s.fingerprint(s.places["state"] + "/planted")
}

// policy writes the starter policy with what the row adds.
func (s *scene) policy(a Attack) string {
	dir := s.places["policy"]
	s.mkdir(dir)
	for name, text := range policy.Starter().Files {
		if name == policy.SettingsFile && a.Quotas != (exeq.Quotas{}) {
			var set map[string]any
			must(s.t, json.Unmarshal([]byte(text), &set))
			set["quotas"] = a.Quotas
			b, err := json.Marshal(set)
			must(s.t, err)
			text = string(b)
		}
		s.write(filepath.Join(dir, name), text, 0o644)
	}
	if a.Policy != "" {
		s.write(filepath.Join(dir, "row.cedar"), s.expand(a.Policy), 0o644)
	}
	return dir
}

// wraps are worlds that a row needs around it; each is a line for bash whose
// arguments are the command.
var wraps = map[string]string{
	"hosts": `unshare -m bash -c 'mount --bind {out}/hosts /etc/hosts && exec "$@"' wrap "$@"`,
	"metadata": `unshare -n bash -c 'ip link set lo up && ip addr add 169.254.169.254/32 dev lo
exec 7< <(cd {out} && exec python3 -c "import http.server as h
s = h.ThreadingHTTPServer((\"\", 80), h.SimpleHTTPRequestHandler)
print(flush=True)
s.serve_forever()" 2>/dev/null)
server=$!
read -r <&7
"$@"
code=$?
kill $server
exit $code' wrap "$@"`,
	"terminal": `"$@"; code=$?; if read -r -t 1 line; then echo "SHELL-READ:$line"; fi; exit $code`,
}

// run runs a command line of the scene to its end.
func (s *scene) run(a Attack, argv []string, stop func(c *exec.Cmd)) *result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	wrap := a.Wrap
	if a.Terminal {
		wrap = "terminal"
	}
	if wrap != "" {
		s.write(s.places["out"]+"/hosts", "127.0.0.1 localhost\n127.0.0.1 innocent.example\n", 0o644)
		argv = append([]string{"bash", "-c", s.expand(wraps[wrap]), "wrap"}, argv...)
	}
	c := s.as(exec.CommandContext(ctx, argv[0], argv[1:]...))
	c.WaitDelay = 3 * time.Second // survivors may hold the pipes
	secret, err := os.Open(s.places["secret"])
	must(s.t, err)
	defer secret.Close()
	c.ExtraFiles = []*os.File{nil, nil, nil, nil, nil, nil, secret} // descriptor 9
	r := &result{}
	out := &watched{ready: func(line string) { s.then(a, c, line, stop) }}
	var errs locked
	if a.Terminal {
		done := s.terminal(c, out)
		err = c.Run()
		done()
	} else {
		c.Stdout, c.Stderr = out, &errs
		c.SysProcAttr.Setpgid = true // an attack may signal its group
		err = c.Run()
	}
	out.wait()
	r.out, r.err = out.bytes(), errs.bytes()
	if ctx.Err() != nil {
		s.t.Fatalf("did not end within %s\nstdout: %s\nstderr: %s", patience, clean(r.out), clean(r.err))
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		w := exit.Sys().(syscall.WaitStatus)
		if r.code = w.ExitStatus(); w.Signaled() {
			r.code = 128 + int(w.Signal())
		}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		s.t.Fatal(err)
	}
	return r
}

// then does the harness's part once the attack is ready.
func (s *scene) then(a Attack, c *exec.Cmd, line string, stop func(*exec.Cmd)) {
	switch a.Then {
	case "crash":
		c.Process.Kill()
	case "revoke":
		stop(c)
	case "touch":
		os.WriteFile(filepath.Join(s.places["out"], s.places["token"]), nil, 0o644)
	case "hand in":
		f := strings.Fields(s.expand(a.Line))
		path := f[len(f)-1]
		if path[0] != '/' {
			path = filepath.Join(s.places["ws"], path)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			s.t.Logf("the accomplice: %v", err)
			return
		}
		give(conn, s.places["secret"])
		conn.Close()
	case "talk":
		if d, err := net.Dial("udp4", "127.0.0.1:9"); err == nil {
			fmt.Fprintf(d, "overheard %s", s.places["token"])
			d.Close()
		}
	case "dial":
		var port int
		fmt.Sscanf(line, "port %d", &port)
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return // nobody is there
		}
		io.WriteString(conn, s.places["token"])
		conn.Close()
	}
}

// newTerminal opens a terminal of a user's.
func newTerminal(t *testing.T, uid int) (master *os.File, name string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	name = fmt.Sprintf("/dev/pts/%d", n)
	must(t, os.Chown(name, uid, -1))
	return master, name
}

// terminal gives the command a terminal of its own.
func (s *scene) terminal(c *exec.Cmd, out io.Writer) (done func()) {
	master, name := newTerminal(s.t, s.uid)
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	must(s.t, err)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr.Setsid, c.SysProcAttr.Setctty = true, true
	read := make(chan struct{})
	go func() {
		io.Copy(out, master)
		close(read)
	}()
	return func() {
		slave.Close()
		<-read // the last one to hold the slave is gone
		master.Close()
	}
}

// watched collects output and calls ready once the attack says that it is.
type watched struct {
	locked
	ready func(said string)
	said  []byte // until it is ready
	once  sync.Once
	busy  sync.WaitGroup
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.locked.Write(b)
	if len(w.said) < 1<<12 {
		w.said = append(w.said, b...)
		if said := string(w.said); strings.Contains(said, "attack-ready") {
			w.once.Do(func() { w.busy.Go(func() { w.ready(said) }) })
		}
	}
	return n, err
}

func (w *watched) wait() { w.busy.Wait() }

type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 64<<20 {
		return len(b), nil
	}
	return l.buf.Write(b)
}

func (l *locked) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

// succeeded looks for the proof.
func (s *scene) succeeded(t *testing.T, p Proof, r *result) bool {
	t.Helper()
	what := s.expand(p.What)
	switch p.Kind {
	case output:
		return bytes.Contains(r.out, []byte(what)) || bytes.Contains(r.err, []byte(what))
	case heard:
		return s.ears.knows(what)
	case changed:
		return look(what) != s.before[what]
	case made:
		_, err := os.Lstat(what)
		return err == nil
	case holding:
		b, _ := os.ReadFile(what)
		return bytes.Contains(b, []byte(s.places["token"]))
	case resumed:
		s.as(exec.Command("git", "-C", what, "rebase", "--continue")).Run()
		_, err := os.Lstat(s.places["out"] + "/resumed")
		return err == nil
	case alive:
		return !r.gone
	case hurt:
		return s.victim.hurt()
	case modified:
		return strings.Contains(s.victim.memory(s.places["addr"]), what)
	}
	t.Fatalf("unknown proof %q", p.Kind)
	return false
}
