package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/exeq/exeq/api/authzen"
)

// stated is the annotation of what an enforcement point's word is taken for: an
// attribute whose value a request may state, or an entity type of which it may
// name those that are not listed.
const stated = "stated"

// actionMember is the member of a context that holds an action's properties.
const actionMember = "action"

// question is one evaluation in Cedar's terms. It is the entities as this
// request sees them.
type question struct {
	app     *Application
	request types.Request
	own     [2]types.Entity // subject and resource, with what was stated
}

// Get implements [types.EntityGetter].
func (q *question) Get(uid types.EntityUID) (types.Entity, bool) {
	for i := range q.own {
		if q.own[i].UID == uid {
			return q.own[i], true
		}
	}
	e, ok := q.app.entities[uid]
	return e, ok
}

// question holds the evaluation against the schema; nothing is left to what a
// policy would do about a missing or misfit value.
func (a *Application) question(e *authzen.Evaluation) (*question, error) {
	act, ok := a.actions[e.Action.Name]
	if !ok {
		return nil, fmt.Errorf("action.name: the application has no action %q", e.Action.Name)
	}
	q := &question{app: a}
	var err error
	if q.own[0], err = a.entity("subject", e.Subject); err != nil {
		return nil, err
	}
	if q.own[1], err = a.entity("resource", e.Resource); err != nil {
		return nil, err
	}
	if q.own[0].UID == q.own[1].UID { // one entity, of which both said something
		if !q.own[0].Attributes.Equal(q.own[1].Attributes) {
			return nil, fmt.Errorf("resource.properties: are not those of the subject, which is the same")
		}
	}
	given := maps.Clone(e.Context)
	delete(given, actionMember)
	if len(e.Action.Properties) > 0 {
		if given == nil {
			given = map[string]any{}
		}
		given[actionMember] = e.Action.Properties
	}
	c, err := record("context", act.AppliesTo.Context, given, nil)
	if err != nil {
		return nil, err
	}
	q.request = types.Request{Principal: q.own[0].UID, Action: act.Entity.UID, Resource: q.own[1].UID, Context: c}
	return q, a.validator.Request(q.request)
}

// entity gives what is known of an entity, with what the request states of it
// where the schema lets it.
func (a *Application) entity(at string, e *authzen.Entity) (types.Entity, error) {
	t, ok := a.kinds[e.Type]
	if !ok {
		return types.Entity{}, fmt.Errorf("%s.type: the application has no type %q", at, e.Type)
	}
	kind := a.schema.Entities[t]
	out, known := a.entities[types.NewEntityUID(t, types.String(e.ID))]
	if _, open := kind.Annotations[stated]; !known && !open {
		return out, fmt.Errorf("%s.id: the application knows no such %s, and takes nobody's word for one", at, e.Type)
	}
	if !known {
		out.UID = types.NewEntityUID(t, types.String(e.ID))
	}
	var err error
	out.Attributes, err = record(at+".properties", takes(kind), e.Properties, out.Attributes.All())
	if err != nil {
		return out, err
	}
	if err := a.validator.Entity(out); err != nil {
		return out, fmt.Errorf("%s: %w", at, err)
	}
	return out, nil
}

// takes is the attributes that a request may state.
func takes(kind resolved.Entity) resolved.RecordType {
	out := resolved.RecordType{}
	for name, attr := range kind.Shape {
		if _, ok := attr.Annotations[stated]; ok {
			out[name] = attr
		}
	}
	return out
}

// record makes a Cedar record of the members that the type has; others are
// passed over. What is known already stands, and may not be contradicted.
func record(at string, t resolved.RecordType, given map[string]any, known func(func(types.String, types.Value) bool)) (types.Record, error) {
	out := types.RecordMap{}
	if known != nil {
		out = maps.Collect(known)
	}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		v, ok := given[string(name)]
		if !ok {
			continue
		}
		at := at + "." + string(name)
		made, err := cedarValue(at, t[name].Type, v)
		if err != nil {
			return types.Record{}, err
		}
		if have, ok := out[name]; ok && !have.Equal(made) {
			return types.Record{}, fmt.Errorf("%s: contradicts what the application knows", at)
		}
		out[name] = made
	}
	return types.NewRecord(out), nil
}

// cedarValue makes a value of the type of a JSON value; values stay out of its
// errors.
func cedarValue(at string, t resolved.IsType, v any) (types.Value, error) {
	wrong := func(want string) (types.Value, error) { return nil, fmt.Errorf("%s: want %s", at, want) }
	switch t := t.(type) {
	case resolved.StringType:
		if s, ok := v.(string); ok {
			return types.String(s), nil
		}
		return wrong("a string")
	case resolved.BoolType:
		if b, ok := v.(bool); ok {
			return types.Boolean(b), nil
		}
		return wrong("a boolean")
	case resolved.LongType:
		if n, ok := v.(json.Number); ok {
			if i, err := n.Int64(); err == nil {
				return types.Long(i), nil
			}
		}
		return wrong("a whole number")
	case resolved.SetType:
		list, ok := v.([]any)
		if !ok {
			return wrong("an array")
		}
		var out []types.Value
		for i, x := range list {
			e, err := cedarValue(fmt.Sprintf("%s[%d]", at, i), t.Element, x)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		return types.NewSet(out...), nil
	case resolved.RecordType:
		m, ok := v.(map[string]any)
		if !ok {
			return wrong("an object")
		}
		return record(at, t, m, nil)
	case resolved.EntityType:
		id, ok := v.(string)
		if m, is := v.(map[string]any); is {
			id, ok = m["id"].(string)
			if name, _ := m["type"].(string); name != shortType(types.EntityType(t)) {
				ok = false
			}
		}
		if !ok {
			return wrong("the id of a " + shortType(types.EntityType(t)) + `, or {"type", "id"}`)
		}
		return types.NewEntityUID(types.EntityType(t), types.String(id)), nil
	case resolved.ExtensionType:
		if s, ok := v.(string); ok {
			if x, err := extension(string(t), s); err == nil {
				return x, nil
			}
		}
		return wrong("a string that spells a " + string(t))
	}
	return wrong("a type that the schema has and this version does not know")
}

// extension reads a value of one of Cedar's extension types.
func extension(t, s string) (types.Value, error) {
	switch t {
	case "ipaddr":
		return types.ParseIPAddr(s)
	case "decimal":
		return types.ParseDecimal(s)
	case "datetime":
		return types.ParseDatetime(s)
	case "duration":
		return types.ParseDuration(s)
	}
	return nil, fmt.Errorf("unknown extension type %s", t)
}
