package policy

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// linear evaluates every policy of the set as written, one after the other,
// over entities that are all spelled out with direct parents only: it shares
// nothing with the index, the stripped scopes or the lazy entities.
func linear(t testing.TB, s *Set, r *exeq.Request, in *exeq.Inputs) outcome {
	t.Helper()
	req, entities := spellOut(t, s, r, in)
	var o outcome
	for _, rule := range s.rules {
		_, diag := cedar.Authorize(one{rule.full}, entities, req)
		switch {
		case len(diag.Errors) > 0:
			o.errors = append(o.errors, rule)
		case len(diag.Reasons) == 0:
		case rule.permit:
			o.permits = append(o.permits, rule)
		default:
			o.forbids = append(o.forbids, rule)
		}
	}
	return o
}

// spellOut is the naive translation of a request to Cedar.
func spellOut(t testing.TB, s *Set, r *exeq.Request, in *exeq.Inputs) (cedar.Request, types.EntityMap) {
	t.Helper()
	uid := func(typ, id string) types.EntityUID {
		return types.NewEntityUID(types.EntityType("Exeq::"+typ), types.String(id))
	}
	m := types.EntityMap{}
	put := func(u types.EntityUID, attrs types.RecordMap, parents ...types.EntityUID) {
		if e, ok := m[u]; ok { // a path can be reached over several ways
			parents = append(parents, e.Parents.Slice()...)
		}
		m[u] = types.Entity{UID: u, Attributes: types.NewRecord(attrs), Parents: types.NewEntityUIDSet(parents...)}
	}
	for u, p := range s.directory.known {
		m[u] = p.entity
	}
	c := r.Context
	relatives := func(p string) (out []types.EntityUID) {
		for typ, dir := range map[string]string{"Workspace": c.Workspace, "Home": c.Home, "Tmp": c.Tmp} {
			if p == dir {
				out = append(out, uid(typ, "."))
			} else if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(dir, "/")+"/"); ok {
				u := uid(typ, rest)
				for at := u; ; {
					i := strings.LastIndex(string(at.ID), "/")
					if i < 0 {
						put(at, nil, uid(typ, "."))
						break
					}
					up := uid(typ, string(at.ID[:i]))
					put(at, nil, up)
					at = up
				}
				out = append(out, u)
			}
		}
		return out
	}
	addPath := func(p string) types.EntityUID {
		for at := p; ; {
			up := at[:strings.LastIndex(at, "/")]
			if up == "" {
				up = "/"
			}
			if at == "/" {
				put(uid("Path", at), nil, relatives(at)...)
				break
			}
			put(uid("Path", at), nil, append(relatives(at), uid("Path", up))...)
			at = up
		}
		return uid("Path", p)
	}
	req := cedar.Request{Principal: uid(r.Subject.Type, r.Subject.ID), Resource: uid(r.Resource.Type, r.Resource.ID)}
	name := r.Action
	if name == "map" {
		name = "exec"
	}
	req.Action = uid("Action", name)
	put(uid("Action", "activity"), nil)
	if name != "run" && name != "call_tool" {
		put(req.Action, nil, uid("Action", "activity"))
	}
	ctx := types.RecordMap{
		"tier": types.Long(in.Tier), "risk": types.Long(in.Risk), "claimed": claimed(c.Claimed), "session": sessionRecord(&in.Session, true),
		"workspace": addPath(c.Workspace), "home": addPath(c.Home), "tmp": addPath(c.Tmp), "command": types.String(c.Command),
	}
	switch r.Resource.Type {
	case "Path":
		addPath(r.Resource.ID)
	case "Program":
		ctx["args"] = argSet(r.Argv)
		id := r.Resource.ID
		put(req.Resource, types.RecordMap{"sha256": types.String(r.Resource.SHA256.String()), "name": types.String(id[strings.LastIndex(id, "/")+1:])},
			append(relatives(id), addPath(id))...)
	case "Endpoint":
		ap := strings.LastIndex(r.Resource.ID, ":")
		host := strings.Trim(r.Resource.ID[:ap], "[]")
		port := 0
		for _, d := range r.Resource.ID[ap+1:] {
			port = port*10 + int(d-'0')
		}
		attrs := types.RecordMap{"host": types.String(host), "port": types.Long(port)}
		if a, err := netip.ParseAddr(host); err == nil {
			attrs["ip"] = types.IPAddr(netip.PrefixFrom(a, a.BitLen()))
			put(req.Resource, attrs)
			break
		}
		put(req.Resource, attrs, uid("Domain", host))
		for {
			_, rest, ok := strings.Cut(host, ".")
			if !ok {
				break
			}
			put(uid("Domain", host), nil, uid("Domain", rest))
			host = rest
		}
	case "Tool":
		server, tool, _ := strings.Cut(r.Resource.ID, "/")
		put(req.Resource, types.RecordMap{"server": types.String(server), "name": types.String(tool)}, uid("ToolServer", server))
	}
	req.Context = types.NewRecord(ctx)
	return req, m
}

