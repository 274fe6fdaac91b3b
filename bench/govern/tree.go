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

	"golang.org/x/sys/unix"
)

// The table "tree" compares what runs inside a governed tree with the same
// outside. Start and end of exeq itself are in the times of the build and of the
// whole clone, and not in those of single starts and opens, and of clones without
// them.

// spawns starts a program that ends at once.
func (b *bench) spawns() error {
	spawn := func(command func(...string) *exec.Cmd) func(int) (times, error) {
		return func(int) (times, error) {
			r, err := repeat(command, b.rounds(1000), func(int) []string { return []string{"/bin/true"} })
			return times{wall: r.others, cpu: r.cpu}, err
		}
	}
	return b.turns("tree", "start a program and wait", b.rounds(15), side{"plain", spawn(b.plain)}, side{"exeq", spawn(b.governed)})
}

// opens opens and closes files: by short names in the working directory, by long
// ones in it, and, where they are installed, the system's headers, which may be
// read and not written.
func (b *bench) opens() error {
	short, err := b.files("files")
	if err != nil {
		return err
	}
	deep, err := b.files(filepath.Join(b.workspace, "1/2/3/4/5/6"))
	if err != nil {
		return err
	}
	headers, err := filepath.Glob("/usr/include/linux/*/*.h")
	if err != nil {
		return err
	}
	for _, o := range []struct {
		name, mode string
		count      int
		files      []string
	}{
		{"open for reading, close", "read", 100_000, short},
		{"open for reading by absolute path, 6 directories deep, close", "read", 100_000, deep},
		{"open a system header for reading, close", "read", 100_000, headers[:min(64, len(headers))]},
		{"open for writing, close", "write", 1000, short},
	} {
		if len(o.files) == 0 {
			continue
		}
		argv := append([]string{"./open", o.mode, strconv.Itoa(b.rounds(o.count))}, o.files...)
		open := func(command func(...string) *exec.Cmd) func(int) (times, error) {
			return func(int) (times, error) {
				t, err := opened(command(argv...))
				if o.mode == "write" {
					t.cpu = 0 // the supervisor's is not in it
				}
				return t, err
			}
		}
		if err := b.turns("tree", o.name, b.rounds(25), side{"plain", open(b.plain)}, side{"exeq", open(b.governed)}); err != nil {
			return err
		}
	}
	return nil
}

// files makes 64 small files in a directory of the workspace, named below dir as
// it is given.
func (b *bench) files(dir string) (names []string, err error) {
	at := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(b.workspace, name)
	}
	if err := os.MkdirAll(at(dir), 0o755); err != nil {
		return nil, err
	}
	for i := range 64 {
		name := filepath.Join(dir, fmt.Sprintf("file-%d", i))
		names = append(names, name)
		if err := os.WriteFile(at(name), []byte(name), 0o644); err != nil {
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

// clones clones local repositories.
func (b *bench) clones() error {
	if err := b.clone("4,000", 4000, 4, b.rounds(10)); err != nil {
		return err
	}
	return b.clone("20,000", 20_000, 2, b.rounds(5))
}

// clone clones a local repository once a command, and n times within one: what
// the command itself costs, exeq's start and end among it, is in the former alone.
// The copies are put aside, and stay: ext4 leaves inodes that were freed a short
// while ago alone and looks at each of them for every new file, until a clone takes
// seconds. And what the clones before left to be written is written first, or
// whoever comes later pays for it.
func (b *bench) clone(count string, files, n, rounds int) error {
	origin := fmt.Sprint("origin-", files)
	if err := b.repository(origin, files); err != nil {
		return err
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	aside := filepath.Join(b.dir, "copies", origin)
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	names := []string{"git clone, local, " + count + " files", "git clone, local, " + count + " files, without start and end"}
	sides := []side{{who: "plain"}, {who: "exeq"}}
	wall, cpu := [2][2][]float64{}, [2][2][]float64{} // by name and side
	for round := range rounds + 1 {
		for i := range sides {
			command := b.plain
			if i = (i + round) % 2; sides[i].who == "exeq" {
				command = b.governed
			}
			copies := filepath.Join(b.workspace, "copies")
			for _, n := range []int{1, n} {
				if err := os.MkdirAll(filepath.Join(copies, strconv.Itoa(n)), 0o755); err != nil {
					return err
				}
			}
			r, err := repeat(command, n, func(n int) []string {
				unix.Sync()
				return []string{git, "-C", filepath.Join("copies", strconv.Itoa(n)), "clone", "-q", filepath.Join("../..", origin), "%"}
			})
			if err = errors.Join(err, os.Rename(copies, filepath.Join(aside, fmt.Sprint(round, "-", sides[i].who)))); err != nil {
				return err
			}
			each := (r.first + float64(n-1)*r.others) / float64(n)
			if round == 0 {
				continue
			}
			for at, t := range []times{r.whole, {wall: each, cpu: r.cpu}} {
				wall[at][i], cpu[at][i] = append(wall[at][i], t.wall), append(cpu[at][i], t.cpu)
			}
		}
	}
	for at, name := range names {
		if err := b.put("tree", name, sides, wall[at][:]); err != nil {
			return err
		}
		if err := b.put("tree", name+", CPU time", sides, cpu[at][:]); err != nil {
			return err
		}
	}
	return nil
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
