//go:build linux

package peers

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

// rule is a generated policy with what its annotations mean.
type rule struct {
	id, text, resolve string
	permit            bool
	labels, modify    []string
}

type generator struct {
	*rand.Rand
	actions []string // that the present set is about
}

func newGenerator(seed uint64) *generator { return &generator{rand.New(rand.NewPCG(seed, 1)), nil} }

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g *generator) path() string {
	return g.pick("", "/srv", "/home/ann", "/home/ann/app", "/tmp/x") + g.pick("/bin", "/data", "/data/secret", "/.ssh", "/app/.git/hooks")
}

func (g *generator) place() string {
	switch g.IntN(3) {
	case 0:
		return fmt.Sprintf("Exeq::%s::%q", g.pick("Workspace", "Home", "Tmp"), g.pick(".", ".ssh", "data", ".git/hooks"))
	default:
		return fmt.Sprintf("Exeq::Path::%q", g.pick("/", "/srv", "/home", "/home/ann", "/srv/data", "/bin", "/home/ann/app"))
	}
}

var directory = `[
 {"uid":{"type":"Exeq::Team","id":"all"},"parents":[]},
 {"uid":{"type":"Exeq::Team","id":"eng"},"parents":[{"type":"Exeq::Team","id":"all"}]},
 {"uid":{"type":"Exeq::Agent","id":"dev"},"parents":[{"type":"Exeq::Team","id":"eng"}]},
 {"uid":{"type":"Exeq::Agent","id":"ops"},"parents":[{"type":"Exeq::Team","id":"all"}]},
 {"uid":{"type":"Exeq::User","id":"ann"},"parents":[{"type":"Exeq::Team","id":"eng"}]}]`

var teams = map[string][]string{"Agent dev": {"eng", "all"}, "Agent ops": {"all"}, "User ann": {"eng", "all"}}

