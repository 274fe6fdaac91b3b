//go:build linux

package enforce

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// Process is a living process inside an execution, as its own /proc numbers it.
type Process struct {
	PID, Parent int
	Began       uint64 // tells it from a later one of the same number
}

// Living gives what lives inside an execution, process 1 aside; ErrGone once
// nothing does.
func (r *running) Living() ([]Process, error) {
	if r.isGone() {
		return nil, exeq.ErrGone
	}
	pids, err := r.processes()
	if err != nil {
		return nil, err
	}
	out := make([]Process, 0, len(pids))
	for _, pid := range pids {
		stat, err := r.readProc(strconv.Itoa(pid) + "/stat")
		if err != nil {
			if gone(err) {
				continue
			}
			return nil, err
		}
		p, alive, err := parseStat(pid, stat)
		if err != nil {
			return nil, err
		}
		if alive {
			out = append(out, p)
		}
	}
	return out, nil
}

// parseStat reads /proc/PID/stat. A zombie of more than one thread is one whose
// first thread is over, and lives.
func parseStat(pid int, stat string) (p Process, alive bool, err error) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 20 {
		return p, false, fmt.Errorf("stat of process %d: %d fields", pid, len(f))
	}
	p.PID = pid
	if p.Parent, err = strconv.Atoi(f[1]); err != nil {
		return p, false, err
	}
	if p.Began, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return p, false, err
	}
	return p, f[0] != "Z" && f[0] != "X" || f[17] != "1" && f[17] != "0", nil
}

// Holders gives the processes that hold the inner end of a TCP connection from
// the given port to the proxy.
func (r *running) Holders(port int) ([]Process, error) {
	all, err := r.Living()
	if err != nil {
		return nil, err
	}
	inode := ""
	for _, p := range all {
		if inode, err = r.socketOf(p.PID, port); err == nil {
			break
		}
	}
	if inode == "" {
		return nil, errors.Join(errors.New("no process has the connection"), err)
	}
	var out []Process
	for _, p := range all {
		if r.holds(p.PID, "socket:["+inode+"]") {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no process holds the connection")
	}
	return out, nil
}

// socketOf finds the inode of the socket connected from port to the proxy.
func (r *running) socketOf(pid, port int) (string, error) {
	to := ""
	if a, ok := r.egress.Addr().(*net.TCPAddr); ok {
		to = fmt.Sprintf(":%04X", a.Port)
	}
	from := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := r.readProc(path.Join(strconv.Itoa(pid), "net", table))
		if err != nil {
			if table == "tcp6" && gone(err) {
				continue
			}
			return "", err
		}
		for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
			// sl local remote state queues timer retransmits uid timeout inode
			f := strings.Fields(lines.Text())
			if len(f) >= 10 && strings.HasSuffix(f[1], from) && strings.HasSuffix(f[2], to) && f[3] == "01" {
				return f[9], nil
			}
		}
	}
	return "", errors.New("no such connection")
}

// holds reports whether a process has a descriptor of the object; of one that
// cannot be looked into it is not known to.
func (r *running) holds(pid int, object string) bool {
	fd, err := unix.Openat(r.procFD, strconv.Itoa(pid)+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	d := os.NewFile(uintptr(fd), "fd")
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	buf := make([]byte, 64)
	for _, n := range names {
		if got, err := unix.Readlinkat(fd, n, buf); err == nil && string(buf[:got]) == object {
			return true
		}
	}
	return false
}
