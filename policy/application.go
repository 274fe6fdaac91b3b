package policy

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
	"github.com/exeq/exeq/internal/canon"
)

// SchemaFile is the file of an application that names its types and actions.
const SchemaFile = "schema.cedarschema"

const tagApplication = "exeq.dev/application/v1\x00"

// Application decides about the types and actions of an application, which its
// own schema names: whether a subject may do an action to a resource, and which
// may. What it decides starts nothing, so it gives no rights and takes no session.
//
// What an enforcement point passes as properties is believed for what the schema
// marks @stated, an attribute or a whole entity type, and passed over elsewhere.
// Its verdict is that of a [Set]: any doubt denies. It never changes and is safe
// for concurrent use.
type Application struct {
	digest    exeq.Digest
	rules     []*rule // sorted by id
	schema    *resolved.Schema
	validator *validate.Validator
	entities  types.EntityMap
	listed    map[types.EntityType][]types.EntityUID // of entities, sorted by id
	kinds     map[string]types.EntityType            // as the API names types
	actions   map[string]resolved.Action             // as the API names actions
}

// LoadApplication loads the directory of an application: its schema
// ([SchemaFile]), its policies (*.cedar) and its entities ([EntitiesFile], in
// Cedar's JSON form). The error is a [*CheckError] that lists every problem.
func LoadApplication(dir string) (*Application, error) {
	files, err := readApplication(dir)
	if err != nil {
		return nil, err
	}
	a := &Application{entities: types.EntityMap{}, listed: map[types.EntityType][]types.EntityUID{}}
	sum, _, err := canon.Sum256(tagApplication, files)
	if err != nil {
		return nil, fmt.Errorf("application %s: %w", dir, err)
	}
	a.digest = sum
	problems := a.readSchema(files[SchemaFile])
	if len(problems) == 0 { // all else is held against it
		problems = append(a.readEntities(files[EntitiesFile]), a.readRules(files)...)
	}
	if len(problems) > 0 {
		sortProblems(problems)
		return nil, &CheckError{problems}
	}
	return a, nil
}

// readApplication gives the files of a directory by name.
func readApplication(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("application: %w", err)
	}
	src := &Source{Files: map[string]string{}}
	for _, e := range entries {
		if name := e.Name(); name != SchemaFile && name != EntitiesFile && !strings.HasSuffix(name, cedarSuffix) {
			continue
		}
		p := filepath.Join(dir, e.Name())
		info, err := os.Stat(p)
		if err == nil {
			err = src.read(p, info)
		}
		if err != nil {
			return nil, fmt.Errorf("application: %w", err)
		}
	}
	if _, ok := src.Files[SchemaFile]; !ok {
		return nil, fmt.Errorf("application: %w", &fs.PathError{Op: "open", Path: filepath.Join(dir, SchemaFile), Err: fs.ErrNotExist})
	}
	return src.Files, nil
}

// readSchema resolves the schema and names its types as the API does: without
// their namespace, of which there is one.
func (a *Application) readSchema(text string) []Problem {
	refuse := func(format string, args ...any) []Problem {
		return []Problem{{File: SchemaFile, Message: fmt.Sprintf(format, args...), Fix: "see docs/server.md for an example"}}
	}
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(text)); err != nil {
		return refuse("does not parse: %v", err)
	}
	var err error
	if a.schema, err = s.Resolve(); err != nil {
		return refuse("%v", err)
	}
	a.validator = validate.New(a.schema, validate.WithStrict())
	a.kinds, a.actions = map[string]types.EntityType{}, map[string]resolved.Action{}
	for t := range a.schema.Entities {
		name := shortType(t)
		if other, twice := a.kinds[name]; twice {
			return refuse("%s and %s have one name for the API", min(t, other), max(t, other))
		}
		a.kinds[name] = t
	}
	for uid, act := range a.schema.Actions {
		if act.AppliesTo == nil { // a group
			continue
		}
		if _, twice := a.actions[string(uid.ID)]; twice {
			return refuse("two actions have the name %q", uid.ID)
		}
		a.actions[string(uid.ID)] = act
	}
	if len(a.actions) == 0 {
		return refuse("there is no action in it that applies to anything")
	}
	return nil
}

// shortType is a type without its namespace.
func shortType(t types.EntityType) string {
	s := string(t)
	return s[strings.LastIndexByte(s, ':')+1:]
}

