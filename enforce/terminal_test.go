//go:build linux

package enforce

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a shell of the host on a terminal of its own, as a person has it.
type console struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	mu     sync.Mutex
	out    bytes.Buffer
	more   chan struct{}
	at     int // what was matched so far
}

func newConsole(t *testing.T, b *box) *console {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, master: os.NewFile(uintptr(fd), "pty"), more: make(chan struct{}, 1)}
	c.cmd = exec.Command("bash", "--norc", "--noprofile", "-i")
	c.cmd.Env = append(os.Environ(), "PS1=% ", "TERM=dumb", "HISTFILE=")
	c.cmd.Dir = b.dir
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.master.Read(buf)
			c.mu.Lock()
			c.out.Write(buf[:n])
			c.mu.Unlock()
			select {
			case c.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		c.master.Close()
	})
	return c
}

func (c *console) send(s string) {
	c.t.Helper()
	if _, err := c.master.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits for text behind what was matched before.
func (c *console) expect(text string) {
	c.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		i := strings.Index(c.out.String()[c.at:], text)
		if i >= 0 {
			c.at += i + len(text)
		}
		all := c.out.String()
		c.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-c.more:
		case <-deadline:
			c.t.Fatalf("no %q; the terminal shows:\n%s", text, all)
		}
	}
}

func TestJobControl(t *testing.T) {
	b := newBox(t)
	c := newConsole(t, b)
	governed := fmt.Sprintf("%s helper supervise %s", os.Args[0], b.dir)
	c.expect("% ")
	run := func(cmd string) { c.send(governed + " " + cmd + "\n") }
	status := func(want int) {
		t.Helper()
		c.send("echo status=$?\n")
		c.expect(fmt.Sprintf("\nstatus=%d\r\n", want))
		c.expect("% ")
	}

	// A key pressed while the shell inside is about to execute sleep may reach
	// its handler in the child and have no effect: that moment exists without
	// us too, and is longer with us (see unstick).
	settled := func() {
		for !lives("sleep 1000", b.dir) {
		}
	}

	// ^C reaches the command and the status is its own.
	run("sh -c 'echo u''p; sleep 1000'")
	c.expect("up\r\n")
	settled()
	c.send("\x03")
	c.expect("% ")
	status(130)

	// ^\ likewise.
	run("sh -c 'echo u''p; sleep 1000'")
	c.expect("up\r\n")
	settled()
	c.send("\x1c")
	c.expect("% ")
	status(131)

	// ^Z stops it as a job of the shell, fg goes on, bg too.
	run("sh -c 'echo u''p; read x; echo got=$x; sleep 1000'")
	c.expect("up\r\n")
	c.send("\x1a")
	c.expect("Stopped")
	c.expect("% ")
	c.send("echo between\n")
	c.expect("\nbetween\r\n")
	c.send("fg\n")
	c.expect("stops false")
	c.send("hello\n")
	c.expect("got=hello\r\n")
	settled()
	c.send("\x1a")
	c.expect("Stopped")
	c.send("bg\n")
	c.expect("stops false")
	c.send("fg\n")
	for { // until the shell has given the terminal away
		if g, err := unix.IoctlGetInt(int(c.master.Fd()), unix.TIOCGPGRP); err == nil && g != c.cmd.Process.Pid {
			break
		}
	}
	c.send("\x03")
	c.expect("% ")
	status(130)

	// Reading the terminal from the background stops; fg lets it read.
	run("sh -c 'echo u''p; read x; echo got=$x' &")
	c.send("until [[ $(jobs -s) ]]; do :; done; echo se''en\n")
	c.expect("seen\r\n")
	c.send("fg\n")
	c.expect("stops false")
	c.send("again\n")
	c.expect("got=again\r\n")
	c.expect("% ")
	status(0)

	// A shell inside has job control of its own.
	run("bash --norc --noprofile -i")
	c.send("PS1='inside> '\n")
	c.expect("inside> ")
	c.send("sleep 1000\n")
	c.expect("sleep 1000\r\n")
	for i := 0; ; i++ { // until sleep is the foreground group
		if g, err := unix.IoctlGetInt(int(c.master.Fd()), unix.TIOCGPGRP); err == nil && comm(g) == "sleep" {
			break
		}
	}
	c.send("\x1a")
	c.expect("Stopped")
	c.expect("inside> ")
	c.send("exit 7\n")
	c.expect("There are stopped jobs.")
	c.send("exit 7\n")
	c.expect("\n% ")
	status(7)

	// It has a name (ttyname(3)), by which it can be opened.
	run(`sh -c 'tty && echo named > "$(tty)"'`)
	c.expect("/dev/")
	c.expect("named\r\n")

	// The window's size is the terminal's.
	if err := unix.IoctlSetWinsize(int(c.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	run("stty size")
	c.expect("33 77\r\n")
	c.expect("% ") // the supervisor is done with its directories
}

// lives reports whether a process with that command line and directory does.
func lives(cmdline, dir string) bool {
	ps, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range ps {
		b, _ := os.ReadFile(p)
		d, _ := os.Readlink(filepath.Join(filepath.Dir(p), "cwd"))
		if strings.ReplaceAll(strings.TrimSuffix(string(b), "\x00"), "\x00", " ") == cmdline && d == dir {
			return true
		}
	}
	return false
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
