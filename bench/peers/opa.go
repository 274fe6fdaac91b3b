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

// input hands the i-th request to an evaluation.
type input func(i int) (rego.EvalOption, error)

// parsed makes OPA's own values beforehand: an evaluation does not pay for
// them.
func parsed(requests []asked) (input, error) {
	inputs := make([]ast.Value, len(requests))
	for i, r := range requests {
		var err error
		if inputs[i], err = ast.InterfaceToValue(r.Rego); err != nil {
			return nil, err
		}
	}
	return func(i int) (rego.EvalOption, error) { return rego.EvalParsedInput(inputs[i]), nil }, nil
}

// fromGo makes OPA's values of Go's for each evaluation, as Exeq makes what it
// decides on. It is the faster of OPA's two ways: rego.EvalInput, which its
// documentation shows, sends them through JSON first, for slices that are not
// []any.
func fromGo(requests []asked) (input, error) {
	return func(i int) (rego.EvalOption, error) {
		v, err := ast.InterfaceToValue(requests[i].Rego)
		return rego.EvalParsedInput(v), err
	}, nil
}

// prepared compiles a module of the shape and gives its query.
func prepared(dir, file, query string) (*rego.PreparedEvalQuery, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	return prepare(rego.Query(query), rego.Module(file, string(text)))
}

func prepare(options ...func(*rego.Rego)) (*rego.PreparedEvalQuery, error) {
	q, err := rego.New(options...).PrepareForEval(context.Background())
	return &q, err
}

const idsQuery = "permits = data.exeq.permits; forbids = data.exeq.forbids"

// opaRules asks for the ids of all rules that hold, which is what Exeq answers.
func opaRules(name string, from func([]asked) (input, error)) opener {
	return func(dir string, requests []asked) (engine, error) {
		q, err := prepared(dir, "rules.rego", idsQuery)
		if err != nil {
			return engine{}, err
		}
		in, err := from(requests)
		return idsEngine("OPA, prepared query, ids"+name, q, in), err
	}
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
	q, err := prepare(rego.Query(idsQuery), rego.Module("general.rego", general), rego.Store(store))
	if err != nil {
		return engine{}, err
	}
	in, err := parsed(requests)
	return idsEngine("OPA, prepared query, policies as data", q, in), err
}

func idsEngine(name string, q *rego.PreparedEvalQuery, in input) engine {
	return engine{name, true, func(i int) (answer, error) {
		given, err := in(i)
		if err != nil {
			return answer{}, err
		}
		rs, err := q.Eval(context.Background(), given)
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
func opaAnswer(name string, from func([]asked) (input, error)) opener {
	return func(dir string, requests []asked) (engine, error) {
		q, err := prepared(dir, "answer.rego", "data.exeq.allow")
		if err != nil {
			return engine{}, err
		}
		in, err := from(requests)
		return engine{"OPA, prepared query, yes or no" + name, false, func(i int) (answer, error) {
			given, err := in(i)
			if err != nil {
				return answer{}, err
			}
			rs, err := q.Eval(context.Background(), given)
			return answer{Allow: rs.Allowed()}, err
		}}, err
	}
}

func strings(v any) []string {
	list, _ := v.([]any)
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = fmt.Sprint(e)
	}
	return out
}
