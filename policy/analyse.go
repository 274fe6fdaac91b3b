package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// deps is the set of inputs that an expression depends on.
type deps uint32

const (
	depTier deps = 1 << iota
	depRisk
	depClaimed
	depLabels // session.labels
	depCounts // the rest of session
	depCommand
	depArgs
	depWorkspace
	depHome
	depTmp
	depWhole    // the context record as one value
	depDigest   // resource.sha256
	depName     // resource.name
	depAddress  // resource.host, .port, .ip
	depResource // the resource by in, == or is: its place in the hierarchy
	depOdd      // the resource in any other way
)

const depSession = depLabels | depCounts

// contextDeps are those that the context record answers.
const contextDeps = depTier | depRisk | depClaimed | depSession | depCommand | depArgs | depWorkspace | depHome | depTmp | depWhole

// contextKeys are the members of the context record.
var contextKeys = map[types.String]deps{
	"tier": depTier, "risk": depRisk, "claimed": depClaimed, "session": depSession,
	"command": depCommand, "args": depArgs, "workspace": depWorkspace, "home": depHome, "tmp": depTmp,
}

// places maps a context member to the relative entity type that says the same.
var places = map[types.String]types.EntityType{"workspace": typeWorkspace, "home": typeHome, "tmp": typeTmp}

// class groups actions by what varies between requests on one resource.
type class int

const (
	classPath     class = iota // read, write
	classProgram               // run, exec
	classEndpoint              // connect
	classTool                  // call_tool
	numClasses
)

// varying says, for each class, on what a rule must not depend to be static:
// the same for every request on a resource while an execution lives.
var varying = [numClasses]deps{
	classPath:     depRisk | depSession | depWhole | depOdd,
	classProgram:  depRisk | depSession | depWhole | depOdd | depCommand | depArgs | depDigest | depName,
	classEndpoint: depRisk | depSession | depWhole | depOdd | depAddress | depResource,
	classTool:     ^deps(0),
}

// volatile says on what a decision for one given resource (with its digest)
// must not depend to hold for the execution's life.
var volatile = [numClasses]deps{
	classPath:     depRisk | depSession | depWhole,
	classProgram:  depRisk | depSession | depWhole | depCommand | depArgs,
	classEndpoint: depRisk | depSession | depWhole,
	classTool:     ^deps(0),
}

// conjunct is one part of a rule's conditions, all of which must hold.
type conjunct struct {
	node   ast.IsNode
	negate bool
	uses   deps
}

// analyse splits the conditions into conjuncts and compiles what is needed of
// them: the conditions that the index does not decide, those that are left to
// Cedar, and the residue for each class.
func (r *rule) analyse() {
	for _, c := range r.policy.Conditions {
		r.conjuncts = splitConjuncts(r.conjuncts, c.Body, c.Condition == ast.ConditionUnless)
	}
	// Up to the first conjunct that only Cedar knows none can err, so any that
	// is false decides. Behind it a false one could hide an error before it.
	asked := make([]bool, len(r.conjuncts))
	for i, c := range r.conjuncts {
		k := quickOf(c.node)
		if c.negate {
			k = not(k)
		}
		if k == nil {
			break
		}
		asked[i] = true
		r.quick = append(r.quick, k)
	}
	if r.indexed = r.indexedConjunct(); r.indexed >= 0 {
		r.quick = slices.Delete(r.quick, r.indexed, r.indexed+1)
	}
	for i, c := range r.conjuncts {
		r.uses |= c.uses
		if i != r.indexed {
			r.pending |= c.uses
			if !asked[i] {
				r.left |= c.uses
			}
		}
	}
	r.cond, _ = r.without(func(int, conjunct) bool { return false })
	r.rest, _ = r.without(func(i int, _ conjunct) bool { return asked[i] })
	for cl := range numClasses {
		r.residue[cl], r.varies[cl] = r.without(func(_ int, c conjunct) bool { return c.uses&varying[cl] != 0 })
		if !r.varies[cl] {
			r.residue[cl] = r.cond
		}
	}
}

