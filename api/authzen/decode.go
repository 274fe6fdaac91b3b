package authzen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Limits bound one message.
type Limits struct {
	Bytes int // size of the body
	Depth int // nesting of objects and arrays
	Items int // evaluations of one message
}

// DecodeEvaluation reads the body of an evaluation. Every error is the
// enforcement point's (400) and names the member.
func DecodeEvaluation(body []byte, lim Limits) (*Evaluation, error) {
	m, err := object(body, lim)
	if err != nil {
		return nil, err
	}
	e, err := evaluation(m, "")
	if err == nil {
		err = e.complete()
	}
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// DecodeEvaluations reads the body of several. What is wrong with the message is
// an error; what is wrong with one item stands in it.
func DecodeEvaluations(body []byte, lim Limits) (*Evaluations, error) {
	m, err := object(body, lim)
	if err != nil {
		return nil, err
	}
	e := &Evaluations{}
	if e.Default, err = evaluation(m, ""); err != nil {
		return nil, err
	}
	if e.Semantic, err = semantic(m); err != nil {
		return nil, err
	}
	list, err := member[[]any](m, "", "evaluations")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return e, e.Default.complete()
	}
	if len(list) > lim.Items {
		return nil, fmt.Errorf("evaluations: %d are over the limit of %d", len(list), lim.Items)
	}
	for i, v := range list {
		e.Items = append(e.Items, e.item(v, fmt.Sprintf("evaluations[%d]", i)))
	}
	return e, nil
}

// item is one element with the defaults in it.
func (e *Evaluations) item(v any, at string) Item {
	m, ok := v.(map[string]any)
	if !ok {
		return Item{Err: fmt.Errorf("%s: is not an object", at)}
	}
	one, err := evaluation(m, at+".")
	if err != nil {
		return Item{Err: err}
	}
	if one.Subject == nil {
		one.Subject = e.Default.Subject
	}
	if one.Action == nil {
		one.Action = e.Default.Action
	}
	if one.Resource == nil {
		one.Resource = e.Default.Resource
	}
	if one.Context == nil {
		one.Context = e.Default.Context
	}
	return Item{one, one.complete()}
}

func semantic(m map[string]any) (Semantic, error) {
	options, err := member[map[string]any](m, "", "options")
	if err != nil {
		return "", err
	}
	s, err := member[string](options, "options.", "evaluations_semantic")
	switch Semantic(s) {
	case "":
		return ExecuteAll, err
	case ExecuteAll, DenyOnFirstDeny, PermitOnFirstPermit:
		return Semantic(s), nil
	}
	return "", fmt.Errorf("options.evaluations_semantic: %q is none of %s, %s, %s", s, ExecuteAll, DenyOnFirstDeny, PermitOnFirstPermit)
}

// Kind is what a search looks for.
type Kind int

// The three searches.
const (
	Subjects Kind = iota
	Resources
	Actions
)

// DecodeSearch reads the body of a search. The id of what is searched for is
// passed over, and an action is none of an action search's.
func DecodeSearch(body []byte, k Kind, lim Limits) (*Search, error) {
	m, err := object(body, lim)
	if err != nil {
		return nil, err
	}
	if k == Actions {
		delete(m, "action")
	}
	s := &Search{}
	if s.Evaluation, err = evaluation(m, ""); err != nil {
		return nil, err
	}
	switch {
	case s.Subject == nil:
		return nil, missing("subject")
	case s.Resource == nil:
		return nil, missing("resource")
	case k != Actions && s.Action == nil:
		return nil, missing("action")
	case k != Subjects && s.Subject.ID == "":
		return nil, missing("subject.id")
	case k != Resources && s.Resource.ID == "":
		return nil, missing("resource.id")
	}
	if k == Subjects {
		s.Subject.ID = ""
	}
	if k == Resources {
		s.Resource.ID = ""
	}
	page, err := member[map[string]any](m, "", "page")
	if err != nil {
		return nil, err
	}
	if s.Page.Token, err = member[string](page, "page.", "token"); err != nil {
		return nil, err
	}
	limit, err := member[json.Number](page, "page.", "limit")
	if err != nil || limit == "" {
		return s, err
	}
	n, err := limit.Int64()
	if err != nil || n < 0 || n > 1<<31-1 {
		return nil, fmt.Errorf("page.limit: %s is not a number of results", limit)
	}
	s.Page.Limit = int(n)
	return s, nil
}

