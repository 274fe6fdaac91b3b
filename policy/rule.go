package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// rule is one policy of a loaded set.
type rule struct {
	id           string
	file         string
	line, column int
	text         string
	permit       bool
	policy       *ast.Policy
	// full is the policy as written; cond the conditions that are left once
	// the index has decided scope and places, nil when there is none.
	full, cond *cedar.Policy
	actions    []string // leaf actions that its scope covers, sorted

	allowed string // the words of a decision that it alone makes

	resolve     string   // "step_up:GROUP", "defer:WHAT" or ""
	labels      []string // sorted
	obligations []string // sorted

	conjuncts []conjunct
	indexed   int  // the conjunct that the index decides; -1: none
	uses      deps // of all conditions
	pending   deps // of those that the index does not decide
	// quick are the conditions that need no Cedar, rest (nil: none) those
	// besides, which depend on left.
	quick []*quick
	rest  *cedar.Policy
	left  deps
	// residue holds, for each class, the conditions that do not depend on
	// what varies there; nil when none is left. See bound.go.
	residue [numClasses]*cedar.Policy
	varies  [numClasses]bool // some conjunct was left out of the residue
}

// parseRules parses one file of a set.
func parseRules(file, text string) (rules []*rule, problems []Problem) {
	stmts, problems := splitStatements(file, text)
	parsed := make([]*rule, len(stmts))
	found := make([][]Problem, len(stmts))
	parallel(len(stmts), func(i int) { parsed[i], found[i] = parseRule(file, stmts[i]) })
	for i, r := range parsed {
		if problems = append(problems, found[i]...); r != nil {
			rules = append(rules, r)
		}
	}
	return rules, problems
}

// parseRule parses one policy; nil where it does not parse.
func parseRule(file string, st statement) (*rule, []Problem) {
	r := &rule{file: file, line: st.line, column: st.column, text: st.text}
	list, err := cedar.NewPolicyListFromBytes(file, []byte(st.text))
	if err != nil {
		return nil, []Problem{parseProblem(r, err)}
	}
	if len(list) != 1 {
		return nil, []Problem{r.problem("the statement holds no policy", "remove the stray ;")}
	}
	r.full, r.policy = list[0], (*ast.Policy)(list[0].AST())
	r.permit = r.policy.Effect == ast.EffectPermit
	problems := r.annotate()
	r.analyse()
	return r, problems
}

// problem makes a problem at the rule's place.
func (r *rule) problem(message, fix string) Problem {
	return Problem{File: r.file, Line: r.line, Column: r.column, Policy: r.id, Message: message, Fix: fix}
}

var errorPlace = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`<input>:(\d+):(\d+):?\s*(.*)`)
})

// parseProblem moves the parser's position from the statement to the file.
func parseProblem(r *rule, err error) Problem {
	p, fix := r.problem(strings.TrimPrefix(err.Error(), "parser error: "), ""), ""
	if m := errorPlace().FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		col, _ := strconv.Atoi(m[2])
		at := col - 1 // in the statement
		for l := range strings.Lines(r.text) {
			if line--; line == 0 {
				break
			}
			at += len(l)
		}
		fix = mistakeFix(m[3], r.text, at)
		line, _ = strconv.Atoi(m[1])
		if line == 1 {
			col += r.column - 1
		}
		p.Line, p.Column = r.line+line-1, col
		p.Message = "does not parse: " + m[3]
	}
	p.Fix = cmp.Or(fix, "see docs/policy.md for the grammar and an example")
	return p
}

// ruleName accepts ^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$. By hand, for this and
// its likes as regular expressions cost every start a few milliseconds.
func ruleName(s string) bool { return isName(s, 128, "", "._/-") }

// shortName accepts ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$.
func shortName(s string) bool { return isName(s, 64, "", "._-") }

// isName accepts 1 to most ASCII letters and digits; first lists what else may
// stand at the beginning, rest what else behind it.
func isName(s string, most int, first, rest string) bool {
	for i := range len(s) {
		c, also := s[i], rest
		if i == 0 {
			also = first
		}
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(also, c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// annotate reads the annotations; an unknown key, an empty value or a key on
// the wrong effect would drop what its writer meant, so each is an error.
func (r *rule) annotate() (problems []Problem) {
	values := map[string]string{}
	for _, a := range r.policy.Annotations {
		values[string(a.Key)] = string(a.Value)
	}
	if id := values["id"]; ruleName(id) {
		r.id = id
	}
	r.allowed = allowedBy + r.id
	bad := func(message, fix string) { problems = append(problems, r.problem(message, fix)) }
	if _, ok := values["id"]; !ok {
		bad("the policy has no @id", `write @id("short-name") above it`)
	} else if r.id == "" {
		bad(fmt.Sprintf("@id(%q) is not a name of letters, digits, '.', '_', '-' and '/'", values["id"]), `write for example @id("no-secrets")`)
	}
	for _, a := range r.policy.Annotations {
		key, value := string(a.Key), string(a.Value)
		switch key {
		case "id":
		case "resolve":
			if r.permit {
				bad("@resolve stands on a permit", "put it on a forbid: it says what lifts a denial")
			} else if kind, what, _ := strings.Cut(value, ":"); (kind != "step_up" && kind != "defer") || !shortName(what) {
				bad(fmt.Sprintf("@resolve(%q) is neither step_up:GROUP nor defer:WHAT", value), `write for example @resolve("step_up:owners")`)
			} else {
				r.resolve = value
			}
		case "label":
			if !r.permit {
				bad("@label stands on a forbid", "put it on the permit whose use sets the label")
				break
			}
			r.labels = splitNames(value)
			for _, l := range r.labels {
				if !shortName(l) {
					bad(fmt.Sprintf("@label(%q) is not a list of names", value), `write for example @label("pii,fin")`)
					break
				}
			}
		case "modify":
			if !r.permit {
				bad("@modify stands on a forbid", "put it on the permit that it modifies")
				break
			}
			r.obligations = splitNames(value)
			for _, o := range r.obligations {
				if err := checkObligation(o); err != nil {
					bad(fmt.Sprintf("@modify(%q): %v", value, err), "the obligations are "+knownObligations)
				}
			}
		default:
			bad(fmt.Sprintf("unknown annotation @%s", key), "the annotations are @id, @resolve, @label and @modify")
		}
	}
	return problems
}

// splitNames gives the sorted distinct elements of a comma separated list.
func splitNames(list string) []string {
	var out []string
	for n := range strings.SplitSeq(list, ",") {
		out = append(out, strings.TrimSpace(n))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