// without compiles the conjuncts but those that are out, the indexed one left
// away: nil if there is none. left says that some were out.
func (r *rule) without(out func(i int, c conjunct) bool) (p *cedar.Policy, left bool) {
	rest := &ast.Policy{Effect: r.policy.Effect,
		Principal: ast.ScopeTypeAll{}, Action: ast.ScopeTypeAll{}, Resource: ast.ScopeTypeAll{}}
	for i, c := range r.conjuncts {
		switch {
		case out(i, c):
			left = true
		case i != r.indexed:
			rest.Conditions = append(rest.Conditions, ast.ConditionType{Condition: ast.Condition(!c.negate), Body: c.node})
		}
	}
	if len(rest.Conditions) == 0 {
		return nil, left
	}
	return newPolicy(rest), left
}

// indexedConjunct finds the condition that names places and so narrows as a
// scope does: it holds exactly for the resources that the index finds by its
// keys. None before it may err. -1: none, or the scope names a resource already.
func (r *rule) indexedConjunct() int {
	switch r.policy.Resource.(type) {
	case ast.ScopeTypeAll, ast.ScopeTypeIs:
	default:
		return -1
	}
	for i, k := range r.quick { // the first conjuncts
		c := r.conjuncts[i]
		if _, ok := placeKeys(nil, c.node); ok && !c.negate {
			return i
		}
		if slices.ContainsFunc(scopeActions(r.policy.Action), func(a string) bool { return !k.total(vocabulary().actions[a].class) }) {
			return -1
		}
	}
	return -1
}

func newPolicy(p *ast.Policy) *cedar.Policy { return cedar.NewPolicyFromAST((*cedarast.Policy)(p)) }

// splitConjuncts takes && apart, and || under a negation.
func splitConjuncts(out []conjunct, n ast.IsNode, negate bool) []conjunct {
	switch t := n.(type) {
	case ast.NodeTypeAnd:
		if !negate {
			return splitConjuncts(splitConjuncts(out, t.Left, false), t.Right, false)
		}
	case ast.NodeTypeOr:
		if negate {
			return splitConjuncts(splitConjuncts(out, t.Left, true), t.Right, true)
		}
	case ast.NodeTypeNot:
		return splitConjuncts(out, t.Arg, !negate)
	}
	return append(out, conjunct{node: n, negate: negate, uses: usesOf(n)})
}

// usesOf says on what an expression depends.
func usesOf(n ast.IsNode) deps {
	var u deps
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		switch t := n.(type) {
		case ast.NodeTypeVariable:
			switch t.Name {
			case "context":
				u |= depWhole
			case "resource":
				u |= depOdd
			}
		case ast.NodeTypeAccess:
			return member(&u, t.Arg, t.Value)
		case ast.NodeTypeHas:
			return member(&u, t.Arg, t.Value)
		case ast.NodeTypeIn:
			if isVariable(t.Left, "resource") && placeLike(t.Right) {
				u |= depResource | usesOf(t.Right)
				return false
			}
		case ast.NodeTypeEquals:
			return equality(&u, t.BinaryNode)
		case ast.NodeTypeNotEquals:
			return equality(&u, t.BinaryNode)
		case ast.NodeTypeIs:
			if isVariable(t.Left, "resource") {
				u |= depResource
				return false
			}
		case ast.NodeTypeIsIn:
			if isVariable(t.Left, "resource") && placeLike(t.Entity) {
				u |= depResource | usesOf(t.Entity)
				return false
			}
		}
		return true
	})
	return u
}

// member notes context.KEY, session.KEY and resource.KEY; it reports whether to look deeper.
func member(u *deps, arg ast.IsNode, key types.String) bool {
	switch {
	case isVariable(arg, "context"):
		if d, ok := contextKeys[key]; ok {
			*u |= d
		} else {
			*u |= depWhole
		}
		return false
	case isSession(arg):
		if key == "labels" {
			*u |= depLabels
		} else {
			*u |= depCounts
		}
		return false
	case isVariable(arg, "resource"):
		switch key {
		case "sha256":
			*u |= depDigest
		case "name":
			*u |= depName
		case "host", "port", "ip":
			*u |= depAddress
		default:
			*u |= depOdd
		}
		return false
	}
	return true
}

