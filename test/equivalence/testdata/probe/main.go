//go:build linux

// probe tries what its file of lines names, each a verb and a path or an
// address, and says for each whether it could.
package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	lines, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for line := range strings.Lines(string(lines)) {
		verb, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		said := "ok"
		if err := try(verb, what); err != nil {
			said = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Printf("%s %s\t%s\n", verb, what, said)
	}
}

func try(verb, what string) error {
	switch verb {
	case "read":
		return open(what, unix.O_RDONLY)
	case "write":
		return open(what, unix.O_WRONLY)
	case "append":
		return open(what, unix.O_RDWR|unix.O_APPEND)
	case "truncate":
		var st unix.Stat_t
		if err := unix.Stat(what, &st); err != nil {
			return err
		}
		return unix.Truncate(what, st.Size)
	case "create":
		return open(what, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	case "mkdir":
		return unix.Mkdir(what, 0o755)
	case "exec":
		return run(what)
	case "map":
		fd, err := unix.Open(what, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		if err == nil {
			unix.Munmap(b)
		}
		return err
	case "direct":
		c, err := net.DialTimeout("tcp", what, 5*time.Second)
		if err != nil {
			return err
		}
		return greeted(c, bufio.NewReader(c))
	case "connect":
		return tunnel(what)
	}
	return errors.New("no such verb")
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o755)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func run(path string) error {
	pid, err := syscall.ForkExec(path, []string{"x"}, &syscall.ProcAttr{})
	if err != nil {
		return err
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return err
	}
	if ws.ExitStatus() != 41 {
		return fmt.Errorf("it ended with %#x", ws)
	}
	return nil
}

// tunnel reaches the address by the only way that there is.
func tunnel(to string) error {
	proxy, err := url.Parse(os.Getenv("http_proxy"))
	if err != nil || proxy.Host == "" {
		return fmt.Errorf("no proxy: %q", os.Getenv("http_proxy"))
	}
	c, err := net.Dial("tcp", proxy.Host)
	if err != nil {
		return fmt.Errorf("the proxy: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	auth := ""
	if proxy.User != nil {
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(proxy.User.String())) + "\r\n"
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", to, to, auth)
	r := bufio.NewReader(c)
	status, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(status, " 200 ") {
		return errors.New(strings.TrimSpace(status))
	}
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
	}
	// The proxy looks at what a tunnel begins with before anybody answers.
	fmt.Fprint(c, "hello\r\n")
	return greeted(c, r)
}

// greeted: somebody outside answers.
func greeted(c net.Conn, r *bufio.Reader) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if line != "welcome\n" {
		return fmt.Errorf("answered %q", line)
	}
	return nil
}
