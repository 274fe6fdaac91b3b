package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// truth is three-valued.
type truth int8

const (
	isFalse truth = -1
	unknown truth = 0
	isTrue  truth = 1
)

// neverTrue reports that no request satisfies the rule: judged for each action
// and type of principal by literals and entity types alone, so it may miss a
// contradiction and never finds one that is not there.
func (r *rule) neverTrue() bool {
	for _, name := range r.actions {
		for _, pt := range []types.EntityType{typeAgent, typeUser} {
			j := judge{principal: pt, resource: vocabulary().actions[name].resource}
			if j.scope(r.policy.Principal, pt) == isFalse || j.scope(r.policy.Resource, j.resource) == isFalse {
				continue
			}
			if !slices.ContainsFunc(r.conjuncts, func(c conjunct) bool {
				v := j.eval(c.node)
				return c.negate && v == isTrue || !c.negate && v == isFalse
			}) && !contradictory(r) {
				return false
			}
		}
	}
	return true
}

// contradictory finds a resource that would have to equal two literals.
func contradictory(r *rule) bool {
	var want []types.EntityUID
	if eq, ok := r.policy.Resource.(ast.ScopeTypeEq); ok {
		want = append(want, eq.Entity)
	}
	for _, c := range r.conjuncts {
		eq, ok := c.node.(ast.NodeTypeEquals)
		if !ok || c.negate {
			continue
		}
		for _, side := range [][2]ast.IsNode{{eq.Left, eq.Right}, {eq.Right, eq.Left}} {
			if u, ok := entityLiteral(side[1]); ok && isVariable(side[0], "resource") {
				want = append(want, u)
			}
		}
	}
	return slices.ContainsFunc(want, func(u types.EntityUID) bool { return u != want[0] })
}

// judge evaluates an expression knowing only the types of the variables.
type judge struct{ principal, resource types.EntityType }

func (j judge) scope(s ast.IsScopeNode, t types.EntityType) truth {
	above := vocabulary().ancestors[t]
	ok := true
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		ok = s.Entity.Type == t
	case ast.ScopeTypeIn:
		ok = slices.Contains(above, s.Entity.Type)
	case ast.ScopeTypeIs:
		ok = s.Type == t
	case ast.ScopeTypeIsIn:
		ok = s.Type == t && slices.Contains(above, s.Entity.Type)
	}
	if !ok {
		return isFalse
	}
	return unknown
}

func (j judge) eval(n ast.IsNode) truth {
	switch t := n.(type) {
	case ast.NodeValue:
		if b, ok := t.Value.(types.Boolean); ok {
			if b {
				return isTrue
			}
			return isFalse
		}
	case ast.NodeTypeNot:
		return -j.eval(t.Arg)
	case ast.NodeTypeAnd:
		return min(j.eval(t.Left), j.eval(t.Right))
	case ast.NodeTypeOr:
		return max(j.eval(t.Left), j.eval(t.Right))
	case ast.NodeTypeIfThenElse:
		switch j.eval(t.If) {
		case isTrue:
			return j.eval(t.Then)
		case isFalse:
			return j.eval(t.Else)
		}
	case ast.NodeTypeIs:
		if vt, ok := j.typeOf(t.Left); ok {
			if vt == t.EntityType {
				return isTrue
			}
			return isFalse
		}
	case ast.NodeTypeIsIn:
		if vt, ok := j.typeOf(t.Left); ok {
			if vt != t.EntityType {
				return isFalse
			}
			return j.in(vt, t.Entity)
		}
	case ast.NodeTypeIn:
		if vt, ok := j.typeOf(t.Left); ok {
			return j.in(vt, t.Right)
		}
	case ast.NodeTypeEquals:
		return j.equal(t.BinaryNode)
	case ast.NodeTypeNotEquals:
		return -j.equal(t.BinaryNode)
	case ast.NodeTypeContains:
		if set, ok := t.Left.(ast.NodeTypeSet); ok && len(set.Elements) == 0 {
			return isFalse
		}
	}
	return unknown
}

func (j judge) typeOf(n ast.IsNode) (types.EntityType, bool) {
	switch {
	case isVariable(n, "principal"):
		return j.principal, true
	case isVariable(n, "resource"):
		return j.resource, true
	}
	return "", false
}

func (j judge) in(t types.EntityType, n ast.IsNode) truth {
	us, ok := entityLiterals(n)
	if ok && !slices.ContainsFunc(us, func(u types.EntityUID) bool { return slices.Contains(vocabulary().ancestors[t], u.Type) }) {
		return isFalse
	}
	return unknown
}

func (j judge) equal(b ast.BinaryNode) truth {
	for _, side := range [][2]ast.IsNode{{b.Left, b.Right}, {b.Right, b.Left}} {
		vt, ok := j.typeOf(side[0])
		if u, lit := entityLiteral(side[1]); ok && lit && u.Type != vt {
			return isFalse
		}
	}
	return unknown
}
