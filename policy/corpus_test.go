package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// corpusCase is one file of Cedar's upstream corpus: decisions that the Rust
// implementation took.
type corpusCase struct {
	Policies string `json:"policies"`
	Entities string `json:"entities"`
	Requests []struct {
		Principal types.ImplicitlyMarshaledEntityUID `json:"principal"`
		Action    types.ImplicitlyMarshaledEntityUID `json:"action"`
		Resource  types.ImplicitlyMarshaledEntityUID `json:"resource"`
		Context   types.Record                       `json:"context"`
		Decision  string                             `json:"decision"`
		Reasons   []string                           `json:"reason"`
		Errors    []string                           `json:"errors"`
	} `json:"requests"`
}

// corpus reads the archive that comes with the cedar-go module.
func corpus(t *testing.T) map[string][]byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cedar-policy/cedar-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "corpus-tests.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// takenApart evaluates a policy the way a loaded set does: scope apart, then
// the conjuncts of its conditions one by one.
func takenApart(p *cedar.Policy) (scope, conditions *cedar.Policy) {
	full := (*ast.Policy)(p.AST())
	alone := *full
	alone.Conditions = nil
	rest := &ast.Policy{Effect: full.Effect, Principal: ast.ScopeTypeAll{}, Action: ast.ScopeTypeAll{}, Resource: ast.ScopeTypeAll{}}
	var conjuncts []conjunct
	for _, c := range full.Conditions {
		conjuncts = splitConjuncts(conjuncts, c.Body, c.Condition == ast.ConditionUnless)
	}
	for _, c := range conjuncts {
		rest.Conditions = append(rest.Conditions, ast.ConditionType{Condition: ast.Condition(!c.negate), Body: c.node})
	}
	return newPolicy(&alone), newPolicy(rest)
}

// The upstream corpus, whose decisions the Rust implementation made, holds for
// evaluation of forbids and permits apart and of policies taken apart.
func TestUpstreamCorpus(t *testing.T) {
	files := corpus(t)
	requests := 0
	for name, data := range files {
		if !strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".entities.json") {
			continue
		}
		var c corpusCase
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		set, err := cedar.NewPolicySetFromBytes("p.cedar", files[c.Policies])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var entities types.EntityMap
		if err := json.Unmarshal(files[c.Entities], &entities); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, r := range c.Requests {
			requests++
			req := cedar.Request{Principal: types.EntityUID(r.Principal), Action: types.EntityUID(r.Action), Resource: types.EntityUID(r.Resource), Context: r.Context}
			var o outcome
			for id, p := range set.All() {
				holds, err := apart(p, entities, req)
				rule := &rule{id: string(id), permit: bool(p.Effect())}
				switch {
				case err:
					o.errors = append(o.errors, rule)
				case !holds:
				case rule.permit:
					o.permits = append(o.permits, rule)
				default:
					o.forbids = append(o.forbids, rule)
				}
			}
			// Cedar's own answer: a policy that errs is as if it were not there.
			decision, reasons := "deny", o.forbids
			if len(o.forbids) == 0 && len(o.permits) > 0 {
				decision, reasons = "allow", o.permits
			}
			if decision != r.Decision || !sameIDs(reasons, r.Reasons) || !sameIDs(o.errors, r.Errors) {
				t.Fatalf("%s request %d: %s by %v, errors %v; want %s by %v, errors %v", name, i, decision, ids(reasons), ids(o.errors), r.Decision, r.Reasons, r.Errors)
			}
			// Exeq's: any error denies; nothing that Cedar denies is allowed.
			d, _ := o.verdict(nil, nil)
			if d.Verdict.Permits() && (r.Decision != "allow" || len(r.Errors) > 0) {
				t.Fatalf("%s request %d: permitted where Cedar says %s with errors %v", name, i, r.Decision, r.Errors)
			}
		}
	}
	if requests < 7000 {
		t.Errorf("only %d requests: the corpus is not there", requests)
	}
	t.Log(requests, "requests")
}

func apart(p *cedar.Policy, entities types.EntityMap, req cedar.Request) (holds, err bool) {
	scope, conditions := takenApart(p)
	for _, part := range []*cedar.Policy{scope, conditions} {
		_, diag := cedar.Authorize(one{part}, entities, req)
		if len(diag.Errors) > 0 {
			return false, true
		}
		if len(diag.Reasons) == 0 {
			return false, false
		}
	}
	return true, false
}

func sameIDs(rules []*rule, want []string) bool {
	got := ids(rules)
	slices.Sort(got)
	want = slices.Clone(want)
	slices.Sort(want)
	return slices.Equal(got, want)
}
