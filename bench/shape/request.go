package shape

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/exeq/exeq"
)

// Asked is one request in the three forms; it is a line of RequestsFile.
type Asked struct {
	Request exeq.Request `json:"request"`
	Inputs  exeq.Inputs  `json:"inputs"`
	// Cedar is the request with exactly the entities that it needs, in
	// Cedar's JSON; Rego is OPA's input document.
	Cedar CedarRequest   `json:"cedar"`
	Rego  map[string]any `json:"rego"`
}

// CedarRequest is a request to a plain Cedar authorizer.
type CedarRequest struct {
	Principal uid            `json:"principal"`
	Action    uid            `json:"action"`
	Resource  uid            `json:"resource"`
	Context   map[string]any `json:"context"`
	Entities  []cedarEntity  `json:"entities"`
}

type cedarEntity struct {
	UID     uid            `json:"uid"`
	Attrs   map[string]any `json:"attrs"`
	Parents []uid          `json:"parents"`
}

// asked makes a request about one of the n rules: in seven of ten cases by one
// whom the rule is for, else by another.
func asked(rng *rand.Rand, n int) Asked {
	i := rng.IntN(n)
	who := i
	if rng.IntN(10) >= 7 {
		who = rng.IntN(n)
	}
	a := agent(who, 0, n)
	if kindOf(i) != tools {
		a = agent(who, rng.IntN(agentsPerTeam), n)
	}
	r := exeq.Request{
		Subject:    exeq.Entity{Type: "Agent", ID: a},
		OnBehalfOf: []exeq.Entity{{Type: "User", ID: "someone"}},
		Dir:        "/srv/work",
		Context:    exeq.Context{Workspace: "/srv/work", Home: "/home/someone", Tmp: "/tmp/exeq-1", Command: "agent --task review"},
	}
	in := exeq.Inputs{Tier: exeq.TierRootless, Time: exeq.At(time.UnixMilli(1_790_000_000_000)),
		Session: exeq.Session{Execs: rng.IntN(50), Labels: []string{label(rng.IntN(n))}}}
	in.Session.Labels = in.Session.Labels[:rng.IntN(2)]
	leaf := fmt.Sprintf("pkg-%d/internal/unit-%d", rng.IntN(100), rng.IntN(1000))
	switch kindOf(i) {
	case files:
		r.Action = []string{"read", "write"}[rng.IntN(2)]
		r.Resource = exeq.Resource{Type: "Path", ID: project(i) + "/src/" + leaf + ".go"}
	case secrets:
		r.Action = "read"
		r.Resource = exeq.Resource{Type: "Path", ID: secretDir(i) + "/" + leaf + ".key"}
	case programs, dangers:
		r.Action = []string{"run", "exec"}[rng.IntN(2)]
		d := directory(i - i%20 + 8 + i%4)
		r.Resource = exeq.Resource{Type: "Program", ID: d + "/tool", SHA256: exeq.LeafHash([]byte(d))}
		r.Argv = []string{"tool", "--verbose", "build", "./..."}
		if kindOf(i) == dangers {
			r.Argv[1] = danger(i)
		}
		r.Context.Command = exeq.CommandLine(r.Argv)
	case services, leaks:
		r.Action = "connect"
		s := i
		if kindOf(i) == leaks {
			s = i - 4
		}
		r.Resource = exeq.Resource{Type: "Endpoint", ID: fmt.Sprintf("api-%d.%s:443", rng.IntN(4), domain(s))}
		if kindOf(i) == leaks {
			in.Session.Labels = []string{label(i)}
		}
	case tools:
		r.Action = "call_tool"
		r.Resource = exeq.Resource{Type: "Tool", ID: server(i) + "/search"}
	}
	return Asked{r, in, cedarForm(&r, &in, n), regoForm(&r, &in)}
}

func teamOf(a string) string { return "team-" + strings.Split(a, "-")[1] }

