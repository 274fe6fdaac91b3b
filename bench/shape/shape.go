// Package shape makes the policy sets and requests that every decision point in
// the benchmarks is given: the same rules as a Cedar set and as Rego, the same
// requests in the form that each takes. They travel as files, so that peers in
// another Go module read what Exeq reads. Rego has them twice: a rule for each
// policy, and as data that one general rule goes through.
//
// A set is what an organisation writes: teams with their projects, tools,
// services and tool servers, some forbids inside what is permitted, and one
// policy in a hundred a forbid without a scope, which no index can skip.
package shape

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sizes are the policy counts of the benchmark.
var Sizes = []int{10, 100, 1000, 10_000}

// Requests is how many requests a shape has.
const Requests = 1000

// Names of the files of a shape. Rules gives the ids of the rules that hold,
// Answer only allow or deny.
const (
	SetDir       = "set" // Cedar text and entities.json, as Exeq loads them
	RulesRego    = "rules.rego"
	AnswerRego   = "answer.rego"
	DataJSON     = "data.json" // {"rules": […]}, for general.rego of bench/peers
	RequestsFile = "requests.jsonl"
	AnswersFile  = "answers.jsonl" // written by Exeq, compared by its peers
)

// Answer is what a decision point said to one request.
type Answer struct {
	Allow    bool     `json:"allow"`
	Policies []string `json:"policies"` // sorted
}

// Dir is the directory of the shape with n policies below root.
func Dir(root string, n int) string { return filepath.Join(root, fmt.Sprintf("shape-%d", n)) }

// kind of a rule, by its number.
type kind int

const (
	files    kind = iota // a team reads or writes a project
	programs             // a team runs the programs of a directory
	services             // a team reaches the names below a domain
	tools                // an agent calls the tools of a server
	secrets              // nobody reads a directory inside a project
	leaks                // a team reaches nothing below a domain once a label is set
	dangers              // no program runs with an argument: no scope
)

func kindOf(i int) kind {
	switch k := i % 20; {
	case i%100 == 19:
		return dangers
	case k < 8:
		return files
	case k < 12:
		return programs
	case k < 16:
		return services
	case k < 18:
		return tools
	case k < 19:
		return secrets
	}
	return leaks
}

const agentsPerTeam = 4

func teams(n int) int             { return max(2, n/50) }
func team(i, n int) string        { return fmt.Sprintf("team-%d", i%teams(n)) }
func agent(i, j, n int) string    { return fmt.Sprintf("agent-%d-%d", i%teams(n), j) }
func project(i int) string        { return fmt.Sprintf("/srv/area-%d/project-%d", i%7, i-i%2) }
func directory(i int) string      { return fmt.Sprintf("/opt/kit-%d/bin", i) }
func domain(i int) string         { return fmt.Sprintf("service-%d.example.com", i) }
func server(i int) string         { return fmt.Sprintf("server-%d", i) }
func label(i int) string          { return fmt.Sprintf("label-%d", i) }
func danger(i int) string         { return fmt.Sprintf("--danger-%d", i) }
func id(i int) string             { return fmt.Sprintf("rule-%05d", i) }
func secretDir(i int) string      { return project(i-18) + "/secret" }
func fileAction(i int) []string   { return [][]string{{"read"}, {"read", "write"}}[i%2] }
func forbids(k kind) bool         { return k >= secrets }
func under(path, d string) bool   { return path == d || strings.HasPrefix(path, d+"/") }
func quoted(list []string) string { b, _ := json.Marshal(list); return strings.Trim(string(b), "[]") }