// readEntities reads and validates what the application knows.
func (a *Application) readEntities(text string) []Problem {
	if text == "" {
		return nil
	}
	refuse := func(err error) []Problem {
		return []Problem{{File: EntitiesFile, Message: err.Error(), Fix: "see docs/server.md for an example"}}
	}
	var any any
	if err := canon.Decode([]byte(text), &any, canon.Limits{Bytes: exeq.MaxConfigBytes, Depth: exeq.MaxDepth}); err != nil {
		return refuse(err) // Cedar's own reader takes the last of two
	}
	if err := a.entities.UnmarshalJSON([]byte(text)); err != nil {
		return refuse(err)
	}
	if err := a.validator.Entities(a.entities); err != nil {
		return refuse(err)
	}
	for uid := range a.entities {
		a.listed[uid.Type] = append(a.listed[uid.Type], uid)
	}
	for _, list := range a.listed {
		slices.SortFunc(list, compareUID)
	}
	return nil
}

// readRules parses and validates the policies.
func (a *Application) readRules(files map[string]string) (problems []Problem) {
	seen := map[string]bool{}
	for name, text := range files {
		if !strings.HasSuffix(name, cedarSuffix) {
			continue
		}
		rules, found := parseRules(name, text)
		problems = append(problems, found...)
		for _, r := range rules {
			if err := a.validator.Policy("", r.policy); err != nil {
				problems = append(problems, r.problem(err.Error(), "see "+SchemaFile+" for the types"))
			}
			if len(r.labels)+len(r.obligations) > 0 {
				problems = append(problems, r.problem("@label and @modify are about an execution, and nothing runs under an application's decision", "remove it"))
			}
			if seen[r.id] {
				problems = append(problems, r.problem("another policy has this id", "give each policy an id of its own"))
			}
			seen[r.id] = true
		}
		a.rules = append(a.rules, rules...)
	}
	if len(a.rules) == 0 && len(problems) == 0 {
		problems = append(problems, Problem{Message: "there is no policy in it", Fix: "an empty set permits nothing: write a permit in a .cedar file"})
	}
	slices.SortFunc(a.rules, func(x, y *rule) int { return strings.Compare(x.id, y.id) })
	return problems
}

// Digest covers the application's files, names included.
func (a *Application) Digest() exeq.Digest { return a.digest }

// Types are the names of the application's entity types, sorted.
func (a *Application) Types() []string { return slices.Sorted(maps.Keys(a.kinds)) }

// Decides reports whether the subject's type is one of the application's.
func (a *Application) Decides(e *authzen.Evaluation) bool {
	_, ok := a.kinds[e.Subject.Type]
	return ok
}

// Decide answers a complete evaluation. Beside an error, which says what of the
// request is not as the schema has it, the decision is a denial.
func (a *Application) Decide(ctx context.Context, e *authzen.Evaluation) (exeq.Decision, error) {
	deny := exeq.Decision{Verdict: exeq.Deny, Policies: []string{}, PolicySet: a.digest}
	if err := ctx.Err(); err != nil {
		return deny, err
	}
	q, err := a.question(e)
	if err != nil {
		deny.Reason = err.Error()
		return deny, err
	}
	o := q.evaluate()
	d, why := o.verdict(nil, nil)
	d.PolicySet, d.Reason = a.digest, worded(&d, why)
	return d, nil
}

// worded says in words, without values, how a decision fell.
func worded(d *exeq.Decision, why cause) string {
	by := strings.Join(d.Policies, ", ")
	switch why {
	case byPermit:
		return "permitted by " + by
	case byForbid:
		return "forbidden by " + by
	case byNeed:
		return fmt.Sprintf("forbidden by %s until there is %s", by, strings.Join(d.Needs, ", "))
	case byError:
		return "cannot be decided: an error in " + by
	}
	return "no policy permits it"
}

// evaluate asks Cedar about each rule once, forbids and permits apart.
func (q *question) evaluate() (o outcome) {
	ask := func(permit bool) (hold []*rule) {
		_, diag := cedar.Authorize(ofEffect{q.app.rules, permit}, q, q.request)
		for _, r := range q.app.rules {
			if slices.ContainsFunc(diag.Reasons, func(d types.DiagnosticReason) bool { return string(d.PolicyID) == r.id }) {
				hold = append(hold, r)
			}
			if slices.ContainsFunc(diag.Errors, func(d types.DiagnosticError) bool { return string(d.PolicyID) == r.id }) {
				o.errors = append(o.errors, r)
			}
		}
		return hold
	}
	o.forbids, o.permits = ask(false), ask(true)
	slices.SortFunc(o.errors, func(x, y *rule) int { return strings.Compare(x.id, y.id) })
	return o
}

// ofEffect is the rules of one effect.
type ofEffect struct {
	rules  []*rule
	permit bool
}

// All implements [cedar.PolicyIterator].
func (o ofEffect) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range o.rules {
			if r.permit == o.permit && !yield(cedar.PolicyID(r.id), r.full) {
				return
			}
		}
	}
}