// above gives the parent entities of a resource, and its attributes.
func above(r *exeq.Request) (parents []uid, attrs map[string]any) {
	id, attrs := r.Resource.ID, map[string]any{}
	switch r.Resource.Type {
	case "Program", "Path":
		at := id
		if r.Resource.Type == "Path" {
			at = path.Dir(id)
		} else {
			attrs["sha256"], attrs["name"] = r.Resource.SHA256.String(), path.Base(id)
		}
		for ; at != "/"; at = path.Dir(at) {
			parents = append(parents, uid{"Exeq::Path", at})
		}
		parents = append(parents, uid{"Exeq::Path", "/"})
	case "Endpoint":
		host := strings.TrimSuffix(id, ":443")
		attrs["host"], attrs["port"] = host, 443
		for _, d := range suffixes(host) {
			parents = append(parents, uid{"Exeq::Domain", d})
		}
	case "Tool":
		attrs["server"], attrs["name"] = path.Dir(id), path.Base(id)
		parents = append(parents, uid{"Exeq::ToolServer", path.Dir(id)})
	}
	return parents, attrs
}

func suffixes(host string) (out []string) {
	for d, ok := host, true; ok; _, d, ok = strings.Cut(d, ".") {
		out = append(out, d)
	}
	return out
}

func cedarForm(r *exeq.Request, in *exeq.Inputs, n int) CedarRequest {
	c := CedarRequest{
		Principal: uid{"Exeq::Agent", r.Subject.ID}, Action: uid{"Exeq::Action", r.Action},
		Resource: uid{"Exeq::" + r.Resource.Type, r.Resource.ID},
	}
	path := func(p string) map[string]any { return map[string]any{"__entity": uid{"Exeq::Path", p}} }
	c.Context = map[string]any{
		"tier": int(in.Tier), "risk": in.Risk, "claimed": map[string]any{}, "command": r.Context.Command,
		"workspace": path(r.Context.Workspace), "home": path(r.Context.Home), "tmp": path(r.Context.Tmp),
		"session": map[string]any{
			"execs": in.Session.Execs, "reads": 0, "writes": 0, "connects": 0, "denials": 0, "processes": 0, "bytesOut": 0,
			"labels": append([]string{}, in.Session.Labels...),
		},
	}
	if r.Resource.Type == "Program" {
		c.Context["args"] = append([]string{}, r.Argv[1:]...)
	}
	parents, attrs := above(r)
	t := teamOf(r.Subject.ID)
	c.Entities = []cedarEntity{
		{c.Resource, attrs, parents},
		{c.Principal, map[string]any{}, []uid{{"Exeq::Team", t}}},
		{uid{"Exeq::Team", t}, map[string]any{}, []uid{}},
		{c.Action, map[string]any{}, []uid{{"Exeq::Action", "activity"}}},
	}
	return c
}

func regoForm(r *exeq.Request, in *exeq.Inputs) map[string]any {
	resource := map[string]any{"type": r.Resource.Type, "id": r.Resource.ID}
	switch r.Resource.Type {
	case "Program", "Path":
		resource["path"] = r.Resource.ID + "/" // so that a prefix ends at a directory
	case "Endpoint":
		host := strings.TrimSuffix(r.Resource.ID, ":443")
		resource["host"], resource["port"], resource["domains"] = host, 443, suffixes(host)
	case "Tool":
		resource["server"], resource["name"] = path.Dir(r.Resource.ID), path.Base(r.Resource.ID)
	}
	args := []string{}
	if len(r.Argv) > 1 {
		args = r.Argv[1:]
	}
	return map[string]any{
		"principal": map[string]any{"type": "Agent", "id": r.Subject.ID, "teams": []string{teamOf(r.Subject.ID)}},
		"action":    r.Action, "resource": resource,
		"context": map[string]any{"tier": int(in.Tier), "risk": in.Risk, "command": r.Context.Command,
			"labels": append([]string{}, in.Session.Labels...), "args": args},
	}
}

// Read gives the requests of the shape in dir, those that Exeq takes.
func Read(dir string) ([]Asked, error) {
	f, err := os.Open(filepath.Join(dir, RequestsFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Asked
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a Asked
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		out = append(out, a)
	}
	return out, lines.Err()
}

// WriteAnswers keeps what Exeq answered, for its peers to compare.
func WriteAnswers(dir string, answers []Answer) error {
	f, err := os.Create(filepath.Join(dir, AnswersFile))
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	for _, a := range answers {
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return f.Close()
}
