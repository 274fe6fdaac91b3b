//go:build linux

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// marker writes a program whose first system call writes one byte to its
// standard output.
func marker(t *testing.T, path string) string {
	t.Helper()
	f, err := canary(canaryExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return copyProgram(t, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), path)
}

// shell runs a script in the cgroup and gives its output.
func shell(t *testing.T, cgroup, dir, script string) string {
	t.Helper()
	cmd := in(t, cgroup, real(t, "sh"), "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if killed(err) {
		t.Fatalf("the shell itself was killed: %s", out)
	}
	return string(out)
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	s, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return s.Size()
}

// TestUnauthorisedExec: of 500 programs that are not allowed, none reaches its
// first system call; outside, each does.
func TestUnauthorisedExec(t *testing.T) {
	g := newGate(t)
	dir, c := governed(t, g, real(t, "sh"))
	tmp := t.TempDir()
	prog := marker(t, filepath.Join(tmp, "prog"))
	const loop = `: >out; i=0; while [ $i -lt 500 ]; do ./prog >>out 2>/dev/null; echo $?; i=$((i+1)); done`

	shell(t, "", tmp, loop)
	if n := size(t, filepath.Join(tmp, "out")); n != 500 {
		t.Fatalf("outside, %d of 500 wrote their mark", n)
	}
	codes := shell(t, dir, tmp, loop)
	if n := size(t, filepath.Join(tmp, "out")); n != 0 {
		t.Errorf("%d of 500 reached their first system call", n)
	}
	if n := strings.Count(codes, "137\n"); n != 500 {
		t.Errorf("%d of 500 ended by SIGKILL", n)
	}
	// The same program allowed runs, and denied again does not.
	f := identify(t, g, prog)
	if err := g.Allow(c, f); err != nil {
		t.Fatal(err)
	}
	if s := shell(t, dir, tmp, "./prog >>out; echo $?"); s != "99\n" {
		t.Errorf("allowed: %q", s)
	}
	if err := g.Forbid(c, f); err != nil {
		t.Fatal(err)
	}
	if s := shell(t, dir, tmp, "./prog >>out; echo $?"); !strings.HasSuffix(s, "137\n") {
		t.Errorf("taken back: %q", s)
	}
	if n := size(t, filepath.Join(tmp, "out")); n != 1 {
		t.Errorf("%d marks, want 1", n)
	}
}

