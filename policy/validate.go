package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// maxGroup bounds how many rules are validated as one, so that a large set
// still keeps all processors busy.
const maxGroup = 32

// byScope puts rules of the same scope together, in the order of the rules.
func byScope(rules []*rule) (groups [][]*rule) {
	type scope struct {
		principal ast.IsPrincipalScopeNode
		resource  ast.IsResourceScopeNode
		action    string
	}
	at := map[scope]int{}
	for _, r := range rules {
		k := scope{r.policy.Principal, r.policy.Resource, actionText(r.policy.Action)}
		i, ok := at[k]
		if !ok || len(groups[i]) == maxGroup {
			i = len(groups)
			at[k] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// actionText spells an action scope; two that are spelled alike are the same.
func actionText(s ast.IsActionScopeNode) string {
	switch t := s.(type) {
	case ast.ScopeTypeEq:
		return "== " + t.Entity.String()
	case ast.ScopeTypeIn:
		return "in " + t.Entity.String()
	case ast.ScopeTypeInSet:
		text := "in ["
		for _, u := range t.Entities {
			text += u.String() + ","
		}
		return text
	}
	return ""
}

// valid reports whether each of the rules, which have one scope, would pass
// [rule.validate]. Cedar's validator makes the types of a scope anew for each
// policy, and types each condition by itself: so one policy with the conditions
// of all passes exactly if each does, at the price of one. What does not pass
// is validated rule by rule, as written.
func valid(rules []*rule) bool {
	all := *rules[0].policy
	all.Conditions = nil
	for _, r := range rules {
		for _, c := range r.policy.Conditions {
			c.Body = shortened(c.Body)
			all.Conditions = append(all.Conditions, c)
		}
	}
	return vocabulary().validator.Policy("", &all) == nil
}

// shortened is the expression with one literal for each list of literals of
// one type behind `in`, which is all that its type depends on: an entity
// literal has the type that it names, whatever its id. Two things ask for more
// and are left alone: actions, whose ids the schema lists, and what stands under
// `has` or an access, where the validator compares expressions with one another.
func shortened(n ast.IsNode) ast.IsNode {
	switch t := n.(type) {
	case ast.NodeTypeAnd:
		t.Left, t.Right = shortened(t.Left), shortened(t.Right)
		return t
	case ast.NodeTypeOr:
		t.Left, t.Right = shortened(t.Left), shortened(t.Right)
		return t
	case ast.NodeTypeNot:
		t.Arg = shortened(t.Arg)
		return t
	case ast.NodeTypeIn:
		if set, ok := t.Right.(ast.NodeTypeSet); ok && ofOneType(set.Elements) {
			set.Elements = set.Elements[:1]
			t.Right = set
			return t
		}
	}
	return n
}

// ofOneType tells a list of literals of one entity type that the schema knows.
func ofOneType(list []ast.IsNode) bool {
	var one types.EntityType
	for i, e := range list {
		u, ok := entityLiteral(e)
		if !ok || i > 0 && u.Type != one {
			return false
		}
		one = u.Type
	}
	_, known := vocabulary().ancestors[one] // which has no actions
	return known
}

// validate runs Cedar's strict validator; its error order is random, ours is not.
func (r *rule) validate() (problems []Problem) {
	err := vocabulary().validator.Policy("", r.policy)
	if err == nil {
		return nil
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line != "" {
			problems = append(problems, r.problem(line, validationFix(line)))
		}
	}
	sortProblems(problems)
	return slices.Compact(problems)
}

// validationFix says what to write, for the mistakes that people make.
func validationFix(message string) string {
	switch {
	case strings.Contains(message, "applicable action"):
		return "run and exec take an Exeq::Program, read and write an Exeq::Path, connect an Exeq::Endpoint, call_tool an Exeq::Tool; " +
			"of places, resource in Exeq::Path, Exeq::Workspace, Exeq::Home or Exeq::Tmp"
	case strings.Contains(message, "unrecognized action"):
		return "the actions are " + strings.Join(vocabulary().names, ", ") + " and the group activity, as in Exeq::Action::\"read\""
	case strings.Contains(message, "unrecognized entity type"):
		return "the types are " + strings.Join(typeNames(), ", ")
	case strings.Contains(message, "optional attribute"):
		return "ask first, as in context.claimed has intent && context.claimed.intent == \"…\""
	case strings.Contains(message, "not found"):
		return "the context has " + strings.Join(contextNames(), ", ") + "; see docs/policy.md"
	}
	return "see docs/policy.md for the types of the schema"
}

func typeNames() []string {
	var out []string
	for t := range vocabulary().ancestors {
		out = append(out, string(t))
	}
	slices.Sort(out)
	return out
}

func contextNames() []string {
	var out []string
	for k := range maps.Keys(contextKeys) {
		out = append(out, string(k))
	}
	slices.Sort(out)
	return out
}
