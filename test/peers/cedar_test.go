//go:build linux

package peers

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

// oracleSet is a set of policies as the oracle takes it.
type oracleSet struct {
	Permits map[string]string `json:"permits"`
	Forbids map[string]string `json:"forbids"`
	Cases   []oracleCase      `json:"cases"`
}

type oracleCase struct {
	Principal uid            `json:"principal"`
	Action    uid            `json:"action"`
	Resource  uid            `json:"resource"`
	Context   map[string]any `json:"context"`
	Entities  []entity       `json:"entities"`
}

type uid struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type entity struct {
	UID     uid            `json:"uid"`
	Attrs   map[string]any `json:"attrs"`
	Parents []uid          `json:"parents"`
}

// answer is what the oracle found of one set.
type answer struct {
	Problems []string `json:"problems"`
	Cases    []struct {
		Permits, Forbids, Errors []string
	} `json:"cases"`
}

// TestCedarWasm: Cedar's Rust implementation finds the same policies satisfied
// as policy/ does with its index, and the design's table of verdicts, written
// again here, gives the same decision.
func TestCedarWasm(t *testing.T) {
	const sets, requests = 40, 30
	g := newGenerator(20261123)
	type asked struct {
		rules []rule
		set   *policy.Set
		req   []*exeq.Request
		in    []*exeq.Inputs
	}
	var all []asked
	var questions []oracleSet
	for len(all) < sets {
		rules, set := g.set(t)
		a, q := asked{rules: rules, set: set}, oracleSet{Permits: map[string]string{}, Forbids: map[string]string{}}
		for _, r := range rules {
			if r.permit {
				q.Permits[r.id] = r.text
			} else {
				q.Forbids[r.id] = r.text
			}
		}
		for range requests {
			r, in := g.request(), g.inputs()
			a.req, a.in = append(a.req, r), append(a.in, in)
			q.Cases = append(q.Cases, translate(r, in))
		}
		all, questions = append(all, a), append(questions, q)
	}
	answers := askOracle(t, questions)
	seen := map[exeq.Verdict]int{}
	for i, a := range all {
		if len(answers[i].Problems) > 0 {
			t.Errorf("policy/ loads what Rust's strict validator refuses: %v", answers[i].Problems)
		}
		for j, r := range a.req {
			o := answers[i].Cases[j]
			want := verdict(a.rules, o.Permits, o.Forbids, o.Errors, a.in[j])
			got, err := a.set.Decide(t.Context(), r, a.in[j])
			if err != nil {
				t.Fatal(err)
			}
			seen[got.Verdict]++
			if got.Verdict != want.Verdict || !slices.Equal(got.Policies, want.Policies) || !slices.Equal(got.Needs, want.Needs) ||
				!slices.Equal(got.Labels, want.Labels) || !slices.Equal(got.Obligations, want.Obligations) {
				t.Errorf("%s %s by %s %s: policy/ says %+v, the oracle %+v (permits %v, forbids %v)", r.Action, r.Resource.ID, r.Subject.Type, r.Subject.ID, got, want, o.Permits, o.Forbids)
			}
		}
	}
	for _, v := range []exeq.Verdict{exeq.Allow, exeq.Deny, exeq.StepUp, exeq.Defer, exeq.Modify} {
		if seen[v] < 5 {
			t.Errorf("only %d of %d requests were %s: the comparison says little", seen[v], sets*requests, v)
		}
	}
}

// verdict is the table of docs/policy.md.
func verdict(rules []rule, permits, forbids, errors []string, in *exeq.Inputs) exeq.Decision {
	byID := map[string]rule{}
	for _, r := range rules {
		byID[r.id] = r
	}
	sorted := func(ids []string) []string {
		out := append([]string{}, ids...)
		slices.Sort(out)
		return slices.Compact(out)
	}
	if len(errors) > 0 {
		return exeq.Decision{Verdict: exeq.Deny, Policies: sorted(errors)}
	}
	var final, open, needs []string
	for _, id := range forbids {
		kind, what, _ := strings.Cut(byID[id].resolve, ":")
		switch {
		case kind == "":
			final = append(final, id)
		case kind == "step_up" && slices.Contains(in.Approved, what), kind == "defer" && slices.Contains(in.Present, what):
		default:
			open, needs = append(open, id), append(needs, byID[id].resolve)
		}
	}
	switch {
	case len(final) > 0:
		return exeq.Decision{Verdict: exeq.Deny, Policies: sorted(final)}
	case len(permits) == 0:
		return exeq.Decision{Verdict: exeq.Deny, Policies: []string{}}
	case len(open) > 0:
		v := exeq.StepUp
		if slices.ContainsFunc(needs, func(n string) bool { return strings.HasPrefix(n, "defer:") }) {
			v = exeq.Defer
		}
		return exeq.Decision{Verdict: v, Policies: sorted(open), Needs: sorted(needs)}
	}
	d := exeq.Decision{Verdict: exeq.Allow, Policies: sorted(permits)}
	for _, id := range permits {
		d.Labels, d.Obligations = append(d.Labels, byID[id].labels...), append(d.Obligations, byID[id].modify...)
	}
	d.Labels, d.Obligations = sorted(d.Labels), sorted(d.Obligations)
	if len(d.Obligations) > 0 {
		d.Verdict = exeq.Modify
	}
	return d
}

// askOracle runs the oracle under Node, its packages by `npm ci`.
func askOracle(t *testing.T, sets []oracleSet) []answer {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	schema, err := os.ReadFile("../../policy/schema.cedarschema")
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(map[string]any{"schema": string(schema), "sets": sets})
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("cedar/oracle.cjs")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, script)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(npmPackages(t, "cedar"), "node_modules"))
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("oracle: %v\n%s", err, stderr.String())
	}
	var answers []answer
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

// npmPackages installs what dir's lock file names, once, and gives the place.
func npmPackages(t *testing.T, dir string) string {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(cache(t), "npm-"+dir+"-"+hash(lock))
	once(t, to, func() {
		if err := os.RemoveAll(to + ".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to+".new", os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = to + ".new"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	})
	return to
}
