package policy

import (
	_ "embed"
	"maps"
	"slices"
	"sync"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/exeq/exeq"
)

// Schema is the Cedar schema that every policy is validated against.
//
//go:embed schema.cedarschema
var Schema string

const namespace = "Exeq::"

const (
	typeTeam       types.EntityType = namespace + "Team"
	typeUser       types.EntityType = namespace + "User"
	typeAgent      types.EntityType = namespace + "Agent"
	typeNode       types.EntityType = namespace + "Node"
	typeWorkspace  types.EntityType = namespace + "Workspace"
	typeHome       types.EntityType = namespace + "Home"
	typeTmp        types.EntityType = namespace + "Tmp"
	typePath       types.EntityType = namespace + "Path"
	typeProgram    types.EntityType = namespace + "Program"
	typeDomain     types.EntityType = namespace + "Domain"
	typeEndpoint   types.EntityType = namespace + "Endpoint"
	typeToolServer types.EntityType = namespace + "ToolServer"
	typeTool       types.EntityType = namespace + "Tool"
	typeAction     types.EntityType = namespace + "Action"
)

// action is one leaf action of the schema.
type action struct {
	name     string
	uid      types.EntityUID
	text     string // as a policy writes it
	resource types.EntityType
	class    class
	entity   types.Entity
}

var classOf = map[types.EntityType]class{
	typePath: classPath, typeProgram: classProgram, typeEndpoint: classEndpoint, typeTool: classTool,
}

// words is the resolved schema with what is derived from it.
type words struct {
	validator *validate.Validator
	actions   map[string]*action // leaf actions by name
	groups    map[types.EntityUID][]string
	names     []string // of leaf actions, sorted
	ancestors map[types.EntityType][]types.EntityType

	read, write, exec, connect *action
}

// vocabulary is made at first use: commands that need no policy do not wait
// for it. The embedded text is part of the program, so a fault in it is a
// programming error.
var vocabulary = sync.OnceValue(func() *words {
	v := &words{actions: map[string]*action{}, groups: map[types.EntityUID][]string{}}
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema)); err != nil {
		panic(err)
	}
	rs, err := s.Resolve()
	if err != nil {
		panic(err)
	}
	v.validator = validate.New(rs, validate.WithStrict())
	for uid, a := range rs.Actions {
		if a.AppliesTo == nil {
			continue
		}
		res := a.AppliesTo.Resources[0]
		v.actions[string(uid.ID)] = &action{name: string(uid.ID), uid: uid, text: uid.String(), resource: res, class: classOf[res], entity: a.Entity}
		for p := range a.Entity.Parents.All() {
			v.groups[p] = append(v.groups[p], string(uid.ID))
		}
	}
	v.names = slices.Sorted(maps.Keys(v.actions))
	v.ancestors = ancestorTypes(rs)
	v.read, v.write, v.exec, v.connect = v.actions[exeq.ActionRead], v.actions[exeq.ActionWrite], v.actions[exeq.ActionExec], v.actions[exeq.ActionConnect]
	return v
})

// ancestorTypes gives, for each entity type, the types that may be above it,
// its own included.
func ancestorTypes(rs *resolved.Schema) map[types.EntityType][]types.EntityType {
	out := map[types.EntityType][]types.EntityType{}
	for t := range rs.Entities {
		seen := []types.EntityType{t}
		for i := 0; i < len(seen); i++ {
			for _, p := range rs.Entities[seen[i]].ParentTypes {
				if !slices.Contains(seen, p) {
					seen = append(seen, p)
				}
			}
		}
		out[t] = seen
	}
	return out
}
