//go:build linux

package nested

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/landlock"
)

// Inside reports whether this process runs inside an execution.
func Inside() bool { return os.Getenv(exeq.ExecutionVariable) != "" }

// Run asks the supervisor of the execution that we are in for a nested run and
// carries it out.
func Run(argv []string, intent string) (*Outcome, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath(argv[0])
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("%w: nested run: the supervisor cannot be reached: %w", exeq.ErrEnforce, err)
	}
	defer c.Close()
	w := newWire(c)
	a := ask{Version: 1, Program: exeq.EncodeBytes(program), Dir: exeq.EncodeBytes(dir),
		Within: os.Getenv(exeq.ExecutionVariable), Intent: intent}
	for _, s := range argv {
		a.Argv = append(a.Argv, exeq.EncodeBytes(s))
	}
	if err := w.send(a); err != nil {
		return nil, fmt.Errorf("%w: nested run: %w", exeq.ErrEnforce, err)
	}
	r := &client{wire: w, argv: argv, path: program}
	return r.follow()
}

// dial opens a tunnel to the supervisor through the execution's proxy.
func dial() (net.Conn, error) {
	proxy, err := url.Parse(os.Getenv("http_proxy"))
	if err != nil || proxy.Host == "" {
		return nil, errors.New("http_proxy is not the execution's")
	}
	c, err := net.DialTimeout("tcp", proxy.Host, exeq.DefaultLease)
	if err != nil {
		return nil, err
	}
	auth := ""
	if p, ok := proxy.User.Password(); ok {
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+p)) + "\r\n"
	}
	c.SetDeadline(time.Now().Add(exeq.DefaultLease))
	if _, err := fmt.Fprintf(c, "CONNECT %s:1 HTTP/1.1\r\nHost: %s:1\r\n%s\r\n", Host, Host, auth); err != nil {
		c.Close()
		return nil, err
	}
	// The supervisor speaks only when asked: nothing behind the head is lost.
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// client is a nested run under way.
type client struct {
	*wire
	argv []string
	path string
	cmd  *exec.Cmd
}

func (r *client) follow() (*Outcome, error) {
	for {
		var m message
		if err := r.receive(&m, 2*exeq.MaxRightsBytes); err != nil {
			r.killAll()
			return nil, fmt.Errorf("%w: nested run: the supervisor is gone: %w", exeq.ErrRevoked, err)
		}
		switch {
		case m.Start != nil:
			if err := r.start(m.Start); err != nil {
				return nil, fmt.Errorf("%w: nested run: %w", exeq.ErrEnforce, err)
			}
		case m.Ping != "":
			r.send(message{Pong: m.Ping})
		case m.Kill != "":
			r.killAll()
		case m.Result != nil:
			return m.Result, nil
		}
	}
}

// start narrows where it must, and releases the command. Orphans of it come to
// us, so that the end of all of it can be told.
func (r *client) start(s *start) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	started := make(chan error)
	go func() {
		// The thread is narrowed and then thrown away with its goroutine.
		runtime.LockOSThread()
		if s.Rights != nil {
			if err := narrow(s); err != nil {
				started <- err
				return
			}
		}
		r.cmd = &exec.Cmd{Path: r.path, Args: r.argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
			// We are its reaper: without us nobody could tell its end.
			SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
			Env:         environ(s.ID)}
		if err := r.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		err := r.cmd.Wait()
		var x *exec.ExitError
		exit := exeq.Exit{Code: 126}
		if err == nil || errors.As(err, &x) {
			ws := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if exit.Code = ws.ExitStatus(); ws.Signaled() {
				exit = exeq.Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
			}
		}
		r.killAll()
		r.send(message{Exit: &exit})
	}()
	if err := <-started; err != nil {
		return err
	}
	go r.forward(signals)
	return r.send(message{Running: true})
}

// forward passes signals on, so that who ends us (timeout) ends the command, and
// with it the nested run. The terminal's keys reach the command by themselves.
func (r *client) forward(signals <-chan os.Signal) {
	for s := range signals {
		if key := s == syscall.SIGINT || s == syscall.SIGQUIT; key && inFront() {
			continue
		}
		r.cmd.Process.Signal(s) // one that is gone needs none
	}
}

// inFront reports whether we are in the foreground group of our terminal.
func inFront() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func environ(id string) []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, exeq.ExecutionVariable+"=") {
			out = append(out, kv)
		}
	}
	return append(out, exeq.ExecutionVariable+"="+id)
}

// narrow puts the difference to the parent's rights in force on this thread.
func narrow(s *start) error {
	ruleset, report, err := landlock.Build(s.Rights, landlock.Options{Gated: true, Labelled: true})
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	// What is masked for the parent too is so already.
	over := map[string]landlock.Access{}
	for _, m := range report.Masks {
		over[m.Path] |= m.Over
	}
	for _, m := range report.Missing {
		over[m.Path] |= m.Over
	}
	for path, o := range over {
		id := exeq.EncodeBytes(path)
		for _, a := range []exeq.Access{s.Bound.Lookup(id), s.Bound.Lookup(strings.TrimSuffix(id, "/") + "/\x00")} {
			if a.Read && o&landlock.Read != 0 || a.Write && o&landlock.Write != 0 {
				return fmt.Errorf("%s: its rights are narrower than its parent's inside a tree, which needs a mount: give the whole tree less", path)
			}
		}
	}
	return landlock.Restrict(ruleset)
}

// killAll kills our descendants until there are none. We are their reaper, so
// that whoever's parent dies becomes our child.
func (r *client) killAll() {
	for {
		pids := descendants(os.Getpid())
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		for _, pid := range pids {
			if r.cmd == nil || pid != r.cmd.Process.Pid { // that one is waited for
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// descendants lists the living processes below pid.
func descendants(pid int) []int {
	parents := map[int]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		child, err := strconv.Atoi(strings.Split(f, "/")[2])
		if err != nil || len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		if parents[child], err = strconv.Atoi(fields[1]); err != nil {
			delete(parents, child)
		}
	}
	var out []int
	for child := range parents {
		for p := child; p > 1; p = parents[p] {
			if parents[p] == pid {
				out = append(out, child)
				break
			}
		}
	}
	return out
}
