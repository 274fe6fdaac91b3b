package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/exeq/exeq"
)

// quickConditions have a quick form; what they compare is not there for every
// action.
var quickConditions = []string{
	`true`, `false`, `context.args.contains("-v")`, `context.args.contains("")`, `context.args.contains("x")`,
	`context.session.labels.contains("pii")`, `context.session.labels.contains("")`,
	`resource.name == "a"`, `"push" == resource.name`, `resource.name != "b"`, `resource.server == "git"`, `resource.host == "api.example.com"`,
	`resource.host != "127.0.0.1"`, `resource.host == "::1"`, `resource.port == 443`, `443 == resource.port`, `resource.port < 443`, `443 < resource.port`,
	`resource.port <= 80`, `80 <= resource.port`, `resource.port > 80`, `80 > resource.port`, `resource.port >= 443`, `443 >= resource.port`,
	`[80, 443].contains(resource.port)`, `["a", "push"].contains(resource.name)`, `resource.port != -1`,
	fmt.Sprintf("resource.sha256 == %q", exeq.Digest{1}), fmt.Sprintf("resource.sha256 != %q", exeq.Digest{2}),
	`context.command == "make all"`, `context.command != ""`, `context.tier == 20`, `context.tier >= 30`, `30 > context.tier`, `context.risk <= 50`,
	`context.session.execs < 3`, `context.session.reads == 0`, `context.session.writes > 0`, `context.session.connects <= 0`,
	`context.session.denials != 1`, `context.session.processes >= 0`, `0 == context.session.bytesOut`,
	`context.claimed has intent`, `!(context.claimed has task)`,
	`principal == Exeq::Agent::"dev"`, `Exeq::User::"ann" == principal`, `principal != Exeq::User::"bob"`, `principal is Exeq::User`,
	`principal in Exeq::Team::"all"`, `principal in [Exeq::Team::"eng", Exeq::Agent::"ops"]`, `principal is Exeq::Agent in Exeq::Team::"eng"`,
	`principal in []`, `resource in []`,
	`resource in Exeq::Path::"/"`, `resource in Exeq::Path::"/a"`, `resource in Exeq::Path::"/home/u/app/a"`, `resource in Exeq::Path::"/a-b"`,
	`resource in Exeq::Path::""`, `resource in Exeq::Path::"/a/"`, `resource in Exeq::Path::"a"`, `resource in Exeq::Workspace::"/"`, `resource in Exeq::Workspace::""`,
	`resource == Exeq::Path::"/a/b"`, `resource == Exeq::Program::"/a"`, `resource in Exeq::Program::"/a"`, `resource == Exeq::Path::"/"`,
	`resource in Exeq::Workspace::"."`, `resource in Exeq::Workspace::"a"`, `resource in Exeq::Home::"app"`, `resource in Exeq::Home::"app/a"`, `resource in Exeq::Tmp::"a/b"`,
	`resource in context.workspace`, `resource in [context.home, context.tmp]`, `resource in [context.workspace, Exeq::Path::"/a"]`,
	`resource is Exeq::Path`, `resource is Exeq::Program in Exeq::Path::"/a"`, `resource is Exeq::Endpoint in Exeq::Domain::"com"`,
	`resource in Exeq::Domain::"example.com"`, `resource in Exeq::Domain::"com"`, `resource in Exeq::Domain::"ample.com"`, `resource in Exeq::Domain::"0.0.1"`,
	`resource in Exeq::Domain::"127.0.0.1"`, `resource in Exeq::Domain::""`, `resource == Exeq::Endpoint::"com:443"`, `resource in Exeq::Endpoint::"com:443"`,
	`resource in Exeq::ToolServer::"git"`, `resource == Exeq::Tool::"git/push"`, `resource in Exeq::Tool::"git/push"`, `resource in Exeq::Team::"eng"`,
	`resource in Exeq::Path::"/a" || context.risk > 50`, `context.tier == 20 && resource.port == 443`, `resource.port == 443 && context.tier == 20`,
	`resource.port == 443 || context.tier == 20`, `context.tier == 20 || resource.port == 443`, `!(resource.name == "a" && context.risk > 9)`,
	`!(!(context.args.contains("-v")))`, `resource is Exeq::Endpoint && resource.port == 443`,
}

// notQuick are like them and left to Cedar.
var notQuick = []string{
	`context.tier == "20"`, `resource.port == "443"`, `resource.name == 1`, `context.args.contains(resource.name)`, `context.args == ["-v"]`,
	`context.args.containsAny(["-v"])`, `["-v"].containsAll(context.args)`, `[].contains(resource.port)`, `[resource.port].contains(resource.port)`,
	`context.session.labels.isEmpty()`, `resource.name like "a*"`, `context.claimed.intent == "test"`, `context.nothing == 1`, `context has args`,
	`resource has ip`, `resource.sha256 == "ABC"`, `resource.sha256 == "` + strings.Repeat("0", 64) + `"`, `resource == context.workspace`,
	`context.workspace in Exeq::Path::"/home"`, `principal in context.workspace`, `context.session.execs == context.session.reads`, `context.tier + 1 == 21`,
	`if true then context.tier == 20 else false`, `context.session.execs`, `resource`, `"a" == "a"`, `1 < 2`, `context.session["labels"] == []`,
	`resource.port == 443 && context.nothing == 1`, `context.tier.contains(20)`, `context.claimed has nothing`, `resource in context.claimed`,
}