// Write makes the shape with n policies in dir.
func Write(dir string, n int) error {
	if err := os.MkdirAll(filepath.Join(dir, SetDir), 0o755); err != nil {
		return err
	}
	var cedar, rules, answer strings.Builder
	data := make([]dataRule, n)
	rules.WriteString("package exeq\n\nimport rego.v1\n\n")
	answer.WriteString("package exeq\n\nimport rego.v1\n\ndefault allow := false\n\nallow if {\n\tpermitted\n\tnot forbidden\n}\n\n")
	if n < 19 { // no rule of the set is a forbid, and Rego would call that undefined
		rules.WriteString("forbids := set()\n\n")
		answer.WriteString("default forbidden := false\n\n")
	}
	for i := range n {
		cedar.WriteString(cedarRule(i, n))
		data[i] = dataOf(i, n)
		body := regoBody(i, n)
		which, boolean := "permits", "permitted"
		if forbids(kindOf(i)) {
			which, boolean = "forbids", "forbidden"
		}
		fmt.Fprintf(&rules, "%s contains %q if {\n%s}\n\n", which, id(i), body)
		fmt.Fprintf(&answer, "%s if {\n%s}\n\n", boolean, body)
	}
	cedar.WriteString(cedarLabels(n))
	entities, err := json.Marshal(directoryOf(n))
	if err != nil {
		return err
	}
	grants, err := json.Marshal(map[string]any{"rules": data})
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		SetDir + "/policy.cedar": cedar.String(), SetDir + "/entities.json": string(entities),
		RulesRego: rules.String(), AnswerRego: answer.String(), DataJSON: string(grants),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(dir, RequestsFile))
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for range Requests {
		if err := enc.Encode(asked(rng, n)); err != nil {
			return err
		}
	}
	return f.Close()
}

// cedarLabels gives permits that set each label a rule asks for, without which
// the set is refused; no request asks for what they permit.
func cedarLabels(n int) string {
	var b strings.Builder
	var labels []string
	for i := range n {
		if kindOf(i) == leaks {
			labels = append(labels, label(i))
		}
	}
	for part := range slices.Chunk(labels, 1000) {
		fmt.Fprintf(&b, "@id(\"sets-%s\")\n@label(%q)\npermit (principal == Exeq::Agent::%q, action == Exeq::Action::\"call_tool\", resource in Exeq::ToolServer::\"labels\");\n\n",
			part[0], strings.Join(part, ","), agent(0, 0, n))
	}
	return b.String()
}

func cedarRule(i, n int) string {
	text := fmt.Sprintf("@id(%q)\n", id(i))
	inTeam := fmt.Sprintf("principal in Exeq::Team::%q", team(i, n))
	switch kindOf(i) {
	case files:
		var as []string
		for _, a := range fileAction(i) {
			as = append(as, fmt.Sprintf("Exeq::Action::%q", a))
		}
		text += fmt.Sprintf("permit (%s, action in [%s], resource in Exeq::Path::%q);\n\n", inTeam, strings.Join(as, ", "), project(i))
	case programs:
		text += fmt.Sprintf("permit (%s, action in [Exeq::Action::\"run\", Exeq::Action::\"exec\"], resource in Exeq::Path::%q);\n\n", inTeam, directory(i))
	case services:
		text += fmt.Sprintf("permit (%s, action == Exeq::Action::\"connect\", resource in Exeq::Domain::%q)\nwhen { resource.port == 443 };\n\n", inTeam, domain(i))
	case tools:
		text += fmt.Sprintf("permit (principal == Exeq::Agent::%q, action == Exeq::Action::\"call_tool\", resource in Exeq::ToolServer::%q);\n\n", agent(i, 0, n), server(i))
	case secrets:
		text += fmt.Sprintf("forbid (principal, action in [Exeq::Action::\"read\", Exeq::Action::\"write\"], resource in Exeq::Path::%q);\n\n", secretDir(i))
	case leaks:
		text += fmt.Sprintf("forbid (%s, action == Exeq::Action::\"connect\", resource in Exeq::Domain::%q)\nwhen { context.session.labels.contains(%q) };\n\n", inTeam, domain(i-4), label(i))
	case dangers:
		text += fmt.Sprintf("forbid (principal, action in [Exeq::Action::\"run\", Exeq::Action::\"exec\"], resource)\nwhen { context.args.contains(%q) };\n\n", danger(i))
	}
	return text
}

