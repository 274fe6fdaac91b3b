package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// index finds the rules whose scope a request matches, exactly: action, then
// resource, then principal. Groups are expanded when it is built; a path is
// looked up once for each of its directories. What it finds needs only the
// rest of its conditions evaluated. A test holds it equal to a linear scan.
type index map[*action]*actionIndex

type actionIndex struct {
	any   bucket
	equal map[string]*bucket
	// in holds rules for what lies in an entity, by its type and id.
	in map[types.EntityType]map[string]*bucket
	// spread: a rule stands under several keys, so hits may repeat.
	spread bool
}

// bucket holds the rules of one resource key by principal.
type bucket struct {
	any  []int32
	is   map[types.EntityType][]int32
	byID map[types.EntityUID][]grant
}

// grant is a rule about one principal or group; is narrows it to a type.
type grant struct {
	rule int32
	is   types.EntityType // empty: any
}

func buildIndex(rules []*rule) index {
	ix := index{}
	for i, r := range rules {
		for _, name := range r.actions {
			a := vocabulary().actions[name]
			keys, all := resourceKeys(r, a.resource)
			if !all && len(keys) == 0 {
				continue // another type of resource
			}
			ai := ix[a]
			if ai == nil {
				ai = &actionIndex{equal: map[string]*bucket{}, in: map[types.EntityType]map[string]*bucket{}}
				ix[a] = ai
			}
			ai.spread = ai.spread || len(keys) > 1
			if all {
				ai.any.add(r, int32(i))
			}
			for _, k := range keys {
				ai.at(k).add(r, int32(i))
			}
		}
	}
	return ix
}

// resourceKey is where a rule stands: under what lies in an entity, or under
// the entity alone.
type resourceKey struct {
	uid types.EntityUID
	in  bool
}

func (ai *actionIndex) at(k resourceKey) *bucket {
	m := ai.equal
	if k.in {
		if m = ai.in[k.uid.Type]; m == nil {
			m = map[string]*bucket{}
			ai.in[k.uid.Type] = m
		}
	}
	b := m[string(k.uid.ID)]
	if b == nil {
		b = &bucket{}
		m[string(k.uid.ID)] = b
	}
	return b
}

// resourceKeys gives the keys under which a rule is found for a type of
// resource, or all.
func resourceKeys(r *rule, t types.EntityType) (keys []resourceKey, all bool) {
	switch s := r.policy.Resource.(type) {
	case ast.ScopeTypeEq:
		if s.Entity.Type != t {
			return nil, false
		}
		return []resourceKey{{uid: s.Entity}}, false
	case ast.ScopeTypeIn:
		return []resourceKey{{s.Entity, true}}, false
	case ast.ScopeTypeIsIn:
		if s.Type != t {
			return nil, false
		}
		return []resourceKey{{s.Entity, true}}, false
	case ast.ScopeTypeIs:
		if s.Type != t {
			return nil, false
		}
	}
	if r.indexed < 0 {
		return nil, true
	}
	keys, _ = placeKeys(nil, r.conjuncts[r.indexed].node)
	return slices.DeleteFunc(keys, func(k resourceKey) bool { return !k.in && k.uid.Type != t }), false
}

// placeKeys reads resource in X, resource == X, and such joined by ||.
func placeKeys(keys []resourceKey, n ast.IsNode) ([]resourceKey, bool) {
	switch t := n.(type) {
	case ast.NodeTypeOr:
		left, ok := placeKeys(keys, t.Left)
		if !ok {
			return nil, false
		}
		return placeKeys(left, t.Right)
	case ast.NodeTypeIn:
		us, ok := targets(t.Right)
		if !isVariable(t.Left, "resource") || !ok {
			return nil, false
		}
		for _, u := range us {
			keys = append(keys, resourceKey{u, true})
		}
		return keys, true
	case ast.NodeTypeEquals:
		if u, ok := entityLiteral(t.Right); ok && isVariable(t.Left, "resource") {
			return append(keys, resourceKey{uid: u}), true
		}
	}
	return nil, false
}

func (b *bucket) add(r *rule, i int32) {
	byID := func(u types.EntityUID, is types.EntityType) {
		if b.byID == nil {
			b.byID = map[types.EntityUID][]grant{}
		}
		b.byID[u] = append(b.byID[u], grant{i, is})
	}
	switch s := r.policy.Principal.(type) {
	case ast.ScopeTypeAll:
		b.any = append(b.any, i)
	case ast.ScopeTypeIs:
		if b.is == nil {
			b.is = map[types.EntityType][]int32{}
		}
		b.is[s.Type] = append(b.is[s.Type], i)
	case ast.ScopeTypeEq:
		byID(s.Entity, s.Entity.Type)
	case ast.ScopeTypeIn:
		byID(s.Entity, "")
	case ast.ScopeTypeIsIn:
		byID(s.Entity, s.Type)
	}
}

// find puts the rules that match the query's scope into q.found, ascending
// (the rules stand sorted by id) and without repeats.
func (ix index) find(q *query) {
	q.found = q.room[:0]
	ai := ix[q.action]
	if ai == nil {
		return
	}
	ai.any.find(q)
	id := string(q.resource.ID)
	if b := ai.equal[id]; b != nil {
		b.find(q)
	}
	if len(ai.in) > 0 {
		var last types.EntityType
		m := ai.in[q.resource.Type]
		if last = q.resource.Type; m != nil {
			if b := m[id]; b != nil {
				b.find(q)
			}
		}
		q.above(func(t types.EntityType, id string) {
			if t != last {
				last, m = t, ai.in[t]
			}
			if m != nil {
				if b := m[id]; b != nil {
					b.find(q)
				}
			}
		})
	}
	slices.Sort(q.found)
	if ai.spread {
		q.found = slices.Compact(q.found)
	}
}

func (b *bucket) find(q *query) {
	q.found = append(q.found, b.any...)
	if b.is != nil {
		q.found = append(q.found, b.is[q.principal.uid.Type]...)
	}
	if b.byID == nil {
		return
	}
	for i, u := range q.principal.ancestors {
		for _, m := range b.byID[u] {
			// == names the principal itself, never a group above it.
			if m.is == "" || m.is == q.principal.uid.Type && (i == 0 || m.is != u.Type) {
				q.found = append(q.found, m.rule)
			}
		}
	}
}
