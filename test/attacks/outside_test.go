//go:build linux

package attacks

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ears are the listeners outside. Each answers whoever comes with the secret
// and remembers what it was told.
type ears struct {
	mu    sync.Mutex
	heard bytes.Buffer
	all   []io.Closer
	busy  sync.WaitGroup // connections being heard
	flush []func()
}

func listen(s *scene, a Attack) *ears {
	e := &ears{}
	s.t.Cleanup(func() {
		for _, c := range e.all {
			c.Close()
		}
	})
	named := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(a.Line, w) {
				return true
			}
		}
		return false
	}
	if named("{tcp}") {
		s.places["tcp"] = e.stream(s, "tcp4", "127.0.0.1:0")
	}
	if named("{tcp6}") {
		s.places["tcp6"] = e.stream(s, "tcp6", "[::1]:0")
	}
	for place, at := range map[string]string{"udp": "127.0.0.1:0", "udp6": "[::1]:0"} {
		if named("{" + place + "}") {
			c, err := net.ListenPacket("udp", at)
			must(s.t, err)
			s.places[place] = fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
			e.packets(c)
		}
	}
	if named("{lantcp}") {
		s.places["lantcp"] = e.stream(s, "tcp4", s.places["lan"]+":0")
	}
	if named("{seqsock}") {
		e.stream(s, "unixpacket", s.places["seqsock"])
	}
	if named("{sock}") {
		e.stream(s, "unix", s.places["sock"])
	}
	if named("{wssock}") {
		e.stream(s, "unix", s.places["wssock"])
	}
	if named("{abstract}") {
		e.stream(s, "unix", "@"+s.places["abstract"])
		e.hand(s, "@"+s.places["abstract"]+"-fd")
		c, err := net.ListenPacket("unixgram", "@"+s.places["abstract"]+"-d")
		must(s.t, err)
		e.packets(c)
	}
	if named("{fdsock}") {
		e.hand(s, s.places["fdsock"])
	}
	if named("{pts}") {
		s.places["pts"] = e.terminal(s)
	}
	if named("{dgram}") {
		c, err := net.ListenPacket("unixgram", s.places["dgram"])
		must(s.t, err)
		must(s.t, os.Chmod(s.places["dgram"], 0o777))
		e.packets(c)
	}
	return e
}

func (e *ears) note(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard.Write(b)
	e.heard.WriteByte('\n')
}

// knows reports whether the text was heard, once all that was said is heard.
func (e *ears) knows(text string) bool {
	for _, f := range e.flush {
		f()
	}
	e.busy.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return bytes.Contains(e.heard.Bytes(), []byte(text))
}

// accept serves every connection to a listener and returns its port.
func (e *ears) accept(s *scene, network, address string, serve func(net.Conn)) string {
	l, err := net.Listen(network, address)
	must(s.t, err)
	e.all = append(e.all, l)
	if strings.HasPrefix(network, "unix") && address[0] != '@' {
		must(s.t, os.Chmod(address, 0o777))
		must(s.t, os.Chown(address, s.uid, s.uid))
	}
	e.flush = append(e.flush, func() { // whoever came before us is then being served
		if c, err := net.Dial(network, l.Addr().String()); err == nil {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			io.Copy(io.Discard, c)
			c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.busy.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	}()
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return fmt.Sprint(a.Port)
	}
	return ""
}

// stream answers in the manner of HTTP, which a bare client reads as well.
func (e *ears) stream(s *scene, network, address string) string {
	return e.accept(s, network, address, func(c net.Conn) {
		fmt.Fprintf(c, "HTTP/1.0 200 OK\r\n\r\n%s\n", s.secret)
		if w, ok := c.(interface{ CloseWrite() error }); ok {
			w.CloseWrite()
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if n > 0 {
				e.note(buf[:n])
			}
			if err != nil {
				return
			}
		}
	})
}

func (e *ears) packets(c net.PacketConn) {
	e.all = append(e.all, c)
	last := random("last")
	told := make(chan struct{}, 1)     // asked as often as somebody wants to know
	e.flush = append(e.flush, func() { // datagrams keep their order
		if d, err := net.Dial(c.LocalAddr().Network(), c.LocalAddr().String()); err == nil {
			io.WriteString(d, last)
			d.Close()
			<-told
		}
	})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if string(buf[:n]) == last {
				told <- struct{}{}
				continue
			}
			e.note(buf[:n])
		}
	}()
}

