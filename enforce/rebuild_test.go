//go:build linux

package enforce

import (
	"context"
	"testing"
)

func TestRebuildWhileRunning(t *testing.T) {
	b := newBox(t)
	b.rights.Cells = append(b.rights.Cells[:0:0], b.rights.Cells...)
	b.write("a.c", "#include <stdio.h>\n#include <unistd.h>\nint main(int c, char **v) { printf(\"%s\\n\", VERSION); fflush(stdout); if (c > 1) sleep(1000); return 0; }\n", 0o644)
	written := ""
	for _, name := range []string{"link", "d/../prog", "d/link", b.dir + "/prog", "/proc/self/cwd/prog"} {
		written += "echo " + name + "\n" + name + "\n"
	}
	b.want(0, "one\none\ntwo\ntwo\nthree\n"+written, "sh", "-ec", `
		gcc -DVERSION='"one"' -o prog a.c; ./prog
		./prog wait & pid=$!
		while [ "$(readlink /proc/$pid/exe)" != "`+b.dir+`/prog" ]; do :; done
		sleep 0.2
		gcc -DVERSION='"two"' -o prog a.c; ./prog
		gcc -DVERSION='"three"' -o next a.c
		./prog; mv next prog; ./prog
		kill $pid
		# However it is named and opened.
		ln -s "$PWD/prog" link; mkdir d; ln -s ../prog d/link
		for name in link d/../prog d/link "$PWD/prog" /proc/self/cwd/prog; do
			./prog >/dev/null; cat prog >/dev/null; printf '#!/bin/sh\necho %s\n' "$name" >"$name"; cat prog | tail -1; ./prog
		done
		rm prog
	`)
}

// Programs of the same bytes at several places share a copy: each can be built
// anew all the same, and evidence finds the mounts as they were.
func TestSameBytesTwice(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	r := b.launchWith(a, "sh", "-ec", `
		cp /bin/true one; cp /bin/true two; ./one; ./two
		rm one; cp /bin/false one; ! ./one; cp /bin/true one; ./one; mv two one; ./one
		echo done; exec sleep 1000`)
	if got := a.line(t); got != "done\n" {
		t.Errorf("it says %q (messages %q)", got, b.msgs.String())
	}
	ev, err := r.Evidence(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if ev.Environment.Mounts != r.Applied().Environment.Mounts {
		t.Error("mounts changed")
	}
}

// Programs that change places while they are being approved leave no mount
// that evidence does not know.
func TestExchangedWhileApproved(t *testing.T) {
	b := newBox(t)
	a := newAlive(t)
	b.copy("/bin/true", "x")
	b.copy("/bin/false", "y")
	b.write("s.py", "import ctypes\nc = ctypes.CDLL(None)\nwhile True: c.renameat2(-100, b'x', -100, b'y', 2)\n", 0o644)
	r := b.launchWith(a, "sh", "-c", "python3 s.py & echo ready; while :; do ./x; ./y; done 2>/dev/null")
	a.line(t)
	for range 1000 {
		ev, err := r.Evidence(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if ev.Environment.Mounts != r.Applied().Environment.Mounts {
			t.Fatal("mounts changed")
		}
	}
}