// set generates policies one by one, keeps those that load, and loads them.
func (g *generator) set(t *testing.T) ([]rule, *policy.Set) {
	t.Helper()
	g.actions = [][]string{{"read", "write"}, {"run", "exec"}, {"run"}, {"connect", "call_tool"}}[g.IntN(4)]
	// A rule may ask only for labels that some permit sets.
	base := rule{id: "labels", permit: true, labels: []string{"fin", "pii"}, text: "@id(\"labels\")\n@label(\"fin,pii\")\n" +
		"permit (principal == Exeq::Agent::\"ops\", action == Exeq::Action::\"call_tool\", resource == Exeq::Tool::\"labels/set\");\n"}
	rules := []rule{base}
	var text strings.Builder
	text.WriteString(base.text)
	source := func(s string) *policy.Source {
		return &policy.Source{Version: 1, Files: map[string]string{"g.cedar": s, policy.EntitiesFile: directory}}
	}
	for len(rules) < 9 {
		r := g.rule(len(rules) - 1)
		if _, err := policy.Load(source(base.text + r.text)); err != nil {
			continue
		}
		rules = append(rules, r)
		text.WriteString(r.text)
	}
	set, err := policy.Load(source(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return rules, set
}

func (g *generator) rule(n int) rule {
	r := rule{id: fmt.Sprintf("r%02d", n), permit: g.IntN(3) > 0}
	action := g.pick(g.actions...)
	principal := g.pick("principal", "principal", "principal is Exeq::Agent", `principal == Exeq::Agent::"dev"`, `principal in Exeq::Team::"eng"`, `principal in Exeq::Team::"all"`)
	resource, cond := "resource", []string{"true"}
	switch action {
	case "read", "write":
		resource = g.pick("resource", "resource in "+g.place(), fmt.Sprintf("resource == Exeq::Path::%q", g.path()))
		cond = []string{"", "resource in context.workspace", "resource in [context.home, context.tmp]", "resource in " + g.place(), "context.tier >= 20",
			`context.claimed has intent && context.claimed.intent == "test"`, "!(resource in " + g.place() + ")", `context.workspace in Exeq::Path::"/home"`}
	case "exec", "run":
		resource = g.pick("resource", "resource in "+g.place(), fmt.Sprintf("resource == Exeq::Program::%q", g.path()))
		cond = []string{"", `context.args.contains("-v")`, `context.args.containsAll(["-v", "x"])`, "context.risk > 50", "context.session.execs < 3",
			`resource.name == "bin"`, `context.command like "make*"`, fmt.Sprintf("resource.sha256 == %q", exeq.Digest{1}), `context.session.labels.contains("pii")`}
	case "connect":
		resource = g.pick("resource", `resource in Exeq::Domain::"example.com"`, `resource in Exeq::Domain::"com"`, `resource == Exeq::Endpoint::"127.0.0.1:80"`)
		cond = []string{"", "resource.port == 443", `resource has ip && resource.ip.isLoopback()`, `resource has ip && resource.ip.isInRange(ip("10.0.0.0/8"))`,
			`resource.host == "api.example.com"`, `context.session.labels.containsAny(["pii", "fin"])`, "context.risk >= 90"}
	case "call_tool":
		resource = g.pick("resource", `resource in Exeq::ToolServer::"git"`, `resource == Exeq::Tool::"git/push"`)
		cond = []string{"", `resource.name == "push"`, `resource.server == "db"`, "context.risk < 30"}
	}
	notes := fmt.Sprintf("@id(%q)\n", r.id)
	switch {
	case !r.permit && g.IntN(6) > 0:
		r.resolve = g.pick("step_up:owner", "step_up:lead", "defer:ticket", "defer:ticket")
		notes += fmt.Sprintf("@resolve(%q)\n", r.resolve)
	case r.permit && g.IntN(5) == 0 && action != "write":
		r.labels = []string{g.pick("pii", "fin")}
		notes += fmt.Sprintf("@label(%q)\n", r.labels[0])
	case r.permit && action == "run" && g.IntN(2) == 0:
		r.modify = []string{"no_network"}
		notes += "@modify(\"no_network\")\n"
	}
	effect := map[bool]string{true: "permit", false: "forbid"}[r.permit]
	r.text = fmt.Sprintf("%s%s (%s, action == Exeq::Action::%q, %s)", notes, effect, principal, action, resource)
	if c := g.pick(cond...); c != "" && g.IntN(2) == 0 {
		r.text += "\n" + g.pick("when", "when", "unless") + " { " + c + " }"
	}
	r.text += ";\n"
	return r
}

func (g *generator) request() *exeq.Request {
	r := &exeq.Request{Action: g.pick(g.actions...), Dir: "/home/ann/app", Context: exeq.Context{
		Workspace: g.pick("/home/ann/app", "/srv"), Home: "/home/ann", Tmp: "/tmp/x", Command: g.pick("make test", "ls"),
	}}
	kind, id, _ := strings.Cut(g.pick("Agent dev", "Agent dev", "Agent ops", "User ann"), " ")
	r.Subject = exeq.Entity{Type: kind, ID: id}
	switch r.Action {
	case "read", "write":
		r.Resource = exeq.Resource{Type: "Path", ID: g.path()}
	case "exec", "run":
		r.Resource = exeq.Resource{Type: "Program", ID: g.path(), SHA256: exeq.Digest{byte(1 + g.IntN(2))}}
		r.Argv = [][]string{{"bin"}, {"bin", "-v"}, {"bin", "-v", "x"}, nil}[g.IntN(4)]
	case "connect":
		r.Resource = exeq.Resource{Type: "Endpoint", ID: g.pick("api.example.com:443", "example.com:80", "example.org:443", "127.0.0.1:80", "10.1.2.3:443", "[::1]:80")}
	case "call_tool":
		r.Resource = exeq.Resource{Type: "Tool", ID: g.pick("git/push", "git/pull", "db/push")}
	}
	if g.IntN(2) == 0 {
		r.Context.Claimed = map[string]string{"intent": g.pick("test", "deploy")}
	}
	return r
}

func (g *generator) inputs() *exeq.Inputs {
	in := &exeq.Inputs{Tier: []exeq.Tier{exeq.TierNested, exeq.TierRootless, exeq.TierKernel}[g.IntN(3)], Risk: g.IntN(101)}
	in.Session.Execs = g.IntN(6)
	in.Session.Labels = [][]string{{}, {"pii"}, {"fin", "pii"}}[g.IntN(3)]
	in.Approved = [][]string{nil, {"owner"}, {"lead", "owner"}}[g.IntN(3)]
	in.Present = [][]string{nil, {"ticket"}}[g.IntN(2)]
	return in
}

// translate states a request in Cedar's own terms, by the design's model and
// not by policy's code.
func translate(r *exeq.Request, in *exeq.Inputs) oracleCase {
	c := oracleCase{
		Principal: uid{"Exeq::" + r.Subject.Type, r.Subject.ID},
		Action:    uid{"Exeq::Action", r.Action},
		Resource:  uid{"Exeq::" + r.Resource.Type, r.Resource.ID},
	}
	place := func(p string) map[string]any { return map[string]any{"__entity": uid{"Exeq::Path", p}} }
	claimed := map[string]any{}
	for k, v := range r.Context.Claimed {
		claimed[k] = v
	}
	s := in.Session
	c.Context = map[string]any{
		"tier": int(in.Tier), "risk": in.Risk, "claimed": claimed, "command": r.Context.Command,
		"workspace": place(r.Context.Workspace), "home": place(r.Context.Home), "tmp": place(r.Context.Tmp),
		"session": map[string]any{"execs": s.Execs, "reads": s.Reads, "writes": s.Writes, "connects": s.Connects, "denials": s.Denials,
			"processes": s.Processes, "bytesOut": s.BytesOut, "labels": s.Labels},
	}
	principal := entity{UID: c.Principal, Attrs: map[string]any{}, Parents: []uid{}}
	for _, team := range teams[r.Subject.Type+" "+r.Subject.ID] {
		principal.Parents = append(principal.Parents, uid{"Exeq::Team", team})
	}
	resource := entity{UID: c.Resource, Attrs: map[string]any{}, Parents: []uid{}}
	switch r.Resource.Type {
	case "Program":
		args := []string{}
		if len(r.Argv) > 1 {
			args = r.Argv[1:]
		}
		c.Context["args"] = args
		resource.Attrs["sha256"] = r.Resource.SHA256.String()
		resource.Attrs["name"] = r.Resource.ID[strings.LastIndex(r.Resource.ID, "/")+1:]
		resource.Parents = append(within(r, r.Resource.ID), uid{"Exeq::Path", r.Resource.ID})
	case "Path":
		resource.Parents = within(r, r.Resource.ID)
	case "Endpoint":
		at := netip.AddrPort{}
		host, port, _ := strings.Cut(r.Resource.ID, ":")
		if a, err := netip.ParseAddrPort(r.Resource.ID); err == nil {
			at, host, port = a, a.Addr().String(), strconv.Itoa(int(a.Port()))
		}
		n, _ := strconv.Atoi(port)
		resource.Attrs["host"], resource.Attrs["port"] = host, n
		if at.IsValid() {
			resource.Attrs["ip"] = map[string]any{"__extn": map[string]any{"fn": "ip", "arg": host}}
			break
		}
		for d := host; ; {
			resource.Parents = append(resource.Parents, uid{"Exeq::Domain", d})
			_, rest, more := strings.Cut(d, ".")
			if !more {
				break
			}
			d = rest
		}
	case "Tool":
		server, name, _ := strings.Cut(r.Resource.ID, "/")
		resource.Attrs["server"], resource.Attrs["name"] = server, name
		resource.Parents = append(resource.Parents, uid{"Exeq::ToolServer", server})
	}
	c.Entities = []entity{principal, resource}
	for _, p := range []string{r.Context.Workspace, r.Context.Home, r.Context.Tmp} {
		if (uid{"Exeq::Path", p}) != c.Resource {
			c.Entities = append(c.Entities, entity{UID: uid{"Exeq::Path", p}, Attrs: map[string]any{}, Parents: within(r, p)})
		}
	}
	return c
}

// within lists the directories and places that a path lies in.
func within(r *exeq.Request, p string) []uid {
	out := []uid{}
	for d := p; d != "/"; {
		if d = d[:strings.LastIndex(d, "/")]; d == "" {
			d = "/"
		}
		out = append(out, uid{"Exeq::Path", d})
	}
	for kind, at := range map[string]string{"Workspace": r.Context.Workspace, "Home": r.Context.Home, "Tmp": r.Context.Tmp} {
		rel := ""
		switch {
		case p == at:
		case strings.HasPrefix(p, at+"/"):
			rel = p[len(at)+1:]
		default:
			continue
		}
		for rel != "" {
			out = append(out, uid{"Exeq::" + kind, rel})
			rel = rel[:max(strings.LastIndex(rel, "/"), 0)]
		}
		out = append(out, uid{"Exeq::" + kind, "."})
	}
	return out
}
