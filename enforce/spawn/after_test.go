//go:build linux && (amd64 || arm64)

package spawn

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// TestAfter: the program starts when this process has ended, whether it ends or
// is killed, and it has what it was given and nothing else.
func TestAfter(t *testing.T) {
	if os.Getenv("SPAWN_AFTER") != "" {
		after()
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"ends", "killed"} {
		t.Run(how, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			in, go_, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer go_.Close()
			cmd := exec.Command(self, "-test.run=^TestAfter$")
			cmd.Env = append(os.Environ(), "SPAWN_AFTER="+how)
			cmd.Stdin, cmd.ExtraFiles = in, []*os.File{w}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			in.Close()
			begun := make([]byte, 6)
			if _, err := io.ReadFull(r, begun); err != nil || string(begun) != "begun\n" {
				t.Fatalf("%q, %v", begun, err)
			}
			if how == "killed" {
				cmd.Process.Kill()
			} else {
				go_.Close()
			}
			said, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			f := strings.Split(strings.TrimSpace(string(said)), "\n")
			if len(f) != 6 {
				t.Fatalf("the program wrote %q", said)
			}
			if state := f[0]; state != "Z" && state != "X" && state != "0" {
				t.Errorf("the process before it was in state %s", state)
			}
			if f[1] != f[2] {
				t.Errorf("process %s is in session %s", f[1], f[2])
			}
			if strings.Join(strings.Fields(f[3]), " ") != "0 1 2 3" {
				t.Errorf("open descriptors: %s", f[3])
			}
			if f[4] != "/ /dev/null /dev/null /dev/null one two" {
				t.Errorf("directory, streams, arguments: %s", f[4])
			}
			if f[5] != "0000000000000000 SPAWN_X=y" {
				t.Errorf("blocked signals, environment: %s", f[5])
			}
		})
	}
}

// after is the process that something comes after.
func after() {
	out := os.NewFile(3, "out")
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	script := fmt.Sprintf(`
		had="$(pwd) $(readlink /proc/$$/fd/0) $(readlink /proc/$$/fd/1) $(readlink /proc/$$/fd/2) $1 $2"
		exec >&3
		{ cat /proc/%d/stat || echo 0 gone; } 2>/dev/null | sed 's/.*) //' | cut -c1
		echo $$
		sed 's/.*) //' /proc/$$/stat | cut -d' ' -f4
		ls -x /proc/$$/fd
		echo "$had"
		echo "$(sed -n 's/SigBlk:.//p' /proc/$$/status) SPAWN_X=$SPAWN_X"`, os.Getpid())
	if err := After("/bin/sh", []string{"sh", "-c", script, "sh", "one", "two"}, []string{"SPAWN_X=y", "PATH=/usr/bin:/bin"}, "/", out); err != nil {
		fmt.Fprintln(out, err)
		return
	}
	fmt.Fprintln(out, "begun")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