// TestWhatIsExecuted: the inode decides, in the state in which it was approved,
// whatever path leads to it.
func TestWhatIsExecuted(t *testing.T) {
	g := newGate(t)
	sh, setsid, unshare := real(t, "sh"), real(t, "setsid"), real(t, "unshare")
	loader, err := filepath.EvalSymlinks("/lib64/ld-linux-x86-64.so.2")
	if err != nil {
		if loader, err = filepath.EvalSymlinks("/lib/ld-linux-aarch64.so.1"); err != nil {
			t.Skip("no dynamic loader that this test knows")
		}
	}
	const runs, dies = "99", "137"
	for _, c := range []struct {
		name, script, want string
		allow              []string // beside the shell
		change             string   // done outside after approval
	}{
		{name: "allowed", script: "./good", want: runs},
		{name: "not allowed", script: "./bad", want: dies},
		{name: "copy", script: "./copy", want: dies},
		{name: "symlink to allowed", script: "./link", want: runs},
		{name: "symlink to forbidden", script: "./badlink", want: dies},
		{name: "through proc", script: "/proc/self/root$PWD/bad", want: dies},
		{name: "hard link made before approval", script: "./hard", want: runs},
		{name: "hard link made after approval is a change", script: "./good", change: "ln good late", want: dies},
		{name: "written", script: "./good", change: "printf x >>good", want: dies},
		{name: "written, same size and times", script: "./good",
			change: `cp -p good keep; printf Z | dd of=good bs=1 seek=500 conv=notrunc status=none; touch -r keep good`, want: dies},
		{name: "replaced by rename", script: "./good", change: "cp bad new; mv new good", want: dies},
		{name: "mode changed", script: "./good", change: "chmod 700 good", want: dies},
		{name: "script, interpreter allowed", script: "./script", want: runs},
		{name: "script, interpreter forbidden", script: "./badscript", want: dies},
		{name: "loader", script: loader + " /bin/true", want: dies},
		// A limit: who allows the loader allows whatever it loads.
		{name: "loader allowed", script: loader + " " + real(t, "true"), allow: []string{loader}, want: "0"},
		{name: "own session", script: setsid + " -w ./bad", allow: []string{setsid}, want: dies},
		// unshare of util-linux 2.38 has no better word for a killed child.
		{name: "init of a pid namespace", script: unshare + " -fp ./bad", allow: []string{unshare}, want: "1"},
		{name: "init of a pid namespace, allowed", script: unshare + " -fp ./good", allow: []string{unshare}, want: runs},
		{name: "own mount namespace", script: unshare + ` -m sh -c 'mount --bind bad good && ./good'`,
			allow: []string{unshare, real(t, "mount")}, want: dies},
		{name: "own user namespace", script: unshare + " -r ./bad", allow: []string{unshare}, want: dies},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := t.TempDir()
			good := marker(t, filepath.Join(tmp, "good"))
			marker(t, filepath.Join(tmp, "bad"))
			copyProgram(t, good, filepath.Join(tmp, "copy"))
			os.WriteFile(filepath.Join(tmp, "script"), []byte("#!"+good+"\n"), 0o755)
			os.WriteFile(filepath.Join(tmp, "badscript"), []byte("#!"+tmp+"/bad\n"), 0o755)
			for link, to := range map[string]string{"link": "good", "badlink": "bad"} {
				if err := os.Symlink(to, filepath.Join(tmp, link)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Link(good, filepath.Join(tmp, "hard")); err != nil {
				t.Fatal(err)
			}
			dir, _ := governed(t, g, append([]string{sh, good}, c.allow...)...)
			if c.change != "" {
				if out := shell(t, "", tmp, c.change); out != "" {
					t.Fatal(out)
				}
			}
			script := c.script + " >>out 2>/dev/null; echo $?"
			if got := strings.TrimSpace(shell(t, dir, tmp, script)); !strings.HasSuffix(got, c.want) {
				t.Errorf("exit status %q, want %s", got, c.want)
			}
			if n := size(t, filepath.Join(tmp, "out")); c.want != runs && n != 0 {
				t.Error("it reached its first system call")
			} else if c.want == runs && n != 1 {
				t.Errorf("%d marks, want 1", n)
			}
			// The control: outside, it runs.
			os.Remove(filepath.Join(tmp, "out"))
			if got := strings.TrimSpace(shell(t, "", tmp, script)); got != runs && got != "0" {
				t.Errorf("outside: %q", got)
			}
		})
	}
}

// TestForks: children that outlive what started them, in the moment in which it
// is killed, are governed as it was.
func TestForks(t *testing.T) {
	g := newGate(t)
	dir, _ := governed(t, g, real(t, "sh"), real(t, "setsid"))
	tmp := t.TempDir()
	marker(t, filepath.Join(tmp, "prog"))
	// Each round: a double fork, a session of its own, and a background shell
	// whose parent kills itself while it starts.
	const rounds = `: >out; i=0; while [ $i -lt %d ]; do
		( ( ./prog >>out 2>/dev/null & ) & )
		setsid ./prog >>out 2>/dev/null
		sh -c './prog >>out 2>/dev/null & kill -9 $$' 2>/dev/null
		sh -c 'kill -9 $$ & exec ./prog >>out' 2>/dev/null
		i=$((i+1)); done`
	shell(t, dir, tmp, fmt.Sprintf(rounds, 100))
	if err := g.End(dir, 30*time.Second); err != nil { // nothing is left that could still write
		t.Fatal(err)
	}
	if n := size(t, filepath.Join(tmp, "out")); n != 0 {
		t.Errorf("%d of 400 reached their first system call", n)
	}
	shell(t, "", tmp, fmt.Sprintf(rounds, 5))
	if n := size(t, filepath.Join(tmp, "out")); n == 0 {
		t.Error("outside, none ran: the test shows nothing")
	}
}