func TestIndexEqualsLinearScan(t *testing.T) {
	sets, requests := 60, 120
	if testing.Short() {
		sets = 20
	}
	var verdicts = map[exeq.Verdict]int{}
	for seed := range sets {
		g := newGenerator(uint64(seed))
		s := g.set(t, 1+g.IntN(40))
		for range requests {
			r, in := g.request(), g.inputs()
			got, err := s.Decide(context.Background(), r, in)
			if err != nil {
				t.Fatal(err)
			}
			o := linear(t, s, r, in)
			want, _ := o.verdict(in.Approved, in.Present)
			want.PolicySet = s.digest
			if !sameDecision(got, want) || got.PolicySet != want.PolicySet {
				t.Fatalf("seed %d: %s %s by %v\n got %+v\nwant %+v\n%s", seed, r.Action, r.Resource.ID, r.Subject, got, want, s.source.Files["r.cedar"])
			}
			verdicts[got.Verdict]++
		}
	}
	for _, v := range []exeq.Verdict{exeq.Allow, exeq.Deny, exeq.Modify, exeq.StepUp, exeq.Defer} {
		if verdicts[v] < 5 {
			t.Errorf("the random sets reached %s only %d times: they do not test it", v, verdicts[v])
		}
	}
	t.Log(verdicts)
}

// A static decision is the same whatever may change while an execution lives.
func TestStaticDecisionsHold(t *testing.T) {
	static := 0
	for seed := range 60 {
		g := newGenerator(uint64(seed) + 1000)
		s := g.set(t, 1+g.IntN(12))
		for range 40 {
			r, in := g.request(), g.inputs()
			d := decide(t, s, r, in)
			if !d.Static {
				continue
			}
			static++
			for range 10 {
				r2, in2 := *r, g.inputs()
				in2.Tier = in.Tier
				if r.Resource.Type == "Program" {
					r2.Argv = []string{"x", g.pick("-v", "-w")}
					r2.Context.Command = g.pick("make all", "other")
				}
				if again := decide(t, s, &r2, in2); !sameDecision(d, again) {
					t.Fatalf("seed %d: %s %s was static\n %+v\n %+v\n%s", seed, r.Action, r.Resource.ID, d, again, s.source.Files["r.cedar"])
				}
			}
		}
	}
	if static < 200 {
		t.Errorf("only %d static decisions", static)
	}
}

func TestIndexKeepsOrder(t *testing.T) {
	g := newGenerator(5)
	s := g.set(t, 60)
	for i := range 200 {
		q, err := s.newQuery(g.request(), g.inputs())
		if err != nil {
			t.Fatal(err)
		}
		s.index.find(q, i%2 == 0)
		if !slices.IsSorted(q.found) || len(slices.Compact(slices.Clone(q.found))) != len(q.found) {
			t.Fatalf("candidates %v are not ascending and distinct", q.found)
		}
	}
}

