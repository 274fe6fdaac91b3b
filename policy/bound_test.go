package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// starting is a run that is certainly allowed, to compile rights for.
func (g generator) starting(t *testing.T, s *Set) (*exeq.Request, *exeq.Inputs, exeq.Decision) {
	t.Helper()
	r, in := testRequest(exeq.ActionRun, "/bin/sh"), g.inputs()
	r.Subject = exeq.Entity{Type: "Agent", ID: g.pick("dev", "ops")}
	if g.IntN(4) == 0 {
		r.Context.Workspace = g.pick("/home/u", "/", "/a/b")
	}
	return r, in, exeq.Decision{Verdict: exeq.Allow, PolicySet: s.digest}
}

// randomPaths gives paths at, around and between the cut points.
func (g generator) randomPaths(s *Set, c *exeq.Context, n int) []string {
	cuts, _ := s.cutPoints(c)
	var out []string
	for range n {
		p := g.path()
		if g.IntN(2) == 0 {
			p = cuts[g.IntN(len(cuts))]
		}
		switch g.IntN(4) {
		case 0:
			p = strings.TrimSuffix(p, "/") + "/" + g.pick("a", "z", "b/c", "%FF")
		case 1:
			p += g.pick("", "x") // a sibling that shares the spelling
		}
		if exeq.CheckPath(p) == nil {
			out = append(out, p)
		}
	}
	return out
}

// Rights equal naive evaluation: over every path, by the linear scan, and for
// programs over digests, arguments, sessions and risks.
func TestCompileEqualsNaive(t *testing.T) {
	sets := 60
	if testing.Short() {
		sets = 15
	}
	modes := map[exeq.ExecMode]int{}
	reads, writes, labelled := 0, 0, 0
	for seed := range sets {
		g := newGenerator(uint64(seed) + 5000)
		s := g.set(t, 1+g.IntN(14), "read", "write", "exec")
		r, in, d := g.starting(t, s)
		rights, err := s.Compile(context.Background(), r, in, d)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range g.randomPaths(s, &r.Context, 60) {
			got := rights.Lookup(p)
			fail := func(what string, want any) {
				t.Helper()
				t.Fatalf("seed %d: %s %s: rights %+v, naive %v (workspace %s, inputs %+v)\n%s", seed, what, p, got, want, r.Context.Workspace, in, s.source.Files["r.cedar"])
			}
			naive := func(action string, in *exeq.Inputs) exeq.Decision {
				q := *r
				q.Action, q.Resource = action, exeq.Resource{Type: "Path", ID: p}
				o := linear(t, s, &q, in)
				d, _ := o.verdict(in.Approved, in.Present)
				return d
			}
			if d := naive(exeq.ActionRead, in); got.Read != d.Verdict.Permits() || !slices.Equal(got.Labels, d.Labels) {
				fail("read", d)
			}
			if d := naive(exeq.ActionWrite, in); got.Write != d.Verdict.Permits() {
				fail("write", d)
			}
			modes[got.Exec]++
			if got.Read {
				reads++
			}
			if got.Write {
				writes++
			}
			if len(got.Labels) > 0 {
				labelled++
			}
			for range 12 {
				q, in2 := *r, g.inputs()
				in2.Tier = in.Tier
				q.Action, q.Resource = exeq.ActionExec, exeq.Resource{Type: "Program", ID: p, SHA256: exeq.Digest{byte(g.IntN(3))}}
				q.Argv = []string{p, g.pick("-v", "-w")}
				q.Context.Command = g.pick("make all", "other")
				o := linear(t, s, &q, in2)
				d, _ := o.verdict(in2.Approved, in2.Present)
				if got.Exec == exeq.ExecNo && d.Verdict.Permits() || got.Exec == exeq.ExecAll && (!d.Verdict.Permits() || len(d.Labels) > 0) {
					fail("exec", d)
				}
			}
		}
	}
	t.Log(modes, reads, writes, labelled)
	if !testing.Short() && (modes[exeq.ExecAll] < 5 || modes[exeq.ExecAsk] < 50 || modes[exeq.ExecNo] < 50 || reads < 100 || writes < 100 || labelled < 10) {
		t.Error("the random sets reach too little to test anything")
	}
}

// The connect bound is an upper bound: what is decided to be allowed lies in it.
func TestEndpointsBound(t *testing.T) {
	hosts := []string{"api.example.com", "example.com", "a.b.example.com", "notexample.com", "x.org", "127.0.0.1", "com"}
	inside, outside := 0, 0
	for seed := range 150 {
		g := newGenerator(uint64(seed) + 9000)
		s := g.set(t, 1+g.IntN(8), "connect")
		r, in, d := g.starting(t, s)
		rights, err := s.Compile(context.Background(), r, in, d)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			for _, port := range []string{"80", "443", "22"} {
				for range 4 {
					q, in2 := *r, g.inputs()
					in2.Tier = in.Tier
					q.Action, q.Resource = exeq.ActionConnect, exeq.Resource{Type: "Endpoint", ID: h + ":" + port}
					permits := decide(t, s, &q, in2).Verdict.Permits()
					reaches := rights.Reaches(h, map[string]int{"80": 80, "443": 443, "22": 22}[port])
					if permits && !reaches {
						t.Fatalf("seed %d: %s:%s is allowed and outside %v\n%s", seed, h, port, rights.Endpoints, s.source.Files["r.cedar"])
					}
					if reaches {
						inside++
					} else {
						outside++
					}
				}
			}
		}
	}
	if inside < 100 || outside < 100 {
		t.Errorf("inside %d, outside %d: too one-sided to test anything", inside, outside)
	}
}