// terminal is one that somebody works on: its keys say the secret.
func (e *ears) terminal(s *scene) string {
	master, name := newTerminal(s.t, s.uid)
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	must(s.t, err)
	e.all = append(e.all, master, slave)
	_, err = fmt.Fprintln(master, s.secret)
	must(s.t, err)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			e.note(buf[:n])
		}
	}()
	last := random("last")
	e.flush = append(e.flush, func() { // what was written before is read before
		fmt.Fprintln(slave, last)
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			e.mu.Lock()
			done := bytes.Contains(e.heard.Bytes(), []byte(last))
			e.mu.Unlock()
			if done {
				return
			}
			runtime.Gosched()
		}
	})
	return name
}

// hand gives whoever comes a descriptor of the secret.
func (e *ears) hand(s *scene, address string) {
	e.accept(s, "unix", address, func(c net.Conn) { give(c, s.places["secret"]) })
}

func give(c net.Conn, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, err = c.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil)
	return err
}

// victim is a process outside with the secret in its memory.
type victim struct {
	cmd   *exec.Cmd
	ask   io.Writer
	state string
}

func newVictim(s *scene) *victim {
	name := filepath.Join(s.dir, s.places["victimname"])
	install(s.t, "victim", name, 0o755, s.uid)
	line, c, in := s.outsider(s.secret, name, s.places["secret"], s.secret)
	var addr string
	var fd int
	if _, err := fmt.Sscanf(line, "%s %d", &addr, &fd); err != nil {
		s.t.Fatalf("the victim says %q", line)
	}
	s.places["victim"], s.places["addr"], s.places["victimfd"] = fmt.Sprint(c.Process.Pid), addr, fmt.Sprint(fd)
	v := &victim{cmd: c, ask: in}
	v.state = v.look()
	return v
}

// hurt waits a moment for a signal to take effect and reports whether the
// victim is not as it was.
func (v *victim) hurt() bool {
	fd, err := unix.PidfdOpen(v.cmd.Process.Pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	for range 20 { // its end is an event, a stop is not
		if v.look() != v.state {
			return true
		}
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10)
	}
	return v.look() != v.state
}

// look describes what an attack could change about the victim from outside.
func (v *victim) look() string {
	pid := v.cmd.Process.Pid
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(after)
	if len(f) < 17 {
		return "gone"
	}
	state := f[0]
	if state == "R" || state == "D" {
		state = "S"
	}
	limits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	oom, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	var cpus unix.CPUSet
	unix.SchedGetaffinity(pid, &cpus)
	io, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
	return fmt.Sprint(state, " nice ", f[16], " policy ", f[38], " io ", io, " cpus ", cpus.Count(), " oom ", string(oom), string(limits))
}

// memory reads from outside what stands where the secret stood.
func (v *victim) memory(addr string) string {
	var at uintptr
	fmt.Sscanf(addr, "0x%x", &at)
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", v.cmd.Process.Pid))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	buf := make([]byte, 128)
	n, _ := f.ReadAt(buf, int64(at))
	return string(buf[:n])
}

// bearing lists the processes that have the word in their command line.
func bearing(word string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, _ := os.ReadFile(d + "/cmdline")
		if !bytes.Contains(b, []byte(word)) {
			continue
		}
		var pid int
		fmt.Sscanf(filepath.Base(d), "%d", &pid)
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// living is bearing for processes that may fork away under the search.
func living(word string) (pids []int) {
	for range 30 {
		if pids = bearing(word); len(pids) > 0 {
			break
		}
	}
	return pids
}

// die waits until no process bears the word, or until the patience ends, and
// reports whether all are gone. find is living, or bearing for processes that
// do not fork.
func die(word string, find func(string) []int, patience time.Duration) bool {
	for end := time.Now().Add(patience); ; {
		pids := find(word)
		if len(pids) == 0 {
			return true
		}
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		if fd, err := unix.PidfdOpen(pids[0], 0); err == nil {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
			unix.Close(fd)
		}
	}
}

// end kills what a control left behind.
func end(word string) {
	for stop := time.Now().Add(20 * time.Second); time.Now().Before(stop); {
		pids := living(word)
		if len(pids) == 0 {
			return
		}
		for _, p := range pids {
			syscall.Kill(p, syscall.SIGKILL)
		}
	}
}
