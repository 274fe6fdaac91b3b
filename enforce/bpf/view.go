//go:build linux

package bpf

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// View is a mount namespace as one of its processes sees it: in it, paths are
// looked up.
type View struct {
	root   *os.File
	mounts []mount
}

type mount struct {
	dev         uint32 // as the kernel numbers devices within itself
	root, point string
}

// OpenView takes the view of a process. Whether the number still was that
// process's, the caller asks afterwards.
func OpenView(pid int) (*View, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	v := &View{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return nil, fmt.Errorf("a mount table with a line of %d fields", len(f))
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("a mount table with device %q", f[2])
		}
		v.mounts = append(v.mounts, mount{major<<20 | minor, f[3], unescape(f[4])})
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the root of process %d: %w", pid, err)
	}
	v.root = os.NewFile(uintptr(fd), "/")
	return v, nil
}

// Close lets go of it.
func (v *View) Close() error { return v.root.Close() }

// open opens, without any access, what is at a path that leads through no link;
// a link that it leads to is opened itself.
func (v *View) open(path string) (*os.File, error) {
	fd, err := unix.Openat2(int(v.root.Fd()), path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Stat says what is at a path that leads through no link.
func (v *View) Stat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	f, err := v.open(path)
	if err != nil {
		return st, err
	}
	defer f.Close()
	return st, unix.Fstat(int(f.Fd()), &st)
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if s[i] == '\\' {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
			}
		}
	}
	return s
}
