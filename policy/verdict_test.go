package policy

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// rank orders verdicts by how much they allow.
func rank(v exeq.Verdict) int {
	switch v {
	case exeq.Allow, exeq.Modify:
		return 2
	case exeq.StepUp, exeq.Defer:
		return 1
	}
	return 0
}

func (g generator) outcome() (o outcome) {
	for i := range g.IntN(4) {
		o.forbids = append(o.forbids, &rule{id: "f" + string(rune('0'+i)), resolve: g.pick("", "step_up:owner", "step_up:lead", "defer:ticket", "defer:scan")})
	}
	for i := range g.IntN(4) {
		r := &rule{id: "p" + string(rune('0'+i)), permit: true}
		if g.IntN(3) == 0 {
			r.labels = []string{g.pick("fin", "pii")}
		}
		if g.IntN(3) == 0 {
			r.obligations = []string{g.pick("no_network", "wall_seconds=10", "wall_seconds=20", "dance")}
		}
		o.permits = append(o.permits, r)
	}
	if g.IntN(8) == 0 {
		o.errors = []*rule{{id: "e0"}}
	}
	return o
}

func (g generator) subset(list ...string) (out []string) {
	for _, s := range list {
		if g.IntN(2) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// The verdict is monotone: an approval or a supplied context never lowers it,
// one forbid more never raises it, an error denies, and nothing is permitted
// without a permit.
func TestVerdictIsMonotone(t *testing.T) {
	g := newGenerator(1)
	for range 20000 {
		o := g.outcome()
		approved, present := g.subset("owner", "lead"), g.subset("ticket", "scan")
		d, _ := o.verdict(approved, present)
		if len(o.errors) > 0 && d.Verdict != exeq.Deny {
			t.Fatalf("an error gave %s", d.Verdict)
		}
		if len(o.permits) == 0 && d.Verdict != exeq.Deny {
			t.Fatalf("no permit gave %s", d.Verdict)
		}
		if d.Verdict.Permits() && slices.ContainsFunc(o.forbids, func(r *rule) bool { return !r.lifted(approved, present) }) {
			t.Fatalf("permitted over a forbid: %+v", o.forbids)
		}
		if (d.Verdict == exeq.StepUp || d.Verdict == exeq.Defer) != (len(d.Needs) > 0) {
			t.Fatalf("%s needs %v", d.Verdict, d.Needs)
		}
		if (d.Verdict == exeq.Modify) != (len(d.Obligations) > 0) {
			t.Fatalf("%s with obligations %v", d.Verdict, d.Obligations)
		}
		for _, list := range [][]string{d.Policies, d.Needs, d.Labels, d.Obligations} {
			if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
				t.Fatalf("%v is not sorted and distinct", list)
			}
		}
		more, _ := o.verdict(append(slices.Clone(approved), g.pick("owner", "lead", "x")), append(slices.Clone(present), g.pick("ticket", "scan", "x")))
		if rank(more.Verdict) < rank(d.Verdict) {
			t.Fatalf("an approval lowered %s to %s", d.Verdict, more.Verdict)
		}
		worse := o
		worse.forbids = append(slices.Clone(o.forbids), &rule{id: "f9", resolve: g.pick("", "step_up:owner", "defer:scan")})
		if w, _ := worse.verdict(approved, present); rank(w.Verdict) > rank(d.Verdict) {
			t.Fatalf("a forbid raised %s to %s", d.Verdict, w.Verdict)
		}
		// Supplying exactly what is needed permits.
		if d.Verdict == exeq.StepUp || d.Verdict == exeq.Defer {
			for _, n := range d.Needs {
				kind, what, _ := strings.Cut(n, ":")
				if kind == "step_up" {
					approved = append(approved, what)
				} else {
					present = append(present, what)
				}
			}
			if d, _ := o.verdict(approved, present); !d.Verdict.Permits() {
				t.Fatalf("supplied with %v it is still %s", d.Needs, d.Verdict)
			}
		}
	}
}

func TestVerdicts(t *testing.T) {
	const set = `
@id("base") permit(principal, action == Exeq::Action::"connect", resource);
@id("label") @label("net,fin") permit(principal, action == Exeq::Action::"connect", resource in Exeq::Domain::"bank.example");
@id("no-exfil") forbid(principal, action == Exeq::Action::"connect", resource) when { context.session.labels.contains("pii") };
@id("ask") @resolve("step_up:owner") forbid(principal, action == Exeq::Action::"connect", resource in Exeq::Domain::"risky.example");
@id("wait") @resolve("defer:ticket") forbid(principal, action == Exeq::Action::"connect", resource in Exeq::Domain::"prod.risky.example");
@id("run-slow") @modify("wall_seconds=10") permit(principal, action == Exeq::Action::"run", resource);
@id("run-slower") @modify("wall_seconds=20") permit(principal, action == Exeq::Action::"run", resource in Exeq::Path::"/opt");
`
	s := mustLoad(t, cedarSource(set+labels))
	pii := func(in *exeq.Inputs) { in.Session.Labels = []string{"pii"} }
	approve := func(in *exeq.Inputs) { in.Approved = []string{"owner"} }
	for _, c := range []struct {
		action, resource string
		change           func(*exeq.Inputs)
		want             exeq.Decision
		static           bool
	}{
		{"connect", "a.org:443", nil, exeq.Decision{Verdict: exeq.Allow, Policies: []string{"base"}}, false},
		{"connect", "x.bank.example:443", nil, exeq.Decision{Verdict: exeq.Allow, Policies: []string{"base", "label"}, Labels: []string{"fin", "net"}}, false},
		{"connect", "a.org:443", pii, exeq.Decision{Verdict: exeq.Deny, Policies: []string{"no-exfil"}}, false},
		{"connect", "risky.example:443", nil, exeq.Decision{Verdict: exeq.StepUp, Policies: []string{"ask"}, Needs: []string{"step_up:owner"}}, false},
		{"connect", "risky.example:443", approve, exeq.Decision{Verdict: exeq.Allow, Policies: []string{"base"}}, false},
		{"connect", "prod.risky.example:443", nil, exeq.Decision{Verdict: exeq.Defer, Policies: []string{"ask", "wait"}, Needs: []string{"defer:ticket", "step_up:owner"}}, false},
		{"connect", "prod.risky.example:443", approve, exeq.Decision{Verdict: exeq.Defer, Policies: []string{"wait"}, Needs: []string{"defer:ticket"}}, false},
		{"connect", "risky.example:443", pii, exeq.Decision{Verdict: exeq.Deny, Policies: []string{"no-exfil"}}, false},
		{"run", "/bin/x", nil, exeq.Decision{Verdict: exeq.Modify, Policies: []string{"run-slow"}, Obligations: []string{"wall_seconds=10"}}, true},
		{"run", "/opt/x", nil, exeq.Decision{Verdict: exeq.Deny, Policies: []string{"run-slow", "run-slower"}}, true},
		{"exec", "/opt/x", nil, exeq.Decision{Verdict: exeq.Deny, Policies: []string{}}, true},
	} {
		in := testInputs()
		if c.change != nil {
			c.change(in)
		}
		d := decide(t, s, testRequest(c.action, c.resource), in)
		if !sameDecision(d, c.want) || d.Static != c.static || d.PolicySet != s.PolicySet() || d.Reason == "" {
			t.Errorf("%s %s: %+v, want %+v static %v", c.action, c.resource, d, c.want, c.static)
		}
	}
}

// What the set does not know exactly is refused before any rule is looked at.
func TestUnknownIsDenied(t *testing.T) {
	s := mustLoad(t, &Source{Version: 1, Files: map[string]string{
		"a.cedar":    `@id("all") permit(principal, action, resource);`,
		EntitiesFile: testEntities,
	}})
	ok := testRequest(exeq.ActionRead, "/x")
	if d := decide(t, s, ok, testInputs()); d.Verdict != exeq.Allow {
		t.Fatalf("the control is %s: %s", d.Verdict, d.Reason)
	}
	for name, change := range map[string]func(*exeq.Request, *exeq.Inputs){
		"agent":           func(r *exeq.Request, _ *exeq.Inputs) { r.Subject.ID = "stranger" },
		"subject type":    func(r *exeq.Request, _ *exeq.Inputs) { r.Subject.Type = "Team" },
		"delegator":       func(r *exeq.Request, _ *exeq.Inputs) { r.OnBehalfOf = []exeq.Entity{{Type: "User", ID: "stranger"}} },
		"action":          func(r *exeq.Request, _ *exeq.Inputs) { r.Action = "levitate" },
		"group as action": func(r *exeq.Request, _ *exeq.Inputs) { r.Action = "activity" },
		"resource type":   func(r *exeq.Request, _ *exeq.Inputs) { r.Resource = exeq.Resource{Type: "Endpoint", ID: "a.org:1"} },
		"tier":            func(_ *exeq.Request, in *exeq.Inputs) { in.Tier = 0 },
		"risk":            func(_ *exeq.Request, in *exeq.Inputs) { in.Risk = 101 },
	} {
		r, in := testRequest(exeq.ActionRead, "/x"), testInputs()
		change(r, in)
		if d := decide(t, s, r, in); d.Verdict != exeq.Deny || d.Reason == "" {
			t.Errorf("%s: %s %q, want a denial with its reason", name, d.Verdict, d.Reason)
		}
	}
	for name, change := range map[string]func(*exeq.Request){
		"unclean path":      func(r *exeq.Request) { r.Resource.ID = "/x/../y" },
		"relative path":     func(r *exeq.Request) { r.Resource.ID = "x" },
		"spelling":          func(r *exeq.Request) { r.Resource.ID = "/%41" },
		"unclean workspace": func(r *exeq.Request) { r.Context.Workspace = "/w/" },
		"no subject":        func(r *exeq.Request) { r.Subject = exeq.Entity{} },
	} {
		r := testRequest(exeq.ActionRead, "/x")
		change(r)
		if d, err := s.Decide(context.Background(), r, testInputs()); err == nil || d.Verdict != exeq.Deny {
			t.Errorf("%s: %s, %v; want a denial and an error", name, d.Verdict, err)
		}
	}
	for _, id := range []string{"EXAMPLE.com:443", "example.com", "example.com:0443", "127.1:80", "0x7f.0.0.1:80", "2130706433:80", "example.com.:443",
		"[::ffff:127.0.0.1]:80", "[0:0:0:0:0:0:0:1]:80", "fe80::1%25eth0:80", "a b:1", ":80", "example.com:65536"} {
		if d := decide(t, s, testRequest(exeq.ActionConnect, id), testInputs()); d.Verdict != exeq.Deny {
			t.Errorf("endpoint %q was taken as known", id)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if d, err := s.Decide(ctx, ok, testInputs()); err == nil || d.Verdict != exeq.Deny {
		t.Errorf("cancelled: %s, %v", d.Verdict, err)
	}
	if d, _ := new(Set).Decide(context.Background(), ok, testInputs()); d.Verdict != exeq.Deny {
		t.Errorf("the zero set: %s", d.Verdict)
	}
	if d, err := s.Decide(context.Background(), nil, nil); err == nil || d.Verdict != exeq.Deny {
		t.Errorf("no request: %s, %v", d.Verdict, err)
	}
}

// map is decided as exec.
func TestMapIsExec(t *testing.T) {
	s := mustLoad(t, cedarSource(`@id("x") permit(principal, action == Exeq::Action::"exec", resource in Exeq::Path::"/usr/lib");`))
	if d := decide(t, s, testRequest(exeq.ActionMap, "/usr/lib/libc.so"), testInputs()); d.Verdict != exeq.Allow {
		t.Error(d.Reason)
	}
	if d := decide(t, s, testRequest(exeq.ActionMap, "/tmp/libc.so"), testInputs()); d.Verdict != exeq.Deny {
		t.Error(d.Reason)
	}
}

// An error in evaluation denies, whatever else permits; Cedar alone would skip
// a forbid that errs. Validated policies cannot err, so one is forced in.
func TestEvaluationErrorDenies(t *testing.T) {
	rules, ps := parseRules("x.cedar", `
@id("all") permit(principal, action, resource);
@id("broken") forbid(principal, action, resource) when { context.nothing == 1 };`)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	for _, r := range rules {
		r.actions = vocabulary().names
	}
	s := &Set{source: &Source{}, settings: &Settings{floor: exeq.TierNested}, directory: &directory{}, rules: rules, index: buildIndex(rules)}
	d := decide(t, s, testRequest(exeq.ActionRead, "/x"), testInputs())
	if d.Verdict != exeq.Deny || !slices.Equal(d.Policies, []string{"broken"}) || d.Static {
		t.Errorf("%+v, want a denial by the policy that erred", d)
	}
	r := testRequest(exeq.ActionRun, "/x")
	rights, err := s.Compile(context.Background(), r, testInputs(), exeq.Decision{Verdict: exeq.Allow})
	if err == nil && (rights.Lookup("/x").Read || rights.Lookup("/x").Exec == exeq.ExecAll) {
		t.Errorf("rights %+v from a set that errs", rights.Lookup("/x"))
	}
}

// The reason of a denial names the policy and holds a line that, added, allows.
func TestReasonHelps(t *testing.T) {
	s := mustLoad(t, Starter())
	for _, c := range []struct{ action, id, policy string }{
		{exeq.ActionRead, "/home/u/.ssh/id_rsa", "no-home-secrets"},
		{exeq.ActionWrite, "/home/u/app/.git/hooks/x", "no-later-code"},
		{exeq.ActionConnect, "registry.npmjs.org:443", ""},
		{exeq.ActionExec, "/home/u/Downloads/x", ""},
		{exeq.ActionRead, "/srv/we \"ird\\%0A", ""},
	} {
		r := testRequest(c.action, c.id)
		d := decide(t, s, r, testInputs())
		if d.Verdict != exeq.Deny || !strings.Contains(d.Reason, c.policy) {
			t.Errorf("%s %s: %s", c.action, c.id, d.Reason)
		}
		if c.policy != "" {
			continue
		}
		_, line, ok := strings.Cut(d.Reason, "add: ")
		if !ok {
			t.Errorf("%q has no line to add", d.Reason)
			continue
		}
		src := Starter()
		src.Files["more.cedar"] = line
		if again := decide(t, mustLoad(t, src), r, testInputs()); again.Verdict != exeq.Allow {
			t.Errorf("with %s it is still %s", line, again.Reason)
		}
	}
}

// An approval may be for this once, so what it lifted is not cached.
func TestApprovedIsNotStatic(t *testing.T) {
	s := mustLoad(t, cedarSource(`
@id("a") permit(principal, action == Exeq::Action::"exec", resource);
@id("b") @resolve("step_up:owner") forbid(principal, action == Exeq::Action::"exec", resource in Exeq::Path::"/opt");`))
	in := testInputs()
	in.Approved = []string{"owner"}
	for id, static := range map[string]bool{"/opt/x": false, "/usr/x": true} {
		if d := decide(t, s, testRequest(exeq.ActionExec, id), in); d.Verdict != exeq.Allow || d.Static != static {
			t.Errorf("%s: %+v, want static %v", id, d, static)
		}
	}
}

// A rule for several actions that names a path says nothing of a program at
// that path.
func TestEqualNamesOneType(t *testing.T) {
	src := cedarSource(`
@id("a") permit(principal, action in [Exeq::Action::"exec", Exeq::Action::"read"], resource);
@id("b") forbid(principal, action in [Exeq::Action::"exec", Exeq::Action::"read"], resource) when { resource == Exeq::Path::"/opt/x" };`)
	s := mustLoad(t, src)
	if d := decide(t, s, testRequest(exeq.ActionRead, "/opt/x"), testInputs()); d.Verdict != exeq.Deny {
		t.Error(d.Reason)
	}
	if d := decide(t, s, testRequest(exeq.ActionExec, "/opt/x"), testInputs()); d.Verdict != exeq.Allow {
		t.Error(d.Reason)
	}
}

// One forbid more never raises a decision of a whole set, an approval never
// lowers one, and a claim never takes a forbid away.
func TestSetIsMonotone(t *testing.T) {
	narrowed, lifted := 0, 0
	for seed := range 60 {
		g := newGenerator(uint64(seed) + 20000)
		s := g.set(t, 2+g.IntN(12))
		src := &Source{Version: 1, Files: map[string]string{"r.cedar": s.source.Files["r.cedar"], EntitiesFile: testEntities}}
		for i := 500; len(src.Files) == 2; i++ {
			text := g.rule(i, "")
			if !strings.Contains(text, "\nforbid") {
				continue
			}
			src.Files["more.cedar"] = text
			if slices.ContainsFunc(Check(src), Problem.refuses) { // a contradiction
				delete(src.Files, "more.cedar")
			}
		}
		more := mustLoad(t, src)
		for range 40 {
			r, in := g.request(), g.inputs()
			d := decide(t, s, r, in)
			if w := decide(t, more, r, in); rank(w.Verdict) > rank(d.Verdict) {
				t.Fatalf("seed %d: %s raised %s to %s\n%s", seed, src.Files["more.cedar"], d.Verdict, w.Verdict, src.Files["r.cedar"])
			} else if rank(w.Verdict) < rank(d.Verdict) {
				narrowed++
			}
			approved := *in
			approved.Approved, approved.Present = []string{"lead", "owner"}, []string{"ticket"}
			if a := decide(t, s, r, &approved); rank(a.Verdict) < rank(d.Verdict) {
				t.Fatalf("seed %d: approvals lowered %s to %s\n%s", seed, d.Verdict, a.Verdict, src.Files["r.cedar"])
			} else if rank(a.Verdict) > rank(d.Verdict) {
				lifted++
			}
			silent, claiming := *r, *r
			silent.Context.Claimed, claiming.Context.Claimed = nil, map[string]string{"intent": "test"}
			for _, f := range linear(t, more, &silent, in).forbids {
				if !slices.Contains(linear(t, more, &claiming, in).forbids, f) {
					t.Fatalf("seed %d: a claim lifted %s", seed, f.text)
				}
			}
		}
	}
	if narrowed < 5 || lifted < 5 {
		t.Errorf("narrowed %d, lifted %d: this tests nothing", narrowed, lifted)
	}
}
