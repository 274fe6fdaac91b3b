//go:build linux

package equivalence

import (
	stdbytes "bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/test/house"
)

// build makes the commands, the probe and what it executes.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir, err := house.Build()
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, err)
	must(t, house.Command("go", "build", "-o", filepath.Join(dir, "probe"), "testdata/probe/main.go"))
	must(t, house.Command("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o", filepath.Join(dir, "prog"), "testdata/prog.c"))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ground is a real world: a tree in a workspace, and listeners outside.
type ground struct {
	*world
	dir, root string
	files     []string // without links
	dirs      []string
	sum       map[string]string
}

// listen greets whoever comes, on loopback addresses of every kind.
func listen(t *testing.T) (ends []endpoint) {
	t.Helper()
	for _, at := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
		if err != nil && at == "::1" {
			t.Logf("no IPv6: %v", err)
			continue
		}
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("welcome\n"))
				c.Close()
			}
		}()
		ends = append(ends, endpoint{at, l.Addr().(*net.TCPAddr).Port})
	}
	return ends
}

func newGround(t *testing.T, h *house.House, built string, n uint64, ends []endpoint) *ground {
	t.Helper()
	g := &ground{world: &world{Rand: rand.New(rand.NewPCG(n, 2)), ends: ends}, sum: map[string]string{}}
	g.dir = h.Mkdir(fmt.Sprintf("g%d", n))
	g.root = filepath.Join(g.dir, "ws")
	g.workspace = g.root
	prog, err := os.ReadFile(filepath.Join(built, "prog"))
	must(t, err)
	put := func(p string, b []byte) {
		syscall.ForkLock.RLock() // no child inherits a program that is open for writing
		err := os.WriteFile(p, b, 0o755)
		syscall.ForkLock.RUnlock()
		must(t, err)
		must(t, os.Chown(p, h.UID, h.UID))
	}
	mkdir := func(p string) {
		must(t, os.Mkdir(p, 0o755))
		must(t, os.Chown(p, h.UID, h.UID))
	}
	for i, d := range []string{"", "a", "a/b", "a/b/c", "a-b", "a.b", "d", "d/e", "d/e/f"} {
		d := filepath.Join(g.root, d)
		mkdir(d)
		g.dirs = append(g.dirs, d)
		for _, f := range []string{"x", "xy"} {
			f := filepath.Join(d, f)
			b := append(append([]byte{}, prog...), byte((i+len(f))%3))
			put(f, b)
			sum := sha256.Sum256(b)
			g.sum[f] = hex.EncodeToString(sum[:])
			g.files = append(g.files, f)
			g.digests = append(g.digests, g.sum[f])
		}
	}
	g.paths = append(append([]string{}, g.files...), g.dirs...)
	// Links lead in from where no policy speaks of.
	links := filepath.Join(g.dir, "links")
	mkdir(links)
	for name, to := range map[string]string{"ax": "../ws/a/x", "d": "../ws/d", "far": g.root + "/a/b", "two": "far/c"} {
		must(t, os.Symlink(to, filepath.Join(links, name)))
	}
	mkdir(filepath.Join(g.dir, "bin"))
	probe, err := os.ReadFile(filepath.Join(built, "probe"))
	must(t, err)
	put(filepath.Join(g.dir, "bin", "probe"), probe)
	return g
}

// attempt is one line for the probe, and what it comes to.
type attempt struct {
	line string
	q    []question // all must be allowed
	also []question // without these it may be refused all the same
	not  bool       // whatever policy says
}

// attempts lists what the probe shall try, programs last: one that runs is busy.
func (g *ground) attempts(base question) (list []attempt) {
	ask := func(action, path string) question {
		q := base
		q.action, q.path, q.sha256 = action, path, g.sum[path]
		return q
	}
	for _, f := range g.files {
		for _, way := range g.ways(f) {
			verb := one(g.world, []string{"write", "append", "truncate"})
			q := []question{ask("write", f)}
			if verb == "append" {
				q = append(q, ask("read", f))
			}
			list = append(list, attempt{line: "read " + way, q: []question{ask("read", f)}}, attempt{line: verb + " " + way, q: q, also: g.covered(base.tier, ask("read", f))})
		}
	}
	for i, d := range g.dirs {
		p := fmt.Sprintf("%s/new%d", d, i)
		list = append(list, attempt{line: one(g.world, []string{"create ", "mkdir "}) + p, q: []question{ask("write", p)}, also: append(g.covered(base.tier, ask("read", p)), ask("write", d))})
	}
	for _, e := range g.ends {
		q := base
		q.action, q.host, q.port = "connect", e.host, e.port
		list = append(list, attempt{line: "connect " + e.String(), q: []question{q}}, attempt{line: "direct " + e.String(), not: true})
		if e.host == "127.0.0.1" {
			for _, other := range []string{"localhost", "127.1", "2130706433", "0x7f.1", "127.0.0.1.", "[::127.0.0.1]", "0.0.0.0"} {
				list = append(list, attempt{line: fmt.Sprintf("connect %s:%d", other, e.port), not: true})
			}
			none := q
			none.action = "" // may be refused in any case
			list = append(list, attempt{line: fmt.Sprintf("connect [::ffff:127.0.0.1]:%d", e.port), q: []question{q}, also: []question{none}})
		}
	}
	for _, f := range g.files {
		x, r := ask("exec", f), ask("read", f)
		// A file is mapped by who may read it; a program's copy is reached
		// through its directory.
		list = append(list, attempt{line: "map " + f, q: []question{x, r}})
		for _, way := range g.ways(f) {
			list = append(list, attempt{line: "exec " + way, q: []question{x}, also: []question{r, ask("read", filepath.Dir(f)+"/\x00")}})
		}
	}
	return list
}