// The workspace itself is asked for, by a condition about where it lies: the
// resource and the place are then one entity.
func TestPlaceIsResource(t *testing.T) {
	s := mustLoad(t, cedarSource(`@id("x") permit(principal, action == Exeq::Action::"read", resource) when { context.workspace in Exeq::Path::"/home" };
@id("y") permit(principal, action == Exeq::Action::"exec", resource) when { context.home in Exeq::Path::"/home" && resource.name == "app" };`))
	for _, r := range []*exeq.Request{testRequest("read", "/home/u/app"), testRequest("read", "/elsewhere"), testRequest("exec", "/home/u/app")} {
		if d := decide(t, s, r, testInputs()); d.Verdict != exeq.Allow {
			t.Errorf("%s %s: %s", r.Action, r.Resource.ID, d.Reason)
		}
		r.Context.Workspace, r.Context.Home = "/srv/app", "/srv"
		if d := decide(t, s, r, testInputs()); d.Verdict != exeq.Deny {
			t.Errorf("%s %s: %s", r.Action, r.Resource.ID, d.Reason)
		}
	}
}

// The caches compare everything that the records depend on.
func TestCachesKeepApart(t *testing.T) {
	for _, counts := range []string{"", " || context.session.execs > 3"} {
		testCaches(t, counts)
	}
	if n := reflect.TypeFor[exeq.Session]().NumField(); n != 8 {
		t.Errorf("a session has %d members: teach sessionRecord and the schema of the new ones, then this test", n)
	}
}

func testCaches(t *testing.T, counts string) {
	s := mustLoad(t, cedarSource(`@id("x") permit(principal, action == Exeq::Action::"connect", resource)
  when { context.session.labels.contains("a") || context.session.labels.isEmpty() && context.tier == 30`+counts+` || context.risk > 5 || context.tier == 40 };`))
	withCounts := exeq.Deny
	if counts != "" {
		withCounts = exeq.Allow
	}
	r, in := testRequest("connect", "a.org:1"), testInputs()
	for _, step := range []struct {
		change func()
		want   exeq.Verdict
	}{
		{func() {}, exeq.Deny},
		{func() { in.Session.Labels = []string{"a"} }, exeq.Allow},
		{func() { in.Session.Labels[0] = "b" }, exeq.Deny},
		{func() { in.Session.Execs = 4 }, withCounts},
		{func() { in.Session.Execs = 3 }, exeq.Deny},
		{func() { in.Risk = 6 }, exeq.Allow},
		{func() { in.Risk = 5 }, exeq.Deny},
		{func() { in.Tier = exeq.TierKernel }, exeq.Allow},
		{func() { in.Tier = exeq.TierNested }, exeq.Deny},
		{func() { in.Tier, in.Session.Labels = exeq.TierKernelLite, nil }, exeq.Allow},
		{func() { in.Session.Labels = []string{""} }, exeq.Deny},
		{func() { in.Session.Labels = []string{"b\x00a"} }, exeq.Deny},
		{func() { in.Session.Labels = []string{"b", "a"} }, exeq.Allow},
		{func() { in.Session.Labels = []string{"b\x00a"} }, exeq.Deny},
	} {
		step.change()
		if d := decide(t, s, r, in); d.Verdict != step.want {
			t.Errorf("%+v: %s, want %s", in, d.Verdict, step.want)
		}
	}
}

// One set decides for many at once, each as if alone.
func TestConcurrentDecide(t *testing.T) {
	g := newGenerator(77)
	s := g.set(t, 30)
	type asked struct {
		r    *exeq.Request
		in   *exeq.Inputs
		want exeq.Decision
	}
	var all []asked
	for range 200 {
		a := asked{r: g.request(), in: g.inputs()}
		a.want = decide(t, s, a.r, a.in)
		all = append(all, a)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range all {
				a := all[(i*7+w*31)%len(all)]
				d, err := s.Decide(context.Background(), a.r, a.in)
				if err != nil || !sameDecision(d, a.want) || d.Reason != a.want.Reason || d.Static != a.want.Static {
					t.Errorf("%s %s: %+v, alone %+v (%v)", a.r.Action, a.r.Resource.ID, d, a.want, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
