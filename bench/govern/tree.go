//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// tree compares what runs inside a governed tree with the same outside. Start
// and end of exeq itself are in the times of the build and of the whole clone
// and not in those of single starts and opens.
func (b *bench) tree() error {
	files, err := b.files(64)
	if err != nil {
		return err
	}
	count := strconv.Itoa(b.rounds(1000))
	opens := strconv.Itoa(b.rounds(100_000))
	small := func(name string, argv ...string) error {
		mean := func(command func(...string) *exec.Cmd) func(int) (times, error) {
			return func(int) (times, error) {
				_, others, err := printed(command(argv...))
				return times{wall: others}, err
			}
		}
		return b.turns("tree", name, b.rounds(15), side{"plain", mean(b.plain)}, side{"exeq", mean(b.governed)})
	}
	if err := small("start a program and wait", "./spawn", count, "/bin/true"); err != nil {
		return err
	}
	if err := small("open for reading, close", append([]string{"./open", "read", opens}, files...)...); err != nil {
		return err
	}
	if err := small("open for writing, close", append([]string{"./open", "write", count}, files...)...); err != nil {
		return err
	}
	if err := b.clone(); err != nil {
		return err
	}
	return b.build()
}

// files makes n small files in the workspace, named as its programs see them.
func (b *bench) files(n int) (names []string, err error) {
	if err := os.MkdirAll(filepath.Join(b.workspace, "files"), 0o755); err != nil {
		return nil, err
	}
	for i := range n {
		name := fmt.Sprintf("files/file-%d", i)
		names = append(names, name)
		if err := os.WriteFile(filepath.Join(b.workspace, name), []byte(name), 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// build compiles net/http and what it needs into an empty cache.
func (b *bench) build() error {
	dir := filepath.Join(b.workspace, "server")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"go.mod":  "module server\n\ngo 1.26\n",
		"main.go": "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\"127.0.0.1:0\", nil) }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	cold := func(command func(...string) *exec.Cmd) func(int) (times, error) {
		return func(int) (times, error) {
			cache := filepath.Join(b.workspace, "cache")
			if err := os.RemoveAll(cache); err != nil {
				return times{}, err
			}
			c := command("go", "build", "-C", "server", "-o", "server", ".")
			c.Env = append(c.Env, "GOCACHE="+cache)
			return timed(c)
		}
	}
	return b.turns("tree", "go build, cold", b.rounds(3), side{"plain", cold(b.plain)}, side{"exeq", cold(b.governed)})
}

// clone clones a local repository of 4,000 files, and does so again as a child
// of a command that is governed already. The copies are put aside, and stay:
// ext4 leaves inodes that were freed a short while ago alone and looks at each of
// them for every new file, until a clone takes seconds.
func (b *bench) clone() error {
	if err := b.repository("origin", 4000); err != nil {
		return err
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	aside := filepath.Join(b.dir, "copies")
	if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	argv := []string{git, "clone", "-q", "origin", "copy"}
	copies := 0
	put := func(t times, err error) (times, error) {
		copies++
		return t, errors.Join(err, os.Rename(filepath.Join(b.workspace, "copy"), filepath.Join(aside, strconv.Itoa(copies))))
	}
	whole := func(command func(...string) *exec.Cmd) func(int) (times, error) {
		return func(int) (times, error) { return put(timed(command(argv...))) }
	}
	inside := func(command func(...string) *exec.Cmd) func(int) (times, error) {
		return func(int) (times, error) {
			first, _, err := printed(command(append([]string{"./spawn", "1"}, argv...)...))
			return put(times{wall: first}, err)
		}
	}
	const name = "git clone, local, 4,000 files"
	if err := b.turns("tree", name, b.rounds(10), side{"plain", whole(b.plain)}, side{"exeq", whole(b.governed)}); err != nil {
		return err
	}
	return b.turns("tree", name+", without start and end", b.rounds(10), side{"plain", inside(b.plain)}, side{"exeq", inside(b.governed)})
}

// repository makes a repository with files of two kilobytes.
func (b *bench) repository(name string, files int) error {
	dir := filepath.Join(b.workspace, name)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := run(b.plain("git", "init", "-q", "-b", "main", name)); err != nil {
		return err
	}
	var s bytes.Buffer
	for i := range files {
		text := bytes.Repeat([]byte(fmt.Sprintf("line of file %d\n", i)), 128)
		fmt.Fprintf(&s, "blob\nmark :%d\ndata %d\n%s\n", i+1, len(text), text)
	}
	fmt.Fprint(&s, "commit refs/heads/main\ncommitter bench <bench@example.com> 1790000000 +0000\ndata 5\nfiles\n")
	for i := range files {
		fmt.Fprintf(&s, "M 100644 :%d dir-%d/file-%d.txt\n", i+1, i%200, i)
	}
	imported := b.plain("git", "-C", name, "fast-import", "--quiet")
	imported.Stdin = &s
	if err := run(imported); err != nil {
		return err
	}
	return run(b.plain("git", "-C", name, "reset", "-q", "--hard", "main"))
}