func TestEndpointsExact(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []exeq.Endpoint
	}{
		{"none", `@id("r") permit(principal, action == Exeq::Action::"read", resource);`, nil},
		{"any", `@id("c") permit(principal, action == Exeq::Action::"connect", resource);`, []exeq.Endpoint{{Host: "*"}}},
		{"group", `@id("c") permit(principal, action in Exeq::Action::"activity", resource);`, []exeq.Endpoint{{Host: "*"}}},
		{"exact beside any", `@id("c") permit(principal, action == Exeq::Action::"connect", resource);
@id("d") permit(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"127.0.0.1:8080");`,
			[]exeq.Endpoint{{Host: "*"}, {Host: "127.0.0.1", Port: 8080}}},
		{"port", `@id("c") permit(principal, action == Exeq::Action::"connect", resource in Exeq::Domain::"example.com") when { resource.port == 443 };`,
			[]exeq.Endpoint{{Host: ".example.com", Port: 443}}},
		{"exact", `@id("c") permit(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"[::1]:8080");`, []exeq.Endpoint{{Host: "::1", Port: 8080}}},
		{"covered", `@id("c") permit(principal, action == Exeq::Action::"connect", resource) when { resource in [Exeq::Domain::"example.com", Exeq::Domain::"a.example.com"] };`,
			[]exeq.Endpoint{{Host: ".example.com"}}},
		{"taken away", `@id("c") permit(principal, action == Exeq::Action::"connect", resource); @id("f") forbid(principal, action == Exeq::Action::"connect", resource) when { context.tier < 30 };`, nil},
		{"not for this tier", `@id("c") permit(principal, action == Exeq::Action::"connect", resource) when { context.tier >= 30 };`, nil},
		{"after a label", `@id("c") permit(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"a.org:443"); @id("f") forbid(principal, action == Exeq::Action::"connect", resource) when { context.session.labels.contains("pii") }; ` + labels,
			[]exeq.Endpoint{{Host: "a.org", Port: 443}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mustLoad(t, cedarSource(c.text))
			r := testRequest(exeq.ActionRun, "/bin/sh")
			rights, err := s.Compile(context.Background(), r, testInputs(), exeq.Decision{Verdict: exeq.Allow, PolicySet: s.digest})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(rights.Endpoints, c.want) {
				t.Errorf("endpoints %v, want %v", rights.Endpoints, c.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	s := mustLoad(t, Starter())
	r := testRequest(exeq.ActionRun, "/bin/sh")
	if _, err := s.Compile(context.Background(), r, testInputs(), exeq.Decision{Verdict: exeq.Deny, PolicySet: s.digest}); !errors.Is(err, exeq.ErrDenied) {
		t.Errorf("rights for a denied run: %v", err)
	}
	if _, err := s.Compile(context.Background(), r, testInputs(), exeq.Decision{Verdict: exeq.Allow}); err == nil {
		t.Error("rights for a decision of another set")
	}
}

func TestObligationsNarrow(t *testing.T) {
	s := mustLoad(t, cedarSource(`
@id("run") @modify("no_network,read_only,wall_seconds=60,processes=8") permit(principal, action == Exeq::Action::"run", resource);
@id("all") permit(principal, action in Exeq::Action::"activity", resource);`))
	r := testRequest(exeq.ActionRun, "/bin/sh")
	d := decide(t, s, r, testInputs())
	if want := []string{"no_network", "processes=8", "read_only", "wall_seconds=60"}; d.Verdict != exeq.Modify || !slices.Equal(d.Obligations, want) {
		t.Fatalf("decision %+v, want modify with %v", d, want)
	}
	rights, err := s.Compile(context.Background(), r, testInputs(), d)
	if err != nil {
		t.Fatal(err)
	}
	a := rights.Lookup("/x")
	if a.Write || !a.Read || len(rights.Endpoints) != 0 || rights.Quotas.WallSeconds != 60 || rights.Quotas.Processes != 8 {
		t.Errorf("rights %+v do not carry the obligations", rights)
	}
	d.Obligations = []string{"paint_it_black"}
	if _, err := s.Compile(context.Background(), r, testInputs(), d); err == nil {
		t.Error("an unknown obligation was passed over")
	}
}

// A labelled read may depend on the session: the rights hold the path open with
// its label, whatever the session is now, and each use is decided.
func TestLabelledReadIsNotStatic(t *testing.T) {
	s := mustLoad(t, cedarSource(`
@id("pii") @label("pii") permit(principal, action == Exeq::Action::"read", resource in Exeq::Path::"/srv/pii") when { context.session.connects == 0 };
@id("srv") permit(principal, action == Exeq::Action::"read", resource in Exeq::Path::"/srv");
@id("never") forbid(principal, action == Exeq::Action::"read", resource in Exeq::Path::"/srv/pii/keys");`))
	in := testInputs()
	in.Session.Connects = 1
	rights, err := s.Compile(context.Background(), testRequest(exeq.ActionRun, "/bin/sh"), in, exeq.Decision{Verdict: exeq.Allow, PolicySet: s.digest})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]exeq.Access{
		"/srv/x":         {Read: true},
		"/srv/pii/a":     {Read: true, Labels: []string{"pii"}},
		"/srv/pii/keys/": {},
		"/etc/x":         {},
	} {
		if got := rights.Lookup(strings.TrimSuffix(p, "/")); !sameAccess(got, want) {
			t.Errorf("%s: %+v, want %+v", p, got, want)
		}
	}
	r := testRequest(exeq.ActionRead, "/srv/pii/a")
	if d := decide(t, s, r, in); d.Static || len(d.Labels) != 0 {
		t.Errorf("after a connection: %+v", d)
	}
	if d := decide(t, s, r, testInputs()); d.Static || !slices.Equal(d.Labels, []string{"pii"}) {
		t.Errorf("before: %+v", d)
	}
}

func TestCompileDirected(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       map[string]exeq.Access
	}{
		{"the directory alone is as above it, what is below is not", `
@id("a") permit(principal, action == Exeq::Action::"read", resource in Exeq::Path::"/a/b");
@id("b") forbid(principal, action == Exeq::Action::"read", resource == Exeq::Path::"/a/b");`,
			map[string]exeq.Access{"/a": {}, "/a/b": {}, "/a/b/c": {Read: true}}},
		{"one path alone", `@id("a") permit(principal, action == Exeq::Action::"read", resource == Exeq::Path::"/");`,
			map[string]exeq.Access{"/": {Read: true}, "/a": {}}},
		{"open below a mask below open", `
@id("a") permit(principal, action == Exeq::Action::"write", resource in Exeq::Path::"/a");
@id("b") forbid(principal, action == Exeq::Action::"write", resource) when { resource in Exeq::Path::"/a/b" } unless { resource in Exeq::Path::"/a/b/c" };`,
			map[string]exeq.Access{"/a": {Write: true}, "/a/b": {}, "/a/b/x": {}, "/a/b/c": {Write: true}, "/a/b/c/x": {Write: true}, "/a/bc": {Write: true}}},
		{"an unrelated permit that varies leaves all at all", `
@id("a") permit(principal, action in [Exeq::Action::"read", Exeq::Action::"exec"], resource in Exeq::Path::"/usr");
@id("b") permit(principal, action == Exeq::Action::"exec", resource) when { context.risk < 5 };
@id("c") forbid(principal, action == Exeq::Action::"exec", resource in Exeq::Path::"/usr/sbin") when { context.args.contains("-x") };
@id("d") forbid(principal, action == Exeq::Action::"exec", resource in Exeq::Path::"/usr/games");
@id("e") @resolve("step_up:o") forbid(principal, action == Exeq::Action::"exec", resource in Exeq::Path::"/usr/local");`,
			map[string]exeq.Access{"/usr/bin/x": {Read: true, Exec: exeq.ExecAll}, "/srv/x": {Exec: exeq.ExecAsk}, "/usr/sbin/x": {Read: true, Exec: exeq.ExecAsk},
				"/usr/games/x": {Read: true}, "/usr/local/x": {Read: true, Exec: exeq.ExecAsk}}},
		{"what may be written is looked at", `@id("a") permit(principal, action in [Exeq::Action::"read", Exeq::Action::"write", Exeq::Action::"exec"], resource);`,
			map[string]exeq.Access{"/x": {Read: true, Write: true, Exec: exeq.ExecAsk}}},
		{"a place in a place", `
@id("a") permit(principal, action == Exeq::Action::"read", resource in Exeq::Home::"app/src");
@id("b") forbid(principal, action == Exeq::Action::"read", resource in Exeq::Workspace::"src/secret");`,
			map[string]exeq.Access{"/home/u/app/src/x": {Read: true}, "/home/u/app/src/secret/x": {}, "/home/u/app/x": {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mustLoad(t, cedarSource(c.text))
			rights, err := s.Compile(context.Background(), testRequest(exeq.ActionRun, "/bin/sh"), testInputs(), exeq.Decision{Verdict: exeq.Allow, PolicySet: s.digest})
			if err != nil {
				t.Fatal(err)
			}
			for p, want := range c.want {
				if got := rights.Lookup(p); !sameAccess(got, want) {
					t.Errorf("%s: %+v, want %+v", p, got, want)
				}
			}
		})
	}
}
