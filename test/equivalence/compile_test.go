package equivalence

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/exeq/exeq"
	compiler "github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/test/house"
)

// seed is another each time, or $EXEQ_SEED.
func seed(t *testing.T) uint64 {
	n, err := strconv.ParseUint(os.Getenv("EXEQ_SEED"), 10, 64)
	if err != nil {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("EXEQ_SEED=%d", n)
	return n
}

// paper is a world that exists nowhere.
func paper(n uint64) *world {
	w := &world{Rand: rand.New(rand.NewPCG(n, 1)), workspace: "/w/ws"}
	for _, h := range []string{"127.0.0.1", "::1", "192.0.2.7", "example.org", "a.b.example.org", "ample.org"} {
		w.ends = append(w.ends, endpoint{h, 80}, endpoint{h, 443})
	}
	w.paths = []string{"/", "/w", "/w/ws", "/w/ws/a", "/w/ws/a/x", "/w/ws/a/b", "/w/ws/a/b/c", "/w/ws/a-b", "/w/ws/a.b", "/w/ws/d", "/w/ws/d/e", "/w/wsx", "/w/%FF", "/w/ws/a/b/c/x"}
	for i := range 3 {
		w.digests = append(w.digests, hex.EncodeToString(append(make([]byte, 31), byte(i+1))))
	}
	return w
}

// asked gives paths that a policy names, and such that it does not.
func (w *world) asked() string {
	p := one(w, w.paths)
	if p == "/" {
		p = one(w, []string{"", "/v"})
	}
	if p == "" {
		return "/"
	}
	switch w.IntN(4) {
	case 0:
		p += one(w, []string{"/x", "/new/er", "x", "-", ".", "/%01", "/ "})
	case 1:
		p += "/" + strconv.Itoa(w.IntN(100))
	}
	return p
}

// compare holds one random policy against what it compiles to; false if it is
// none that loads.
func compare(t *testing.T, w *world) (asked, allowed int, ok bool) {
	t.Helper()
	p := append(policy{{permit: true, actions: []string{"run"}}}, w.some(8)...)
	set, err := compiler.Load(&compiler.Source{Version: 1, Files: map[string]string{"p.cedar": p.cedar()}})
	if err != nil {
		return 0, 0, false // it contradicts itself, say
	}
	ctx := context.Background()
	in := &exeq.Inputs{Tier: one(w, []exeq.Tier{10, 20, 30, 40})}
	r := exeq.Request{Subject: exeq.Entity{Type: "Agent", ID: "dev"}, Action: exeq.ActionRun, Resource: exeq.Resource{Type: "Program", ID: "/bin/true", SHA256: exeq.Digest{9}},
		Argv: []string{"true"}, Context: exeq.Context{Workspace: w.workspace, Home: "/home/u", Tmp: "/tmp/exeq-1", Command: "true"}}
	d, err := set.Decide(ctx, &r, in)
	if err != nil {
		t.Fatal(err)
	}
	rights, err := set.Compile(ctx, &r, in, d)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.cedar())
	}
	decided := func(q question, res exeq.Resource) bool {
		r := r
		r.Action, r.Resource, r.Argv = q.action, res, nil
		if q.action == "exec" {
			r.Argv = []string{"x"}
		}
		d, err := set.Decide(ctx, &r, in)
		if err != nil {
			t.Fatal(err)
		}
		want := p.allows(q)
		if asked++; want {
			allowed++
		}
		if d.Verdict.Permits() != want {
			t.Errorf("%+v: decided %s, naive %v\n%s", q, d.Verdict, want, p.cedar())
		}
		return want
	}
	base := question{agent: "dev", tier: int(in.Tier), workspace: w.workspace}
	for range 40 {
		q := base
		q.path = w.asked()
		a := rights.Lookup(q.path)
		for action, got := range map[string]bool{"read": a.Read, "write": a.Write} {
			q.action = action
			if want := decided(q, exeq.Resource{Type: "Path", ID: q.path}); got != want {
				t.Errorf("%+v: the rights say %v, naive %v\n%s", q, got, want, p.cedar())
			}
		}
		q.action = "exec"
		all, any := true, false
		for _, digest := range append(w.digests, hex.EncodeToString(make([]byte, 31))+"77") {
			q.sha256 = digest
			var sum exeq.Digest
			if err := sum.UnmarshalText([]byte(digest)); err != nil {
				t.Fatal(err)
			}
			yes := decided(q, exeq.Resource{Type: "Program", ID: q.path, SHA256: sum})
			all, any = all && yes, any || yes
		}
		if a.Exec == exeq.ExecAll && !all || a.Exec == exeq.ExecNo && any {
			t.Errorf("exec %s: the rights say %q, naive all %v, any %v\n%s", q.path, a.Exec, all, any, p.cedar())
		}
	}
	for _, e := range append(w.ends, endpoint{"org", 80}, endpoint{"b.example.org", 443}, endpoint{"example.org.evil.net", 443}, endpoint{"127.0.0.2", 80}, endpoint{"::1", 81}) {
		q := base
		q.action, q.host, q.port = "connect", e.host, e.port
		if decided(q, exeq.Resource{Type: "Endpoint", ID: e.String()}) && !rights.Reaches(e.host, e.port) {
			t.Errorf("%+v: allowed, and beyond the rights\n%s", q, p.cedar())
		}
	}
	return asked, allowed, true
}

// TestCompiled: decisions and rights of random policies are what the naive
// interpreter says.
func TestCompiled(t *testing.T) {
	n := seed(t)
	asked, allowed, sets := 0, 0, 0
	for i := range uint64(house.Rounds(800)) {
		a, b, ok := compare(t, paper(n+i))
		if asked, allowed = asked+a, allowed+b; ok {
			sets++
		}
		if t.Failed() {
			t.Fatalf("EXEQ_SEED=%d", n+i)
		}
	}
	if t.Logf("%d sets, %d questions, %d allowed", sets, asked, allowed); sets < house.Rounds(800)/4 || allowed == 0 || allowed == asked {
		t.Error("it shows nothing")
	}
}

func FuzzCompiled(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, n uint64) { compare(t, paper(n)) })
}
