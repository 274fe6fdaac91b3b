package policy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/exeq/exeq"
)

// lintValues finds comparisons with what a value never is, and conditions that
// contradict one another. In a forbid, and wherever a permit is widened by it,
// that fails open and refuses the set; else it is a warning.
func (r *rule) lintValues(labels map[string]bool) (problems []Problem) {
	program := !slices.ContainsFunc(r.actions, func(a string) bool { return vocabulary().actions[a].class != classProgram })
	for _, c := range r.policy.Conditions {
		polar(c.Body, c.Condition == ast.ConditionUnless, false, func(n ast.IsNode, negated bool) {
			what, why, fix := senseless(n, program)
			if what == "" {
				what, why, fix = unsetLabel(n, labels)
			}
			if what == "" {
				return
			}
			p := r.problem(why, fix)
			p.Line, p.Column = r.locateText(what)
			_, not := n.(ast.NodeTypeNotEquals)
			p.Warning = r.permit && !negated && !not
			problems = append(problems, p)
		})
	}
	negated := map[types.EntityUID]bool{}
	for _, c := range r.policy.Conditions {
		polar(c.Body, c.Condition == ast.ConditionUnless, false, func(n ast.IsNode, not bool) {
			_, ne := n.(ast.NodeTypeNotEquals)
			ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
				if u, ok := entityLiteral(n); ok && (not || ne) {
					negated[u] = true
				}
				return true
			})
		})
	}
	for _, u := range r.literals() {
		if fix := globFix(u); fix != "" {
			p := r.problem(fmt.Sprintf("%s: an id is no pattern, and this one matches only itself", u), fix)
			p.Line, p.Column = r.locate(u)
			p.Warning = r.permit && !negated[u]
			problems = append(problems, p)
		}
	}
	return problems
}

// lintContradiction finds conditions that no values satisfy together.
func (r *rule) lintContradiction() (problems []Problem) {
	goals := make([]goal, len(r.conjuncts))
	compared := false
	for i, c := range r.conjuncts {
		goals[i] = goal{c.node, c.negate}
		compared = compared || !isTrivial(c.node)
	}
	if !compared {
		return nil
	}
	if left := 256; satisfiable(goals, nil, &left) {
		return nil
	}
	p := r.problem("the conditions contradict one another, so the policy never holds", "no value meets them all: look at each comparison, and at && where || is meant")
	p.Warning = r.permit
	return []Problem{p}
}

// isTrivial spares the usual condition, a place alone, the search.
func isTrivial(n ast.IsNode) bool {
	_, ok := n.(ast.NodeTypeIn)
	return ok
}

// polar calls f for each comparison with whether its truth makes the whole
// less true; what can do both counts as that.
func polar(n ast.IsNode, negated, both bool, f func(n ast.IsNode, negated bool)) {
	switch t := n.(type) {
	case ast.NodeTypeAnd:
		polar(t.Left, negated, both, f)
		polar(t.Right, negated, both, f)
	case ast.NodeTypeOr:
		polar(t.Left, negated, both, f)
		polar(t.Right, negated, both, f)
	case ast.NodeTypeNot:
		polar(t.Arg, !negated, both, f)
	case ast.NodeTypeIfThenElse:
		polar(t.If, negated, true, f)
		polar(t.Then, negated, both, f)
		polar(t.Else, negated, both, f)
	default:
		f(n, negated || both)
	}
}

// globFix says how to write what a pattern in an entity's id seems to mean;
// "" where there is none. '[' alone is none: it stands in the names of routes.
func globFix(u types.EntityUID) string {
	id := string(u.ID)
	if !strings.ContainsAny(id, "*?") {
		return ""
	}
	switch u.Type {
	case typeHome, typeWorkspace, typeTmp, typePath, typeProgram:
		if rest, ok := strings.CutPrefix(id, "/home/*/"); ok && !strings.ContainsAny(rest, "*?") {
			return fmt.Sprintf("write resource in Exeq::Home::%q", rest)
		}
		cut := strings.LastIndexByte(id[:strings.IndexAny(id, "*?")], '/')
		dir := id[:max(cut, 0)]
		switch {
		case dir == "" && u.Type != typePath && u.Type != typeProgram:
			dir = "."
		case dir == "":
			dir = "/"
		}
		t := u.Type
		if t == typeProgram {
			t = typePath
		}
		return fmt.Sprintf("name the directory, which covers all that is in it: resource in %s::%q; or the places one by one", t, dir)
	case typeTool:
		server, _, _ := strings.Cut(id, "/")
		return fmt.Sprintf("write resource in Exeq::ToolServer::%q, or resource.name like \"…\"", server)
	case typeToolServer:
		return `write resource.server like "…"`
	}
	return ""
}

// unsetLabel finds a label that no permit of the set gives.
func unsetLabel(n ast.IsNode, labels map[string]bool) (what, why, fix string) {
	var left, right ast.IsNode
	switch t := n.(type) {
	case ast.NodeTypeContains:
		left, right = t.Left, t.Right
	case ast.NodeTypeContainsAny:
		left, right = t.Left, t.Right
	case ast.NodeTypeContainsAll:
		left, right = t.Left, t.Right
	}
	if left == nil || keyOf(left) != "context.session.labels" {
		return "", "", ""
	}
	for _, v := range constants(right) {
		if l, ok := v.(types.String); ok && !labels[string(l)] {
			known := "there is none in the set"
			if len(labels) > 0 {
				known = "the labels are " + strings.Join(slices.Sorted(maps.Keys(labels)), ", ")
			}
			return fmt.Sprintf("%q", string(l)), fmt.Sprintf("no permit sets the label %q, so a session never has it", string(l)),
				fmt.Sprintf("write @label(%q) on a permit, or the name of another label: %s", string(l), known)
		}
	}
	return "", "", ""
}

