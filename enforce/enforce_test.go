//go:build linux

package enforce

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/programs"
)

// testGate allows everything but what deny says, and remembers.
type testGate struct {
	deny func(exeq.Activity) bool
	mu   sync.Mutex
	asks []exeq.Activity
	seen []exeq.Activity
}

func (g *testGate) Ask(_ context.Context, a exeq.Activity) exeq.Ruling {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asks = append(g.asks, a)
	if g.deny != nil && g.deny(a) {
		return exeq.Ruling{Message: a.Action + " " + a.Resource.ID + " denied by the test"}
	}
	return exeq.Ruling{Allow: true, Cacheable: true}
}

// Explain implements exeq.Gate.
func (g *testGate) Explain(_ context.Context, a exeq.Activity) string {
	return a.Action + " " + a.Resource.ID + " denied: by the test"
}

func (g *testGate) Seen(a exeq.Activity, _ bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, a)
}

func (g *testGate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asks = nil
}

func (g *testGate) asked(action, suffix string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, a := range g.asks {
		if a.Action == action && strings.HasSuffix(a.Resource.ID, suffix) {
			n++
		}
	}
	return n
}

// box is one execution under test.
type box struct {
	t         *testing.T
	dir       string // workspace
	rights    *exeq.Rights
	gate      *testGate
	env       []string
	stdin     *os.File
	out, msgs bytes.Buffer
	lease     time.Duration
	egress    bool
	warden    Warden // nil: none
	setup     func(*exeq.Launch)
	outFile   *os.File
	running   exeq.Running
	enforcer  *Enforcer
	copied    chan struct{}
}

func access(s string) exeq.Access {
	a := exeq.Access{Read: strings.Contains(s, "r"), Write: strings.Contains(s, "w")}
	switch {
	case strings.Contains(s, "X"):
		a.Exec = exeq.ExecAll
	case strings.Contains(s, "x"):
		a.Exec = exeq.ExecAsk
	}
	return a
}

// rightsOf makes rights of "PATH=rwx" pairs; X is ExecAll.
func rightsOf(cells ...string) *exeq.Rights {
	r := &exeq.Rights{Version: 1, Cells: []exeq.Cell{}}
	for _, c := range cells {
		p, a, _ := strings.Cut(c, "=")
		r.Cells = append(r.Cells, exeq.Cell{Path: p, At: access(a), Under: access(a)})
	}
	slices.SortFunc(r.Cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
	return r
}

// newBox gives a workspace that may be written and whose programs are asked
// about, the system's read-only and executable.
func newBox(t *testing.T) *box {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // another uid may run inside
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	work := filepath.Join(dir, "work")
	for _, d := range []string{work, filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &box{
		t: t, dir: work, gate: &testGate{}, lease: 10 * time.Minute,
		env:    []string{"PATH=/usr/local/go/bin:/usr/bin:/bin", "HOME=" + work, "TMPDIR=" + filepath.Join(dir, "tmp")},
		rights: rightsOf("/=r", "/usr=rX", "/dev=rw", work+"=rwx", filepath.Join(dir, "tmp")+"=rwx"),
	}
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) write(name, content string, mode os.FileMode) string {
	b.t.Helper()
	p := b.path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *box) copy(from, name string) string {
	b.t.Helper()
	c, err := os.ReadFile(from)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.write(name, string(c), 0o755)
}

// start launches argv.
func (b *box) start(argv ...string) (exeq.Running, error) {
	b.t.Helper()
	o := Options{Tier: testTier, Workspace: b.dir, Messages: &b.msgs, Warden: b.warden}
	if b.warden != nil {
		o.Tier = b.warden.Tier()
	}
	e, err := Prepare(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.enforcer = e
	c, err := programs.LookPath(argv[0], "/usr/local/go/bin:/usr/bin:/bin", b.dir, "")
	if err != nil {
		e.Close()
		b.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.copied = make(chan struct{})
	go func() {
		b.out.ReadFrom(r)
		r.Close()
		close(b.copied)
	}()
	stdin := b.stdin
	if stdin == nil {
		if stdin, err = os.Open("/dev/null"); err != nil {
			b.t.Fatal(err)
		}
		defer stdin.Close()
	}
	scratch := filepath.Join(filepath.Dir(b.dir), "state")
	l := &exeq.Launch{
		ID: "test", Rights: b.rights, Program: c.File, Argv: argv, Env: b.env, Dir: b.dir,
		Request: &exeq.Request{Resource: exeq.Resource{Type: "Program", ID: exeq.EncodeBytes(c.Path), SHA256: c.SHA256}},
		Stdin:   stdin, Stdout: w, Stderr: w, Lease: b.lease, Gate: b.gate,
		CheckRenewal: func(exeq.Renewal) error { return nil },
		Scratch:      scratch, Hidden: []string{scratch},
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if b.setup != nil {
		b.setup(l)
	}
	run, err := e.Launch(context.Background(), l)
	w.Close()
	c.File.Close()
	if err != nil {
		<-b.copied
		return nil, err
	}
	b.running = run
	b.t.Cleanup(func() { run.Kill("test over") })
	return run, nil
}

// run launches argv and gives its exit code and what it wrote.
func (b *box) run(argv ...string) (int, string) {
	b.t.Helper()
	b.out.Reset()
	r, err := b.start(argv...)
	if err != nil {
		b.t.Fatalf("%v: %v", argv, err)
	}
	exit, err := r.Wait()
	if err != nil {
		b.t.Fatal(err)
	}
	<-b.copied
	return exit.Code, b.out.String()
}

// want runs argv and compares.
func (b *box) want(code int, out string, argv ...string) {
	b.t.Helper()
	c, o := b.run(argv...)
	if c != code || o != out {
		b.t.Errorf("%q: exit %d, output %q; want %d, %q (messages %q)", argv, c, o, code, out, b.msgs.String())
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		code int
		out  string
		argv []string
	}{
		{0, "", []string{"true"}},
		{1, "", []string{"false"}},
		{0, "hello\n", []string{"echo", "hello"}},
		{0, "2\n", []string{"sh", "-c", "printf 'a\\nb\\n' | wc -l"}},
		{3, "", []string{"sh", "-c", "exit 3"}},
		{143, "", []string{"sh", "-c", "kill -TERM $$"}},
		{127, "sh: 1: nothing-like-it: not found\n", []string{"sh", "-c", "nothing-like-it"}},
		{0, "kept", []string{"sh", "-c", "printf kept > file; cat file"}},
	} {
		t.Run(strings.Join(c.argv, " "), func(t *testing.T) { newBox(t).want(c.code, c.out, c.argv...) })
	}
}

func TestGoBuildAndRun(t *testing.T) {
	b := newBox(t)
	b.write("go.mod", "module example.com/x\n\ngo 1.24\n", 0o644)
	b.write("main.go", "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"built inside\") }\n", 0o644)
	b.env = append(b.env, "GOCACHE="+b.path("cache"), "GOPATH="+b.path("go"), "GOFLAGS=-mod=mod")
	b.want(0, "built inside\n", "sh", "-c", "go build -o prog . && ./prog")
	if b.gate.asked(exeq.ActionExec, "/prog") != 1 {
		t.Errorf("the fresh program was put to the gate %d times", b.gate.asked(exeq.ActionExec, "/prog"))
	}
}

var _ = unix.SIGTERM
