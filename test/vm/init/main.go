//go:build linux

// Init is the first program of the machine that package vm boots: it mounts
// what programs expect, runs the job, reports on the second serial port and
// powers off.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init is for the machine of package vm alone")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "exeq-vm:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range []struct{ kind, at string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"devpts", "/dev/pts"}, {"tmpfs", "/dev/shm"},
		{"cgroup2", "/sys/fs/cgroup"}, {"bpf", "/sys/fs/bpf"}, {"securityfs", "/sys/kernel/security"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := os.Chmod("/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	b, err := os.ReadFile("/job.json")
	if err != nil {
		return err
	}
	var job struct {
		Nonce     string
		Args, Env []string
		Dir       string
	}
	if err := json.Unmarshal(b, &job); err != nil {
		return err
	}
	report, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	raw, err := unix.IoctlGetTermios(int(report.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	raw.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(int(report.Fd()), unix.TCSETS, raw); err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if job.Dir == "" {
		job.Dir = "/"
	}
	fmt.Fprintf(report, "exeq-vm %s began %s\n", job.Nonce, unix.ByteSliceToString(u.Release[:]))
	p, err := os.StartProcess(job.Args[0], job.Args, &os.ProcAttr{
		Dir: job.Dir, Env: job.Env, Files: []*os.File{nil, w, w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		fmt.Fprintf(report, "%v\n\nexeq-vm %s ended 127\n", err, job.Nonce)
		return err
	}
	copied := make(chan error, 1)
	go func() { _, err := io.Copy(report, r); copied <- err }()
	status := reap(p.Pid)
	// What the job left behind may hold the pipe.
	select {
	case <-copied:
	case <-time.After(2 * time.Second):
	}
	fmt.Fprintf(report, "\nexeq-vm %s ended %d\n", job.Nonce, status)
	return unix.IoctlSetInt(int(report.Fd()), unix.TCSBRK, 1) // until it is sent
}

// reap waits for every process, as init does, until the job ends.
func reap(job int) int {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, 0, nil)
		switch {
		case err == unix.EINTR || err == nil && pid != job:
		case err != nil:
			return 126
		case s.Signaled():
			return 128 + int(s.Signal())
		default:
			return s.ExitStatus()
		}
	}
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
