package policy

import (
	"reflect"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// relation is a comparison of an attribute with literals.
type relation struct {
	key    string
	op     string // "<", "<=", ">", ">=", "==", "like"; "==" with several values is any of them
	not    bool
	values []types.Value
	like   types.Pattern
}

// relationOf reads a comparison; false where it is another expression.
func relationOf(n ast.IsNode, negated bool) (relation, bool) {
	binary := func(b ast.BinaryNode, op, flipped string, not bool) (relation, bool) {
		if k := keyOf(b.Left); k != "" {
			if vs := constants(b.Right); len(vs) == 1 {
				return relation{key: k, op: op, not: not, values: vs}, true
			}
		}
		if k := keyOf(b.Right); k != "" {
			if vs := constants(b.Left); len(vs) == 1 {
				return relation{key: k, op: flipped, not: not, values: vs}, true
			}
		}
		return relation{}, false
	}
	switch t := n.(type) {
	case ast.NodeTypeLessThan:
		return binary(t.BinaryNode, "<", ">", negated)
	case ast.NodeTypeLessThanOrEqual:
		return binary(t.BinaryNode, "<=", ">=", negated)
	case ast.NodeTypeGreaterThan:
		return binary(t.BinaryNode, ">", "<", negated)
	case ast.NodeTypeGreaterThanOrEqual:
		return binary(t.BinaryNode, ">=", "<=", negated)
	case ast.NodeTypeEquals:
		return binary(t.BinaryNode, "==", "==", negated)
	case ast.NodeTypeNotEquals:
		return binary(t.BinaryNode, "==", "==", !negated)
	case ast.NodeTypeContains:
		if k, vs := keyOf(t.Right), constants(t.Left); k != "" && len(vs) > 0 {
			return relation{key: k, op: "==", not: negated, values: vs}, true
		}
	case ast.NodeTypeLike:
		if k := keyOf(t.Arg); k != "" {
			return relation{key: k, op: "like", not: negated, like: t.Value}, true
		}
	}
	return relation{}, false
}

// goal is an expression that must hold, or must not.
type goal struct {
	node    ast.IsNode
	negated bool
}

// satisfiable reports whether values may exist for which each goal holds and
// each comparison in have does: it may miss a contradiction (left counts down
// the cases looked at) and never finds one that is not there.
func satisfiable(goals, have []goal, left *int) bool {
	for len(goals) > 0 {
		g := goals[len(goals)-1]
		goals = goals[: len(goals)-1 : len(goals)-1]
		var a, b ast.IsNode
		all := false
		switch t := g.node.(type) {
		case ast.NodeTypeNot:
			goals = append(goals, goal{t.Arg, !g.negated})
			continue
		case ast.NodeValue:
			if v, ok := t.Value.(types.Boolean); ok && bool(v) == g.negated {
				return false
			}
			continue
		case ast.NodeTypeAnd:
			a, b, all = t.Left, t.Right, !g.negated
		case ast.NodeTypeOr:
			a, b, all = t.Left, t.Right, g.negated
		case ast.NodeTypeIfThenElse:
			return satisfiable(append(goals, goal{t.If, false}, goal{t.Then, g.negated}), have, left) ||
				satisfiable(append(goals, goal{t.If, true}, goal{t.Else, g.negated}), have, left)
		default:
			have = append(have[:len(have):len(have)], g)
			continue
		}
		if all {
			goals = append(goals, goal{a, g.negated}, goal{b, g.negated})
			continue
		}
		return satisfiable(append(goals, goal{a, g.negated}), have, left) || satisfiable(append(goals, goal{b, g.negated}), have, left)
	}
	if *left--; *left < 0 || len(have) > 64 {
		return true
	}
	var rels []relation
	for i, g := range have {
		if rel, ok := relationOf(g.node, g.negated); ok {
			rels = append(rels, rel)
			continue
		}
		for _, other := range have[:i] {
			if g.negated != other.negated && reflect.DeepEqual(g.node, other.node) {
				return false
			}
		}
	}
	return consistent(rels)
}

// consistent reports whether one value of each attribute may meet its relations.
func consistent(rels []relation) bool {
	for i, rel := range rels {
		if slices.ContainsFunc(rels[:i], func(r relation) bool { return r.key == rel.key }) {
			continue
		}
		same := slices.Clone(rels[i:])
		same = slices.DeleteFunc(same, func(r relation) bool { return r.key != rel.key })
		if !consistentNumber(rel.key, same) || !consistentText(same) {
			return false
		}
	}
	return true
}

func consistentNumber(key string, rels []relation) bool {
	lo, hi, _ := rangeOf(key)
	var candidates []int64 // nil: all from lo to hi
	if key == "context.tier" {
		candidates = tiers
	}
	holds := func(r relation, x int64) bool {
		in := false
		for _, v := range r.values {
			n, ok := v.(types.Long)
			if !ok {
				return true
			}
			switch r.op {
			case "<":
				in = in || x < int64(n)
			case "<=":
				in = in || x <= int64(n)
			case ">":
				in = in || x > int64(n)
			case ">=":
				in = in || x >= int64(n)
			case "==":
				in = in || x == int64(n)
			default:
				return true
			}
		}
		return in != r.not
	}
	if candidates == nil {
		// Between the literals nothing changes: the ends, each literal and its
		// neighbours stand for all.
		candidates = []int64{lo, hi}
		for _, r := range rels {
			for _, v := range r.values {
				n, ok := v.(types.Long)
				if !ok {
					return true
				}
				// An overflow gives one more candidate, which is still a number.
				for _, x := range [...]int64{int64(n), int64(n) - 1, int64(n) + 1} {
					if x >= lo && x <= hi {
						candidates = append(candidates, x)
					}
				}
			}
			if r.op == "like" {
				return true
			}
		}
	}
	return slices.ContainsFunc(candidates, func(x int64) bool {
		return !slices.ContainsFunc(rels, func(r relation) bool { return !holds(r, x) })
	})
}

// consistentText looks at attributes that must equal a string: another fits
// only where nothing else says otherwise.
func consistentText(rels []relation) bool {
	at := slices.IndexFunc(rels, func(r relation) bool { return r.op == "==" && !r.not })
	if at < 0 {
		return true
	}
	return slices.ContainsFunc(rels[at].values, func(v types.Value) bool {
		s, ok := v.(types.String)
		if !ok {
			return true
		}
		return !slices.ContainsFunc(rels, func(r relation) bool {
			in := false
			switch r.op {
			case "like":
				in = r.like.Match(s)
			case "==":
				in = slices.ContainsFunc(r.values, func(v types.Value) bool { return v.Equal(s) })
			default:
				return false
			}
			return in == r.not
		})
	})
}
