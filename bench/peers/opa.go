package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// prepared compiles a module of the shape and gives its query with the inputs
// parsed.
func prepared(dir, file, query string, requests []asked) (*rego.PreparedEvalQuery, []ast.Value, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, nil, err
	}
	q, err := rego.New(rego.Query(query), rego.Module(file, string(text))).PrepareForEval(context.Background())
	if err != nil {
		return nil, nil, err
	}
	inputs := make([]ast.Value, len(requests))
	for i, r := range requests {
		if inputs[i], err = ast.InterfaceToValue(r.Rego); err != nil {
			return nil, nil, err
		}
	}
	return &q, inputs, nil
}

// opaRules asks for the ids of all rules that hold, which is what Exeq answers.
func opaRules(dir string, requests []asked) (engine, error) {
	q, inputs, err := prepared(dir, "rules.rego", "permits = data.exeq.permits; forbids = data.exeq.forbids", requests)
	return engine{"OPA, prepared query, ids", true, func(i int) (answer, error) {
		rs, err := q.Eval(context.Background(), rego.EvalParsedInput(inputs[i]))
		if err != nil {
			return answer{}, err
		}
		if len(rs) != 1 {
			return answer{}, fmt.Errorf("%d results", len(rs))
		}
		if forbids := strings(rs[0].Bindings["forbids"]); len(forbids) > 0 {
			return answer{false, forbids}, nil
		}
		permits := strings(rs[0].Bindings["permits"])
		return answer{len(permits) > 0, permits}, nil
	}}, err
}

// opaAnswer asks for yes or no, which lets OPA stop at the first rule that holds.
func opaAnswer(dir string, requests []asked) (engine, error) {
	q, inputs, err := prepared(dir, "answer.rego", "data.exeq.allow", requests)
	return engine{"OPA, prepared query, yes or no", false, func(i int) (answer, error) {
		rs, err := q.Eval(context.Background(), rego.EvalParsedInput(inputs[i]))
		return answer{Allow: rs.Allowed()}, err
	}}, err
}

func strings(v any) []string {
	list, _ := v.([]any)
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = fmt.Sprint(e)
	}
	return out
}