func equality(u *deps, b ast.BinaryNode) bool {
	for _, side := range [][2]ast.IsNode{{b.Left, b.Right}, {b.Right, b.Left}} {
		if isVariable(side[0], "resource") && placeLike(side[1]) {
			if _, ok := entityLiteral(side[1]); ok || isPlace(side[1]) {
				*u |= depResource | usesOf(side[1])
				return false
			}
		}
	}
	return true
}

func isSession(n ast.IsNode) bool {
	a, ok := n.(ast.NodeTypeAccess)
	return ok && a.Value == "session" && isVariable(a.Arg, "context")
}

func isVariable(n ast.IsNode, name types.String) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == name
}

// placeLike accepts what a resource may be compared with by position alone:
// entity literals and context.workspace, .home and .tmp, single or in a set.
func placeLike(n ast.IsNode) bool {
	if set, ok := n.(ast.NodeTypeSet); ok {
		return !slices.ContainsFunc(set.Elements, func(e ast.IsNode) bool {
			_, ok := entityLiteral(e)
			return !ok && !isPlace(e)
		})
	}
	_, ok := targets(n)
	return ok
}

// targets gives what placeLike accepts, a place as its relative entity:
// resource in context.home says the same as resource in Exeq::Home::".".
func targets(n ast.IsNode) ([]types.EntityUID, bool) {
	if us, ok := entityLiterals(n); ok {
		return us, true
	}
	if t, ok := placeOf(n); ok {
		return []types.EntityUID{{Type: t, ID: "."}}, true
	}
	set, ok := n.(ast.NodeTypeSet)
	if !ok {
		return nil, false
	}
	out := make([]types.EntityUID, len(set.Elements))
	for i, e := range set.Elements {
		if u, ok := entityLiteral(e); ok {
			out[i] = u
		} else if t, ok := placeOf(e); ok {
			out[i] = types.EntityUID{Type: t, ID: "."}
		} else {
			return nil, false
		}
	}
	return out, true
}

func isPlace(n ast.IsNode) bool { _, ok := placeOf(n); return ok }

func placeOf(n ast.IsNode) (types.EntityType, bool) {
	a, ok := n.(ast.NodeTypeAccess)
	if !ok || !isVariable(a.Arg, "context") {
		return "", false
	}
	t, ok := places[a.Value]
	return t, ok
}

func entityLiteral(n ast.IsNode) (types.EntityUID, bool) {
	v, ok := n.(ast.NodeValue)
	if !ok {
		return types.EntityUID{}, false
	}
	u, ok := v.Value.(types.EntityUID)
	return u, ok
}

// entityLiterals accepts one entity literal or a set of them.
func entityLiterals(n ast.IsNode) ([]types.EntityUID, bool) {
	if u, ok := entityLiteral(n); ok {
		return []types.EntityUID{u}, true
	}
	switch t := n.(type) {
	case ast.NodeTypeSet:
		for _, e := range t.Elements {
			if _, ok := entityLiteral(e); !ok {
				return nil, false
			}
		}
		out := make([]types.EntityUID, len(t.Elements))
		for i, e := range t.Elements {
			out[i], _ = entityLiteral(e)
		}
		return out, true
	case ast.NodeValue:
		set, ok := t.Value.(types.Set)
		if !ok {
			return nil, false
		}
		var out []types.EntityUID
		for v := range set.All() {
			u, ok := v.(types.EntityUID)
			if !ok {
				return nil, false
			}
			out = append(out, u)
		}
		return out, true
	}
	return nil, false
}

// literals gives every entity literal of the rule, scope and conditions.
func (r *rule) literals() []types.EntityUID {
	var out []types.EntityUID
	for _, s := range []ast.IsScopeNode{r.policy.Principal, r.policy.Resource} {
		switch t := s.(type) {
		case ast.ScopeTypeEq:
			out = append(out, t.Entity)
		case ast.ScopeTypeIn:
			out = append(out, t.Entity)
		case ast.ScopeTypeIsIn:
			out = append(out, t.Entity)
		}
	}
	for _, c := range r.policy.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if us, ok := entityLiterals(n); ok {
				out = append(out, us...)
				return false
			}
			return true
		})
	}
	return out
}