// keyOf gives the spelling of an attribute, as in "context.session.execs".
func keyOf(n ast.IsNode) string {
	switch t := n.(type) {
	case ast.NodeTypeVariable:
		return string(t.Name)
	case ast.NodeTypeAccess:
		if k := keyOf(t.Arg); k != "" {
			return k + "." + string(t.Value)
		}
	}
	return ""
}

// constants gives the values of a literal or of a set of them; nil where one
// is none.
func constants(n ast.IsNode) (out []types.Value) {
	switch t := n.(type) {
	case ast.NodeValue:
		set, ok := t.Value.(types.Set)
		if !ok {
			return []types.Value{t.Value}
		}
		for v := range set.All() {
			out = append(out, v)
		}
	case ast.NodeTypeSet:
		for _, e := range t.Elements {
			v, ok := e.(ast.NodeValue)
			if !ok {
				return nil
			}
			out = append(out, v.Value)
		}
	}
	return out
}

// tiers are the values of context.tier.
var tiers = []int64{int64(exeq.TierNested), int64(exeq.TierRootless), int64(exeq.TierKernelLite), int64(exeq.TierKernel)}

// rangeOf bounds a number; words say so.
func rangeOf(key string) (lo, hi int64, words string) {
	switch key {
	case "context.tier":
		return tiers[0], tiers[len(tiers)-1], "is one of 10 (nested), 20 (rootless), 30 (kernel-lite) and 40 (kernel)"
	case "context.risk":
		return 0, 100, "is 0 to 100"
	case "resource.port":
		return 1, 65535, "is 1 to 65535"
	}
	if strings.HasPrefix(key, "context.session.") {
		return 0, math.MaxInt64, "is never negative"
	}
	return math.MinInt64, math.MaxInt64, ""
}

// senseless finds a comparison that never holds, whatever stands beside it; of
// != the comparison that it negates. what is its place in the text.
func senseless(n ast.IsNode, program bool) (what, why, fix string) {
	_, ne := n.(ast.NodeTypeNotEquals)
	rel, ok := relationOf(n, ne)
	if !ok {
		return "", "", ""
	}
	if rel.op == "like" {
		text := string(rel.like.MarshalCedar())
		if why, fix = neverLike(rel.key, text[1:len(text)-1], program); why != "" {
			return text, fmt.Sprintf("%s is never like %s: %s", rel.key, text, why), fix
		}
		return "", "", ""
	}
	for _, v := range rel.values {
		switch v := v.(type) {
		case types.String:
			if why, fix = neverIs(rel.key, string(v), program); why != "" {
				return fmt.Sprintf("%q", string(v)), fmt.Sprintf("%s is never %q: %s", rel.key, string(v), why), fix
			}
		case types.Long:
			one := relation{key: rel.key, op: rel.op, values: []types.Value{v}}
			if _, _, words := rangeOf(rel.key); words != "" && !consistent([]relation{one}) {
				return rel.key, fmt.Sprintf("%s %s %d never holds: %s %s", rel.key, rel.op, v, rel.key, words), "compare with a value that it can have"
			}
		}
	}
	return "", "", ""
}

const hexDigits = "0123456789abcdef"

func hasOther(s, known string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(known, r) })
}

// neverIs says why a string attribute never has a value.
func neverIs(key, s string, program bool) (why, fix string) {
	switch key {
	case "resource.host":
		if err := checkHost(s); err != nil {
			return err.Error(), hostFix(s)
		}
	case "resource.sha256":
		if len(s) != 64 || hasOther(s, hexDigits) {
			return "it is 64 lower-case hexadecimal digits", "write what sha256sum prints"
		}
	case "resource.name":
		if program && strings.Contains(s, "/") {
			return "it is the last element of the path and has no slash", fmt.Sprintf("write %q, or resource == Exeq::Program::\"…\"", s[strings.LastIndexByte(s, '/')+1:])
		}
	case "resource.server":
		if s == "" || strings.Contains(s, "/") {
			return "the name of a server has no slash", "write what stands before the slash, and resource.name for what stands behind it"
		}
	}
	return "", ""
}

func hostFix(s string) string {
	if low := strings.ToLower(s); low != s && checkHost(low) == nil {
		return fmt.Sprintf("write %q", low)
	}
	return "write a host in lower case, without scheme, port or dot at the end; the port is resource.port"
}

// neverLike says why a string attribute never matches a pattern, given as it
// is written: each character but * must be one that the attribute can have.
func neverLike(key, pattern string, program bool) (why, fix string) {
	switch key {
	case "resource.host":
		const name, address = "abcdefghijklmnopqrstuvwxyz0123456789-_.*", hexDigits + ":.*"
		if hasOther(pattern, name) && hasOther(pattern, address) {
			return "hosts are lower case, without scheme and port", fmt.Sprintf("write %q; the port is resource.port", strings.ToLower(pattern))
		}
	case "resource.sha256":
		if hasOther(pattern, hexDigits+"*") {
			return "it is 64 lower-case hexadecimal digits", "write what sha256sum prints"
		}
	case "resource.name":
		if program && strings.Contains(pattern, "/") {
			return "it is the last element of the path and has no slash", fmt.Sprintf("write %q", pattern[strings.LastIndexByte(pattern, '/')+1:])
		}
	case "resource.server":
		if strings.Contains(pattern, "/") {
			return "the name of a server has no slash", "write resource.name for what stands behind it"
		}
	}
	return "", ""
}
