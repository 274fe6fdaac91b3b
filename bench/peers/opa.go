package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// prepared compiles a module of the shape and gives its query with the inputs
// parsed.
func prepared(dir, file, query string, requests []asked) (*rego.PreparedEvalQuery, []ast.Value, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, nil, err
	}
	return prepare(requests, rego.Query(query), rego.Module(file, string(text)))
}

func prepare(requests []asked, options ...func(*rego.Rego)) (*rego.PreparedEvalQuery, []ast.Value, error) {
	q, err := rego.New(options...).PrepareForEval(context.Background())
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

const idsQuery = "permits = data.exeq.permits; forbids = data.exeq.forbids"

// opaRules asks for the ids of all rules that hold, which is what Exeq answers.
func opaRules(dir string, requests []asked) (engine, error) {
	q, inputs, err := prepared(dir, "rules.rego", idsQuery, requests)
	return idsEngine("OPA, prepared query, ids", q, inputs), err
}

//go:embed general.rego
var general string

// opaData does the same with the policies as data.
func opaData(dir string, requests []asked) (engine, error) {
	text, err := os.ReadFile(filepath.Join(dir, "data.json"))
	if err != nil {
		return engine{}, err
	}
	store := inmem.NewFromReader(bytes.NewReader(text))
	q, inputs, err := prepare(requests, rego.Query(idsQuery), rego.Module("general.rego", general), rego.Store(store))
	return idsEngine("OPA, prepared query, policies as data", q, inputs), err
}

func idsEngine(name string, q *rego.PreparedEvalQuery, inputs []ast.Value) engine {
	return engine{name, true, func(i int) (answer, error) {
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
	}}
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
