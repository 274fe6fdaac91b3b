package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// generator makes random policies that load, and requests that hit them.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 7))} }

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

// path gives a path of a small world, so that policies and requests meet.
func (g generator) path() string {
	p := g.pick("", "", "/home/u", "/home/u/app", "/tmp/exeq-1")
	for range g.IntN(4) {
		p += "/" + g.pick("a", "b", "c", "a-b")
	}
	if p == "" {
		return "/"
	}
	return p
}

func (g generator) rel() string {
	parts := make([]string, 1+g.IntN(2))
	for i := range parts {
		parts[i] = g.pick("a", "b", "c")
	}
	return g.pick(strings.Join(parts, "/"), ".")
}

// place gives a literal that a file can be in.
func (g generator) place() string {
	if g.IntN(3) == 0 {
		return fmt.Sprintf("Exeq::%s::%q", g.pick("Workspace", "Home", "Tmp"), g.rel())
	}
	return fmt.Sprintf("Exeq::Path::%q", g.path())
}

func (g generator) principal() string {
	return g.pick("principal", "principal", "principal", "principal is Exeq::Agent", "principal is Exeq::User",
		`principal == Exeq::Agent::"dev"`, `principal == Exeq::Agent::"ops"`, `principal in Exeq::Team::"eng"`,
		`principal in Exeq::Team::"all"`, `principal is Exeq::Agent in Exeq::Team::"eng"`, `principal in Exeq::Agent::"dev"`)
}

// rule gives one policy about an action ("" for a random one).
func (g generator) rule(id int, action string) string {
	if action == "" {
		action = g.pick("read", "write", "exec", "connect", "run", "call_tool")
	}
	effect := g.pick("permit", "permit", "permit", "forbid")
	scope := fmt.Sprintf("action == Exeq::Action::%q", action)
	if action == "read" && g.IntN(3) == 0 {
		scope = `action in [Exeq::Action::"read", Exeq::Action::"write"]`
	}
	var resource string
	var conds []string
	switch action {
	case "read", "write", "exec", "run":
		resource, conds = g.files(action)
	case "connect":
		resource = g.pick("resource", "resource is Exeq::Endpoint", `resource in Exeq::Domain::"example.com"`,
			`resource in Exeq::Domain::"com"`, `resource == Exeq::Endpoint::"api.example.com:443"`, `resource == Exeq::Endpoint::"127.0.0.1:80"`)
		conds = g.some("resource.port == 443", `resource.host == "api.example.com"`, "[80, 443].contains(resource.port)",
			`context.session.labels.contains("pii")`, "context.risk > 50", "resource has ip && resource.ip.isLoopback()", "context.tier >= 20",
			`resource in [Exeq::Domain::"example.com", Exeq::Domain::"org"]`, `resource.host == "a.org"`, `resource.port < 443 || resource.host == "com"`,
			`!(resource in Exeq::Domain::"org")`, "context.session.connects <= 2", `principal == Exeq::User::"ann"`)
	case "call_tool":
		resource = g.pick("resource", `resource in Exeq::ToolServer::"git"`, `resource == Exeq::Tool::"git/push"`)
		conds = g.some(`context.session.labels.contains("pii")`, `resource.name == "push"`, `resource.name == "pull"`, `resource.server != "db"`)
	}
	var notes []string
	notes = append(notes, fmt.Sprintf("@id(\"r%03d\")", id))
	if effect == "forbid" && g.IntN(3) == 0 {
		notes = append(notes, g.pick(`@resolve("step_up:owner")`, `@resolve("step_up:lead")`, `@resolve("defer:ticket")`))
	}
	if effect == "permit" && g.IntN(6) == 0 && !strings.Contains(scope, "write") {
		notes = append(notes, g.pick(`@label("pii")`, `@label("fin,pii")`))
	}
	if effect == "permit" && action == "run" && g.IntN(3) == 0 {
		notes = append(notes, g.pick(`@modify("no_network")`, `@modify("read_only,wall_seconds=10")`, `@modify("wall_seconds=20")`))
	}
	return fmt.Sprintf("%s\n%s (%s, %s, %s)%s;\n", strings.Join(notes, "\n"), effect, g.principal(), scope, resource, strings.Join(conds, ""))
}

func (g generator) files(action string) (resource string, conds []string) {
	t := "Path"
	if action == "exec" || action == "run" {
		t = "Program"
	}
	resource = g.pick("resource", "resource is Exeq::"+t, "resource in "+g.place(), "resource in "+g.place(),
		fmt.Sprintf("resource == Exeq::%s::%q", t, g.path()), fmt.Sprintf("resource is Exeq::%s in %s", t, g.place()))
	static := []string{
		"resource in context.workspace", "resource in [context.home, context.tmp]", "resource in " + g.place(),
		fmt.Sprintf("resource == Exeq::%s::%q", t, g.path()), "resource in " + g.place() + " || resource in " + g.place(),
		fmt.Sprintf("resource in [Exeq::Path::%q, Exeq::Path::%q]", g.path(), g.path()),
		"context.tier >= 20", `context.claimed has intent && context.claimed.intent == "test"`,
		fmt.Sprintf("context.workspace in Exeq::Path::%q", g.path()), "context.workspace == context.home",
		`principal in Exeq::Team::"eng"`, "resource in context.workspace && !(resource in " + g.place() + ")",
	}
	dynamic := []string{
		`context.session.labels.contains("pii")`, "context.risk > 50", `context.args.contains("-v")`, `resource.name == "a"`,
		fmt.Sprintf("resource.sha256 == %q", exeq.Digest{1}), `context.command like "make*"`, "context.session.execs < 3",
		`context.args.contains("-w")`, `context.args.contains("-v") && context.risk > 20`, `resource.name == "b"`, `["a", "c"].contains(resource.name)`,
		`resource.name like "a*" && context.args.contains("-v")`, `context.command == "other" || context.args.contains("-v")`,
	}
	if action == "read" || action == "write" {
		return resource, g.some(static...)
	}
	return resource, g.some(slices.Concat(static, static, dynamic)...)
}