// conditionOf parses a condition, without validation.
func conditionOf(text string) (ast.IsNode, *cedar.Policy) {
	rules, problems := parseRules("x.cedar", `@id("x") permit(principal, action, resource) when { `+text+` };`)
	if len(problems) > 0 || len(rules) != 1 || len(rules[0].policy.Conditions) != 1 {
		return nil, nil
	}
	return rules[0].policy.Conditions[0].Body, rules[0].full
}

// sameAsCedar holds a quick condition against a request both ways.
func sameAsCedar(t *testing.T, s *Set, text string, k *quick, p *cedar.Policy, r *exeq.Request, in *exeq.Inputs) (holds, known bool) {
	t.Helper()
	q, err := s.newQuery(r, in)
	if err != nil {
		t.Fatal(err)
	}
	holds, known = q.ask(k)
	req, entities := spellOut(t, s, r, in)
	_, diag := cedar.Authorize(one{p}, entities, req)
	if known && (len(diag.Errors) > 0 || holds != (len(diag.Reasons) > 0)) {
		t.Fatalf("%s: %s %s by %v: %v, Cedar %+v", text, r.Action, r.Resource.ID, r.Subject, holds, diag)
	}
	return holds, known
}

// TestQuickEqualsCedar: what is answered without Cedar is what Cedar answers,
// and an error is never answered.
func TestQuickEqualsCedar(t *testing.T) {
	g := newGenerator(11)
	s := g.set(t, 3)
	for _, text := range quickConditions {
		n, p := conditionOf(text)
		if n == nil {
			t.Fatalf("%s does not parse", text)
		}
		k := quickOf(n)
		if k == nil {
			t.Errorf("%s has no quick form", text)
			continue
		}
		told := 0
		for range 600 {
			if _, known := sameAsCedar(t, s, text, k, p, g.request(), g.inputs()); known {
				told++
			}
		}
		if told < 50 {
			t.Errorf("%s was told only %d times: that does not test it", text, told)
		}
	}
	for _, text := range notQuick {
		n, _ := conditionOf(text)
		if n == nil {
			t.Fatalf("%s does not parse", text)
		}
		if k := quickOf(n); k != nil {
			t.Errorf("%s has the quick form %+v", text, k)
		}
	}
}

// FuzzQuick does the same for whatever condition parses.
func FuzzQuick(f *testing.F) {
	for i, text := range append(slices.Clone(quickConditions), notQuick...) {
		f.Add(text, uint64(i))
	}
	s := newGenerator(11).set(f, 3)
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		if len(text) > 200 {
			return
		}
		n, p := conditionOf(text)
		if n == nil {
			return
		}
		k := quickOf(n)
		if k == nil {
			return
		}
		g := newGenerator(seed)
		for range 12 {
			sameAsCedar(t, s, text, k, p, g.request(), g.inputs())
		}
	})
}

