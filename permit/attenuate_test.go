package permit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// draw makes random rights over few names, so that two of them meet often.
func draw(r *rand.Rand) *exeq.Rights {
	some := func(n int) bool { return r.IntN(n) == 0 }
	access := func() exeq.Access {
		a := exeq.Access{Read: !some(3), Write: some(2), Exec: []exeq.ExecMode{exeq.ExecNo, exeq.ExecAsk, exeq.ExecAll}[r.IntN(3)]}
		for _, l := range []string{"fin", "pii", "src"} {
			if a.Read && some(3) {
				a.Labels = append(a.Labels, l)
			}
		}
		return a
	}
	paths := map[string]bool{"/": true}
	for range r.IntN(6) {
		paths[drawPath(r)] = true
	}
	out := &exeq.Rights{Version: 1, TierFloor: []exeq.Tier{exeq.TierNone, exeq.TierNested, exeq.TierRootless}[r.IntN(3)]}
	for p := range paths {
		out.Cells = append(out.Cells, exeq.Cell{Path: p, At: access(), Under: access()})
	}
	slices.SortFunc(out.Cells, func(a, b exeq.Cell) int { return strings.Compare(a.Path, b.Path) })
	for range r.IntN(4) {
		out.Endpoints = append(out.Endpoints, exeq.Endpoint{Host: pick(r, "*", ".com", ".a.com", "a.com", "b.a.com", ".b.a.com", "xa.com", "10.0.0.1"), Port: pick(r, 0, 80, 443)})
	}
	for range r.IntN(4) {
		out.Environment = append(out.Environment, pick(r, "*", "PATH", "LC_*", "LC_ALL", "L*", "HOME", "LC_A*"))
	}
	slices.Sort(out.Environment)
	out.Quotas = exeq.Quotas{
		Processes: r.IntN(3), Execs: r.IntN(3), Denials: r.IntN(3), WallSeconds: r.IntN(3),
		OutputBytes: int64(r.IntN(3)), MemoryBytes: int64(r.IntN(3)), FileBytes: int64(r.IntN(3)),
	}
	return out
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func drawPath(r *rand.Rand) string {
	p := ""
	for range r.IntN(4) {
		p += "/" + pick(r, "a", "b", "a.b", "ab", "é")
	}
	if p == "" {
		return "/"
	}
	return p
}

// both is what two accesses give together, the naive way.
func both(a, b exeq.Access) exeq.Access {
	out := exeq.Access{Read: a.Read && b.Read, Write: a.Write && b.Write}
	if a.Exec != exeq.ExecNo && b.Exec != exeq.ExecNo {
		out.Exec = exeq.ExecAsk
		if a.Exec == b.Exec {
			out.Exec = a.Exec
		}
	}
	if out.Read {
		for _, l := range []string{"fin", "pii", "src"} {
			if slices.Contains(a.Labels, l) || slices.Contains(b.Labels, l) {
				out.Labels = append(out.Labels, l)
			}
		}
	}
	return out
}

// checkMeet compares Attenuate with looking everything up in both.
func checkMeet(t *testing.T, r *rand.Rand, p, c *exeq.Rights) {
	t.Helper()
	got := Attenuate(p, c)
	if err := got.Validate(); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	for _, outer := range []*exeq.Rights{p, c} {
		if what, ok := got.Within(outer); !ok {
			t.Fatalf("wider at %s\nparent %+v\nchild  %+v\ngot    %+v", what, p, c, got)
		}
	}
	paths := []string{"/", "/\x00"}
	for _, cells := range [][]exeq.Cell{p.Cells, c.Cells, got.Cells} {
		for _, x := range cells {
			paths = append(paths, x.Path, strings.TrimSuffix(x.Path, "/")+"/a", x.Path+"b", strings.TrimSuffix(x.Path, "/")+"/b/é")
		}
	}
	for range 20 {
		paths = append(paths, drawPath(r))
	}
	for _, path := range paths {
		if g, w := got.Lookup(path), both(p.Lookup(path), c.Lookup(path)); fmt.Sprint(g) != fmt.Sprint(w) {
			t.Fatalf("%s: got %+v, want %+v\nparent %+v\nchild  %+v\ngot    %+v", path, g, w, p, c, got)
		}
	}
	for _, host := range []string{"a.com", "b.a.com", "c.b.a.com", "xa.com", "com", "x.com", "10.0.0.1", "other"} {
		for _, port := range []int{22, 80, 443} {
			if g, w := got.Reaches(host, port), p.Reaches(host, port) && c.Reaches(host, port); g != w {
				t.Fatalf("%s:%d: got %v\nparent %+v\nchild  %+v\ngot    %+v", host, port, g, p.Endpoints, c.Endpoints, got.Endpoints)
			}
		}
	}
	for _, name := range []string{"PATH", "HOME", "LC_ALL", "LC_A", "LC_B", "L", "LC", "X"} {
		env := []string{name + "=1"}
		if g, w := len(got.Scrub(env)), len(c.Scrub(p.Scrub(env))); g != w {
			t.Fatalf("%s: got %d\nparent %v\nchild  %v\ngot    %v", name, g, p.Environment, c.Environment, got.Environment)
		}
	}
	for _, q := range [][3]int64{
		{int64(p.Quotas.Processes), int64(c.Quotas.Processes), int64(got.Quotas.Processes)},
		{int64(p.Quotas.Execs), int64(c.Quotas.Execs), int64(got.Quotas.Execs)},
		{int64(p.Quotas.Denials), int64(c.Quotas.Denials), int64(got.Quotas.Denials)},
		{int64(p.Quotas.WallSeconds), int64(c.Quotas.WallSeconds), int64(got.Quotas.WallSeconds)},
		{p.Quotas.OutputBytes, c.Quotas.OutputBytes, got.Quotas.OutputBytes},
		{p.Quotas.MemoryBytes, c.Quotas.MemoryBytes, got.Quotas.MemoryBytes},
		{p.Quotas.FileBytes, c.Quotas.FileBytes, got.Quotas.FileBytes},
	} {
		for n := int64(1); n < 4; n++ { // n is within a quota q when q is 0 or n ≤ q
			in := func(q int64) bool { return q == 0 || n <= q }
			if in(q[2]) != (in(q[0]) && in(q[1])) {
				t.Fatalf("quotas %v: %d", q, n)
			}
		}
	}
	if got.TierFloor < p.TierFloor || got.TierFloor < c.TierFloor {
		t.Fatalf("tier floor %v of %v and %v", got.TierFloor, p.TierFloor, c.TierFloor)
	}
}

func TestAttenuate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		checkMeet(t, r, draw(r), draw(r))
	}
}

// TestAttenuateInvalid: what cannot be read gives nothing.
func TestAttenuateInvalid(t *testing.T) {
	ok := &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/", At: exeq.Access{Read: true}, Under: exeq.Access{Read: true}}}}
	for _, bad := range []*exeq.Rights{nil, {}, {Version: 2, Cells: ok.Cells}, {Version: 1, Cells: []exeq.Cell{{Path: "/a"}}}} {
		for _, got := range []*exeq.Rights{Attenuate(ok, bad), Attenuate(bad, ok)} {
			if got.Lookup("/a").Read || len(got.Endpoints) > 0 || got.Validate() != nil {
				t.Errorf("%+v gives %+v", bad, got)
			}
		}
	}
}

func FuzzAttenuate(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		checkMeet(t, r, draw(r), draw(r))
	})
}