// regoBody says the same with the comparisons that OPA's rule indexer knows:
// equality, membership and startswith on ground references of the input.
func regoBody(i, n int) string {
	lines := func(ls ...string) string { return "\t" + strings.Join(ls, "\n\t") + "\n" }
	inTeam := fmt.Sprintf("%q in input.principal.teams", team(i, n))
	switch kindOf(i) {
	case files:
		return lines(fmt.Sprintf("input.action in {%s}", quoted(fileAction(i))), inTeam, fmt.Sprintf("startswith(input.resource.path, %q)", project(i)+"/"))
	case programs:
		return lines(`input.action in {"run", "exec"}`, inTeam, fmt.Sprintf("startswith(input.resource.path, %q)", directory(i)+"/"))
	case services:
		return lines(`input.action == "connect"`, inTeam, fmt.Sprintf("%q in input.resource.domains", domain(i)), "input.resource.port == 443")
	case tools:
		return lines(`input.action == "call_tool"`, fmt.Sprintf("input.principal.id == %q", agent(i, 0, n)), fmt.Sprintf("input.resource.server == %q", server(i)))
	case secrets:
		return lines(`input.action in {"read", "write"}`, fmt.Sprintf("startswith(input.resource.path, %q)", secretDir(i)+"/"))
	case leaks:
		return lines(`input.action == "connect"`, inTeam, fmt.Sprintf("%q in input.resource.domains", domain(i-4)), fmt.Sprintf("%q in input.context.labels", label(i)))
	}
	return lines(`input.action in {"run", "exec"}`, fmt.Sprintf("%q in input.context.args", danger(i)))
}

// dataRule is a rule as data; what it leaves out matches anything.
type dataRule struct {
	ID      string   `json:"id"`
	Effect  string   `json:"effect"`
	Actions []string `json:"actions"`
	Team    string   `json:"team,omitempty"`
	Agent   string   `json:"agent,omitempty"`
	Prefix  string   `json:"prefix,omitempty"`
	Domain  string   `json:"domain,omitempty"`
	Port    int      `json:"port,omitempty"`
	Server  string   `json:"server,omitempty"`
	Label   string   `json:"label,omitempty"`
	Arg     string   `json:"arg,omitempty"`
}

func dataOf(i, n int) dataRule {
	r := dataRule{ID: id(i), Effect: "permit"}
	if forbids(kindOf(i)) {
		r.Effect = "forbid"
	}
	switch kindOf(i) {
	case files:
		r.Actions, r.Team, r.Prefix = fileAction(i), team(i, n), project(i)+"/"
	case programs:
		r.Actions, r.Team, r.Prefix = []string{"run", "exec"}, team(i, n), directory(i)+"/"
	case services:
		r.Actions, r.Team, r.Domain, r.Port = []string{"connect"}, team(i, n), domain(i), 443
	case tools:
		r.Actions, r.Agent, r.Server = []string{"call_tool"}, agent(i, 0, n), server(i)
	case secrets:
		r.Actions, r.Prefix = []string{"read", "write"}, secretDir(i)+"/"
	case leaks:
		r.Actions, r.Team, r.Domain, r.Label = []string{"connect"}, team(i, n), domain(i-4), label(i)
	case dangers:
		r.Actions, r.Arg = []string{"run", "exec"}, danger(i)
	}
	return r
}

type uid struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type entity struct {
	UID     uid   `json:"uid"`
	Parents []uid `json:"parents"`
}

// directoryOf lists teams and agents: entities.json.
func directoryOf(n int) []entity {
	out := []entity{{uid{"Exeq::User", "someone"}, []uid{}}}
	for t := range teams(n) {
		out = append(out, entity{uid{"Exeq::Team", team(t, n)}, []uid{}})
		for j := range agentsPerTeam {
			out = append(out, entity{uid{"Exeq::Agent", agent(t, j, n)}, []uid{{"Exeq::Team", team(t, n)}}})
		}
	}
	return out
}
