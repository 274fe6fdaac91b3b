//go:build linux

package enforce

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A file of 900 GB, of which the disk holds a few bytes, is answered at once
// with a line, wherever it lies and whether it is executed or mapped.
func TestHugeProgram(t *testing.T) {
	b := newBox(t)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("tree")+"=rX")
	for _, dir := range []string{"", "tree/"} {
		for name, head := range map[string]string{"script": "#!/bin/sh\necho ran\n", "elf": string(canaryProgram())} {
			p := b.write(dir+name, head, 0o755)
			if err := os.Truncate(p, 900<<30); err != nil {
				t.Skipf("the file system takes no file of 900 GB: %v", err)
			}
			began := time.Now()
			if code, out := b.run("sh", "-c", p); code != 126 {
				t.Errorf("%s: %d %s", p, code, out)
			}
			b.refused("mapexec", p)
			t.Logf("%s: %v", p, time.Since(began))
			for _, act := range []string{"exec", "map"} {
				if want := act + " " + p + " denied: Exeq looks at no program of more than 2 GiB"; !strings.Contains(b.msgs.String(), want) {
					t.Errorf("want %q, have %q", want, b.msgs.String())
				}
			}
		}
	}
}

// What asks for a look and is told to end is heard, also where it blocks the
// signal; any other signal may wait, and what is ignored asks for nothing.
func TestToldToEnd(t *testing.T) {
	for script, want := range map[string]bool{
		"kill -TERM $$": true, "kill -INT $$": true, "kill -CHLD $$": false, ":": false,
		"trap '' TERM; kill -TERM $$": false,
	} {
		// env blocks the signals for what it executes.
		c := exec.Command("env", "--block-signal", "sh", "-c", script+"; echo; read x")
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if got := toldToEnd(c.Process.Pid); got != want {
			t.Errorf("%s: %v", script, got)
		}
		in.Close()
		c.Wait()
	}
	if !toldToEnd(1 << 30) {
		t.Error("what is gone waits on")
	}
}

// A program that was removed is not said to come from outside.
func TestRemovedProgramByDescriptor(t *testing.T) {
	b := newBox(t)
	b.copy("/bin/true", "prog")
	if code, out := b.run("sh", "-c", "./prog && exec 3<prog && rm prog && /proc/self/fd/3"); code != 126 {
		t.Errorf("%d %s", code, out)
	}
	if said := b.msgs.String(); !strings.Contains(said, "exec denied: the program behind this descriptor was removed") {
		t.Errorf("it says %q", said)
	}
}