// unchecked makes a set of rules that need not be valid, since valid ones
// cannot err.
func unchecked(t testing.TB, text string) *Set {
	t.Helper()
	rules, problems := parseRules("x.cedar", text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, r := range rules {
		r.actions = scopeActions(r.policy.Action)
	}
	slices.SortFunc(rules, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	d, err := decodeEntities(testEntities)
	if err != nil {
		t.Fatal(err)
	}
	s := &Set{source: &Source{}, settings: &Settings{floor: exeq.TierNested}, directory: d, rules: rules, index: buildIndex(rules)}
	for _, p := range d.known {
		p.groups = s.index.groupsOf(nil, p.ancestors)
	}
	return s
}

// A condition that errs is never passed over: not because another is false, not
// because the index does not find its literal, not because it is no condition
// for this action. Such sets were decided otherwise than by a scan while
// the index took a place from behind a condition that only Cedar knows.
func TestErrorsAreNotSkipped(t *testing.T) {
	const errs = `context.nothing == 1`
	conditions := []string{
		errs, errs + ` && context.args.contains("-v")`, `context.args.contains("-v") && ` + errs, errs + ` && resource in Exeq::Path::"/a"`,
		`resource in Exeq::Path::"/a" && ` + errs, errs + ` && resource == Exeq::Path::"/a"`, errs + ` && resource.name == "a"`, `resource.name == "a" && ` + errs,
		errs + ` && resource.host == "a.org"`, `resource.host == "a.org" && ` + errs, `resource.port == 443`, `context.args.contains("-v")`, `resource.name == "a"`,
		`resource.host == "a.org"`, `resource.sha256 == "` + (exeq.Digest{1}).String() + `"`, `context.tier == 20 && resource.port == 443`, `resource.port == 443 && context.tier == 20`,
		`context.tier == 20 || ` + errs, errs + ` || context.tier == 20`, `context.tier && context.tier == 20`, `context.tier == 20 && context.tier`,
		`context.tier == 20 && ` + errs + ` && context.args.contains("-v") && resource in Exeq::Path::"/a"`, `resource.server == "git" && resource.name == "push"`,
	}
	for _, action := range []string{"action", `action == Exeq::Action::"exec"`, `action in [Exeq::Action::"read", Exeq::Action::"connect"]`} {
		for _, who := range []string{"principal", `principal in Exeq::Team::"eng"`} {
			for _, c := range conditions {
				for _, effect := range []string{"permit", "forbid"} {
					for _, word := range []string{"when", "unless"} {
						text := fmt.Sprintf("@id(\"all\") permit(principal, action, resource);\n@id(\"x\") %s(%s, %s, resource) %s { %s };", effect, who, action, word, c)
						s := unchecked(t, text)
						g := newGenerator(uint64(len(text)))
						for range 25 {
							r, in := g.request(), g.inputs()
							got, err := s.Decide(context.Background(), r, in)
							if err != nil {
								t.Fatal(err)
							}
							o := linear(t, s, r, in)
							if want, _ := o.verdict(in.Approved, in.Present); !sameDecision(got, want) {
								t.Fatalf("%s\n%s %s %v: %+v, by a scan %+v", text, r.Action, r.Resource.ID, r.Argv, got, want)
							}
						}
					}
				}
			}
		}
	}
}

// Rules that stand under a literal of their conditions: found by it, looked at
// by whoever wants all of them, and never a reason to call a decision static.
func TestKeyedRules(t *testing.T) {
	s := mustLoad(t, cedarSource(`
@id("run") permit(principal, action == Exeq::Action::"exec", resource);
@id("no-force") forbid(principal, action == Exeq::Action::"exec", resource) when { context.args.contains("--force") };
@id("no-hard") forbid(principal, action == Exeq::Action::"exec", resource) when { context.tier >= 10 } when { context.args.contains("--hard") && context.risk > 5 };
@id("no-curl") forbid(principal is Exeq::Agent, action == Exeq::Action::"exec", resource) when { resource.name == "curl" };
@id("reach") permit(principal, action == Exeq::Action::"connect", resource) when { resource.host == "a.org" };
@id("tool") permit(principal, action == Exeq::Action::"call_tool", resource) when { resource.name == "pull" };`))
	ask := func(action, id string, argv ...string) exeq.Decision {
		r := testRequest(action, id)
		r.Argv = argv
		in := testInputs()
		in.Risk = 9
		return decide(t, s, r, in)
	}
	for _, c := range []struct {
		d      exeq.Decision
		ids    string
		static bool
	}{
		{ask("exec", "/usr/bin/git", "git", "push"), "run", false},
		{ask("exec", "/usr/bin/git", "git", "push", "--force"), "no-force", false},
		{ask("exec", "/usr/bin/git", "git", "--force", "--force", "--hard"), "no-force,no-hard", false},
		{ask("exec", "/usr/bin/git", "--force"), "run", false}, // its own name is no argument
		{ask("exec", "/usr/bin/git"), "run", false},
		{ask("exec", "/usr/bin/curl", "curl", "--hard"), "no-curl,no-hard", false},
		{ask("exec", "/usr/bin/curl/x", "x"), "run", false},
		{ask("connect", "a.org:443"), "reach", true},
		{ask("connect", "b.a.org:443"), "", true},
		{ask("call_tool", "git/pull"), "tool", false},
		{ask("call_tool", "pull/git"), "", false},
	} {
		if got := strings.Join(c.d.Policies, ","); got != c.ids || c.d.Static != c.static {
			t.Errorf("%s: %q static %v, want %q static %v", c.d.Reason, got, c.d.Static, c.ids, c.static)
		}
	}
	r, in := testRequest("exec", "/usr/bin/git"), testInputs()
	e, err := s.Explain(context.Background(), r, in)
	if err != nil || len(e.Rules) != 4 || slices.ContainsFunc(e.Rules, func(r Rule) bool { return r.Error != "" || r.Satisfied != (r.ID == "run") }) {
		t.Errorf("%v: %+v, want the four rules about exec", err, e.Rules)
	}
	rights, err := s.Compile(context.Background(), r, in, decide(t, s, r, in))
	if err != nil || rights.Lookup("/usr/bin/curl").Exec == exeq.ExecAll {
		t.Errorf("rights that run whatever its name and arguments: %+v, %v", rights, err)
	}
}