// evaluation reads the four members, each of which may be missing; an entity
// that is there has its type, an action its name.
func evaluation(m map[string]any, at string) (e Evaluation, err error) {
	if e.Subject, err = entity(m, at, "subject"); err != nil {
		return e, err
	}
	if e.Resource, err = entity(m, at, "resource"); err != nil {
		return e, err
	}
	if _, ok := m["action"]; ok {
		a, err := member[map[string]any](m, at, "action")
		if err != nil {
			return e, err
		}
		e.Action = &Action{}
		at := at + "action."
		if e.Action.Name, err = required(a, at, "name"); err != nil {
			return e, err
		}
		if e.Action.Properties, err = member[map[string]any](a, at, "properties"); err != nil {
			return e, err
		}
	}
	e.Context, err = member[map[string]any](m, at, "context")
	return e, err
}

func entity(m map[string]any, at, name string) (*Entity, error) {
	if _, ok := m[name]; !ok {
		return nil, nil
	}
	v, err := member[map[string]any](m, at, name)
	if err != nil {
		return nil, err
	}
	e := &Entity{}
	at += name + "."
	if e.Type, err = required(v, at, "type"); err != nil {
		return nil, err
	}
	if e.ID, err = member[string](v, at, "id"); err != nil {
		return nil, err
	}
	e.Properties, err = member[map[string]any](v, at, "properties")
	return e, err
}

// complete reports what an evaluation lacks.
func (e *Evaluation) complete() error {
	switch {
	case e.Subject == nil:
		return missing("subject")
	case e.Subject.ID == "":
		return missing("subject.id")
	case e.Action == nil:
		return missing("action")
	case e.Resource == nil:
		return missing("resource")
	case e.Resource.ID == "":
		return missing("resource.id")
	}
	return nil
}

func missing(name string) error { return fmt.Errorf("%s: is missing", name) }

// required is a string that must be there.
func required(m map[string]any, at, name string) (string, error) {
	s, err := member[string](m, at, name)
	if err == nil && s == "" {
		err = missing(at + name)
	}
	return s, err
}

// member gives a member; one that is missing is the zero value, null is not.
func member[T any](m map[string]any, at, name string) (v T, err error) {
	x, ok := m[name]
	if !ok {
		return v, nil
	}
	if v, ok = x.(T); !ok {
		return v, fmt.Errorf("%s%s: want %s, found %s", at, name, typeName(v), typeName(x))
	}
	return v, nil
}

func typeName(v any) string {
	switch v.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "a boolean"
	}
	return "null"
}

// object reads exactly one JSON object.
func object(body []byte, lim Limits) (map[string]any, error) {
	switch {
	case len(body) > lim.Bytes:
		return nil, fmt.Errorf("body: more than the limit of %d bytes", lim.Bytes)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, errors.New("body: is empty; want a JSON object")
	case !utf8.Valid(body):
		return nil, errors.New("body: is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := value(d, lim.Depth)
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("body: something stands behind the JSON object")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("body: want an object, found %s", typeName(v))
	}
	return m, nil
}

// value reads one value and refuses members that stand twice.
func value(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, syntax(err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == 0 {
		return nil, errors.New("is nested too deeply")
	}
	if open == '[' {
		list := []any{}
		for d.More() {
			v, err := value(d, depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, syntax(err)
	}
	m := map[string]any{}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, syntax(err)
		}
		name, ok := k.(string)
		if !ok {
			return nil, errors.New("is not JSON")
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("%q stands twice in one object", name)
		}
		if m[name], err = value(d, depth-1); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return m, syntax(err)
}

// syntax words what the decoder says.
func syntax(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON ends too early")
	}
	return fmt.Errorf("is not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}