// TestDescendants: a cgroup below a governed one is governed, however deep, and
// where it is governed itself, both must allow.
func TestDescendants(t *testing.T) {
	g := newGate(t)
	sh := real(t, "sh")
	dir, outer := governed(t, g, sh)
	tmp := t.TempDir()
	prog := identify(t, g, marker(t, filepath.Join(tmp, "prog")))
	deep := dir
	for range 30 { // deeper than the programs look for governed ones
		deep = newCgroup(t, deep)
	}
	inner := newCgroup(t, dir)
	run := func(cgroup string) string {
		t.Helper()
		return strings.TrimSpace(shell(t, cgroup, tmp, "./prog >/dev/null 2>&1; echo $?"))
	}
	if got := run(deep); got != "137" {
		t.Errorf("30 levels below: %q", got)
	}
	c, err := g.Govern(inner, false)
	if err != nil {
		t.Fatal(err)
	}
	shf := identify(t, g, sh)
	for _, s := range []struct {
		outer, inner []File
		want         string
	}{
		{[]File{shf}, []File{shf, prog}, "137"},
		{[]File{shf, prog}, []File{shf}, "137"},
		{[]File{shf, prog}, []File{shf, prog}, "99"},
	} {
		if err := g.SetPrograms(outer, s.outer); err != nil {
			t.Fatal(err)
		}
		if err := g.SetPrograms(c, s.inner); err != nil {
			t.Fatal(err)
		}
		if got := run(inner); got != s.want {
			t.Errorf("outer allows %d, inner %d: %q, want %s", len(s.outer), len(s.inner), got, s.want)
		}
	}
	if err := g.Lift(c); err != nil {
		t.Fatal(err)
	}
	if err := g.SetPrograms(outer, []File{shf}); err != nil {
		t.Fatal(err)
	}
	if got := run(inner); got != "137" {
		t.Errorf("lifted below a governed one: %q", got)
	}
	// What was set for the lifted one is gone from the maps.
	left := 0
	var k gateProgram
	var v gateVersion
	for it := g.maps[gateMapPrograms].Iterate(); it.Next(&k, &v); {
		if k.Cgroup == uint64(c) {
			left++
		}
	}
	if left != 0 {
		t.Errorf("%d programs left of a lifted cgroup", left)
	}
}

// TestEveryField: what was approved differs from what is there in one field,
// and that is enough.
func TestEveryField(t *testing.T) {
	g := newGate(t)
	dir, c := governed(t, g, real(t, "sh"))
	tmp := t.TempDir()
	f := identify(t, g, marker(t, filepath.Join(tmp, "prog")))
	for name, change := range map[string]func(*File){
		"nothing":    func(f *File) {},
		"device":     func(f *File) { f.Dev++ },
		"inode":      func(f *File) { f.Ino++ },
		"generation": func(f *File) { f.Generation++ },
		"size":       func(f *File) { f.Size++ },
		"seconds":    func(f *File) { f.CtimeSec++ },
		"nanosecond": func(f *File) { f.CtimeNsec++ },
		"right":      nil, // allowed as a library only
	} {
		other, want := f, "137"
		if change == nil {
			if err := g.SetLibraries(c, []File{f}); err != nil {
				t.Fatal(err)
			}
		} else {
			if change(&other); other == f {
				want = "99"
			}
			if err := g.Allow(c, other); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.TrimSpace(shell(t, dir, tmp, "./prog >/dev/null 2>&1; echo $?")); got != want {
			t.Errorf("%s changed: %q, want %s", name, got, want)
		}
		if err := g.Forbid(c, other); err != nil {
			t.Fatal(err)
		}
	}
}