func (g generator) some(list ...string) (out []string) {
	for range g.IntN(3) {
		c := g.pick(list...)
		if strings.Contains(c, "claimed") { // never in an unless of a forbid
			out = append(out, " when { "+c+" }")
			continue
		}
		out = append(out, fmt.Sprintf(" %s { %s }", g.pick("when", "when", "unless"), c))
	}
	return out
}

const testEntities = `[
 {"uid":{"type":"Exeq::Team","id":"all"},"parents":[]},
 {"uid":{"type":"Exeq::Team","id":"eng"},"parents":[{"type":"Exeq::Team","id":"all"}]},
 {"uid":{"type":"Exeq::Agent","id":"dev"},"parents":[{"type":"Exeq::Team","id":"eng"}]},
 {"uid":{"type":"Exeq::Agent","id":"ops"},"parents":[{"type":"Exeq::Team","id":"all"}]},
 {"uid":{"type":"Exeq::User","id":"ann"},"parents":[{"type":"Exeq::Team","id":"eng"}]},
 {"uid":{"type":"Exeq::User","id":"bob"},"parents":[]}]`

// labels sets what the conditions of other rules ask for.
const labels = `@id("labels") @label("pii,a") permit(principal is Exeq::User, action == Exeq::Action::"call_tool", resource == Exeq::Tool::"labels/set");
`

// set makes a set of about n random policies; what does not load (a
// contradiction, say) is made again.
func (g generator) set(t testing.TB, n int, actions ...string) *Set {
	t.Helper()
	var b strings.Builder
	d, err := decodeEntities(testEntities)
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString(labels)
	for i := 0; i < n; {
		action := ""
		if len(actions) > 0 {
			action = g.pick(actions...)
		}
		text := g.rule(i, action)
		rules, problems := parseRules("r.cedar", text)
		if len(problems) > 0 {
			t.Fatalf("%s\n%v", text, problems)
		}
		rules[0].actions = scopeActions(rules[0].policy.Action)
		if len(rules[0].validate()) > 0 || slices.ContainsFunc(rules[0].lint(d, map[string]bool{"pii": true}), Problem.refuses) {
			continue
		}
		b.WriteString(text)
		i++
	}
	return mustLoad(t, &Source{Version: 1, Files: map[string]string{"r.cedar": b.String(), EntitiesFile: testEntities}})
}

// request makes a random request.
func (g generator) request() *exeq.Request {
	action := g.pick("read", "write", "exec", "connect", "run", "call_tool", "map")
	var r *exeq.Request
	switch action {
	case "connect":
		r = testRequest(action, g.pick("api.example.com:443", "example.com:80", "a.org:443", "127.0.0.1:80", "[::1]:443", "com:443"))
	case "call_tool":
		r = testRequest(action, g.pick("git/push", "git/pull", "db/push"))
	default:
		r = testRequest(action, g.path())
	}
	r.Subject = exeq.Entity{Type: "Agent", ID: g.pick("dev", "ops")}
	if g.IntN(3) == 0 {
		r.Subject = exeq.Entity{Type: "User", ID: g.pick("ann", "bob")}
	}
	if g.IntN(2) == 0 {
		r.Argv = nil
		for range g.IntN(4) {
			r.Argv = append(r.Argv, g.pick("-v", "-w", "-v", "x"))
		}
	}
	if g.IntN(2) == 0 {
		r.Resource.SHA256[0]++
	}
	if g.IntN(3) == 0 {
		r.Context.Claimed = map[string]string{"intent": g.pick("test", "other"), "unknown": "x"}
	}
	if g.IntN(4) == 0 {
		r.Context.Workspace = g.pick("/home/u", "/", "/a/b")
	}
	return r
}

func (g generator) inputs() *exeq.Inputs {
	in := &exeq.Inputs{Tier: []exeq.Tier{10, 20, 30, 40}[g.IntN(4)], Risk: g.IntN(101)}
	in.Session.Execs = g.IntN(6)
	if g.IntN(2) == 0 {
		in.Session.Labels = []string{g.pick("pii", "fin")}
	}
	for _, a := range []string{"lead", "owner"} {
		if g.IntN(3) == 0 {
			in.Approved = append(in.Approved, a)
		}
	}
	if g.IntN(3) == 0 {
		in.Present = []string{"ticket"}
	}
	return in
}