// covered: where mounts hold it, what may not be read is covered whole, as the
// evidence says.
func (g *ground) covered(tier int, read question) []question {
	if tier < int(exeq.TierRootless) {
		return nil
	}
	return []question{read}
}

// ways are spellings of a file's path.
func (g *ground) ways(f string) []string {
	rel := strings.TrimPrefix(f, g.root+"/")
	links := filepath.Join(g.dir, "links")
	all := []string{f, "/proc/self/root" + f, links + "/../ws/" + rel, g.root + "/.//" + rel, rel}
	for dir, link := range map[string]string{"d/": "d/", "a/b/": "far/", "a/b/c/": "two/"} {
		if rest, ok := strings.CutPrefix(rel, dir); ok {
			all = append(all, links+"/"+link+rest)
		}
	}
	if rel == "a/x" {
		all = append(all, links+"/ax")
	}
	i := 1 + g.IntN(len(all)-1)
	return []string{all[0], all[i]}
}

// TestEnforced: what a tier lets happen under random policies is what the naive
// interpreter says, and nothing else.
func TestEnforced(t *testing.T) {
	n, built := seed(t), build(t)
	ends := listen(t)
	for _, tier := range house.Tiers {
		for user, uid := range house.Users() {
			t.Run(tier.String()+" "+user, func(t *testing.T) {
				h := house.New(t, built, uid, tier)
				tried, allowed, narrowed := 0, 0, 0
				for i := range uint64(house.Rounds(4)) {
					a, b, c := enforced(t, h, built, n+i, ends)
					tried, allowed, narrowed = tried+a, allowed+b, narrowed+c
					if t.Failed() {
						t.Fatalf("EXEQ_SEED=%d", n+i)
					}
				}
				if t.Logf("%d attempts, %d allowed, %d refused that a directory decides", tried, allowed, narrowed); allowed == 0 || allowed == tried {
					t.Error("it shows nothing")
				}
			})
		}
	}
}

// enforced runs the probe under one random policy.
func enforced(t *testing.T, h *house.House, built string, n uint64, ends []endpoint) (tried, allowed, narrowed int) {
	t.Helper()
	g := newGround(t, h, built, n, ends)
	defer os.RemoveAll(g.dir)
	bin := filepath.Join(g.dir, "bin")
	p := policy{
		{permit: true, actions: []string{"run", "exec"}, scope: in(bin)},
		{permit: true, actions: []string{"read"}, scope: in(bin)},
		{permit: true, actions: []string{"read"}, scope: in("/proc")},
		// Much, of which the rest takes away.
		{permit: true, actions: []string{"read", "write"}, scope: in(one(g.world, g.dirs[:3]))},
		{permit: true, actions: []string{"exec"}, scope: in(one(g.world, g.dirs[:3]))},
		{permit: true, actions: []string{"connect"}, scope: one(g.world, ends)},
	}
	p = append(p, g.some(6)...)
	file := filepath.Join(g.dir, "p.cedar")
	must(t, os.WriteFile(file, []byte(p.cedar()), 0o644))
	base := question{agent: "dev", tier: int(h.Tier), workspace: g.root}
	list := g.attempts(base)
	var lines strings.Builder
	for _, a := range list {
		fmt.Fprintln(&lines, a.line)
	}
	must(t, os.WriteFile(filepath.Join(bin, "list"), []byte(lines.String()), 0o644))
	run := func() (out []byte, said stdbytes.Buffer, err error) {
		cmd := h.Exeq("run", "--agent", "dev", "--tier", h.Tier.String(), "--policy", file, "--", filepath.Join(bin, "probe"), filepath.Join(bin, "list"))
		cmd.Dir = g.root
		cmd.Stderr = &said
		out, err = cmd.Output()
		return out, said, err
	}
	out, said, err := run()
	for i := 0; i < 3 && house.Lapsed(said.Bytes()); i++ {
		out, said, err = run()
	}
	if strings.Contains(said.String(), "policy check") || strings.Contains(said.String(), "p.cedar:") && len(out) == 0 {
		return 0, 0, 0 // no policy: it contradicts itself, say
	}
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, said.Bytes(), p.cedar())
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		what, result, _ := strings.Cut(strings.TrimSpace(line), "\t")
		got[what] = result
	}
	all := func(list []question) bool {
		for _, q := range list {
			if !p.allows(q) || q.action == "connect" && !p.names(q) {
				return false
			}
		}
		return true
	}
	for _, a := range list {
		want, through := !a.not && all(a.q), got[a.line] == "ok"
		switch {
		case got[a.line] == "":
			t.Errorf("%s: nothing came of it", a.line)
		case through && !want:
			t.Errorf("%s: it could, and no policy allows it\n%s", a.line, p.cedar())
		case !through && want && all(a.also):
			t.Errorf("%s: %s, and policy allows it\n%s\n%s", a.line, got[a.line], p.cedar(), said.Bytes())
		case !through && want:
			narrowed++
		}
		if tried++; through {
			allowed++
		}
	}
	return tried, allowed, narrowed
}
