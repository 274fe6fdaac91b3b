package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// condition gives a random expression, good or bad, in which lists of literals
// stand where they may be shortened and where they may not.
func (g generator) condition(depth int) string {
	if depth > 0 {
		a, b := g.condition(depth-1), g.condition(depth-1)
		switch g.IntN(9) {
		case 0, 1:
			return "(" + a + " && " + b + ")"
		case 2, 3:
			return "(" + a + " || " + b + ")"
		case 4:
			return "!(" + a + ")"
		case 5:
			return "(if " + a + " then " + b + " else (" + g.condition(depth-1) + "))"
		case 6:
			return "((" + a + ") == (" + b + "))"
		case 7: // guarded by one list and read under another, or the same
			what := func() string {
				return fmt.Sprintf("(if principal in %s then context.claimed else context.claimed)", g.literals())
			}
			x := what()
			return fmt.Sprintf("(%s has intent && %s.intent == \"a\")", x, g.pick(x, what()))
		}
	}
	switch g.IntN(8) {
	case 0:
		return "resource is Exeq::" + g.pick("Path", "Program", "Nothing")
	case 1:
		return g.literals() + ".contains(" + g.pick("resource", "principal", "context.home") + ")"
	case 2:
		return g.pick("context.tier >= 20", "context.tier", `context.claimed.intent == "a"`, "true", "false", "context.risk > \"a\"", "[] == []")
	}
	return g.pick("resource", "resource", "resource", "principal", "action", "context.workspace", "context", `Exeq::Home::"a"`) + " in " + g.literals()
}

// literals gives a list: mostly of one type, else unknown, mixed, nested or of
// something else.
func (g generator) literals() string {
	literal := func(t string) string {
		return fmt.Sprintf("Exeq::%s::%q", t, g.pick("a", "b", "read", "activity", "nothing"))
	}
	t := g.pick("Path", "Home", "Team", "Agent", "Action", "Endpoint")
	var list []string
	for range g.IntN(4) {
		list = append(list, literal(t))
	}
	switch g.IntN(12) {
	case 0:
		list = append(list, literal("Nothing"))
	case 1:
		list = append(list, literal(g.pick("Path", "Home", "Action")))
	case 2:
		list = append(list, g.pick(`"text"`, "1", "true", "resource", "context.home", "context.nothing"))
	case 3:
		list = append(list, "["+literal(t)+"]")
	case 4:
		list = append(list, fmt.Sprintf("(if %s then %s else %s)", g.condition(0), literal(t), literal(t)))
	}
	g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return "[" + strings.Join(list, ", ") + "]"
}

// What is validated together and shortened passes exactly if each rule passes
// alone and as written.
func TestValidTogether(t *testing.T) {
	var good, bad, groups int
	for seed := range 300 {
		g := newGenerator(uint64(seed))
		var b strings.Builder
		for i := range 20 {
			scope := g.principal() + ", " + g.pick("action", `action == Exeq::Action::"read"`, `action in Exeq::Action::"activity"`,
				`action in [Exeq::Action::"read", Exeq::Action::"write"]`, `action == Exeq::Action::"nothing"`, "action in []") + ", " +
				g.pick("resource", "resource is Exeq::Path", `resource in Exeq::Home::"a"`, `resource == Exeq::Program::"/a"`, "resource is Exeq::Nothing")
			fmt.Fprintf(&b, "@id(\"r%d\") permit(%s)", i, scope)
			for range g.IntN(3) {
				fmt.Fprintf(&b, " %s { %s }", g.pick("when", "unless"), g.condition(g.IntN(4)))
			}
			b.WriteString(";\n")
		}
		rules, problems := parseRules("r.cedar", b.String())
		if len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, b.String())
		}
		passes := func(r *rule) bool { return len(r.validate()) == 0 }
		for _, r := range rules {
			want := passes(r)
			if got := valid([]*rule{r}); got != want {
				t.Fatalf("shortened %t, as written %v\n%s", got, r.validate(), r.text)
			}
			if want {
				good++
			} else {
				bad++
			}
		}
		total := 0
		for _, group := range byScope(rules) {
			total += len(group)
			if len(group) > 1 {
				groups++
			}
			if got, want := valid(group), !slices.ContainsFunc(group, func(r *rule) bool { return !passes(r) }); got != want {
				t.Fatalf("together %t, each alone %t\n%s", got, want, b.String())
			}
			// Those that pass pass together as well.
			group = slices.DeleteFunc(group, func(r *rule) bool { return !passes(r) })
			if len(group) > 0 && !valid(group) {
				t.Fatalf("each passes and together they do not\n%s", b.String())
			}
		}
		if total != len(rules) {
			t.Fatalf("%d rules in groups, of %d", total, len(rules))
		}
	}
	if good < 500 || bad < 500 || groups < 100 {
		t.Errorf("%d good and %d bad rules in %d groups say little", good, bad, groups)
	}
	t.Log(good, "good,", bad, "bad,", groups, "groups of several")
}

// A list that is shortened leaves the rule as it was written.
func TestShortenedLeavesTheRule(t *testing.T) {
	const text = `@id("a") permit(principal, action == Exeq::Action::"read", resource) when { resource in [Exeq::Path::"/a", Exeq::Path::"/b"] && !(resource in [Exeq::Home::"c", Exeq::Home::"d"]) };`
	rules, problems := parseRules("r.cedar", text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	before := string(rules[0].full.MarshalCedar())
	if short := shortened(rules[0].policy.Conditions[0].Body); len(shortLists(short)) != 2 {
		t.Fatalf("%v is not shortened", short)
	}
	if !valid(rules) || string(rules[0].full.MarshalCedar()) != before || len(rules[0].literals()) != 4 {
		t.Fatal("validating changed the rule")
	}
}

// shortLists gives the lists of one literal.
func shortLists(n ast.IsNode) (out []ast.IsNode) {
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if set, ok := n.(ast.NodeTypeSet); ok && len(set.Elements) == 1 {
			out = append(out, n)
		}
		return true
	})
	return out
}

// Each statement stands where a reader who counts characters finds it.
func TestStatementPlaces(t *testing.T) {
	parts := []string{" ", "\n", "\r\n", "\t", "// é;\n", "// \"\n", `permit "é;\"` + "\n" + `" ;`, "forbid(日,[\n]) ;", "a// }\n;", `"\\";`, "é\n\n;", "{\"\\é\"};"}
	for seed := range 500 {
		g := newGenerator(uint64(seed))
		var text string
		for range g.IntN(12) {
			text += g.pick(parts...)
		}
		text += g.pick("", "// the end", "\n")
		stmts, problems := splitStatements("x.cedar", text)
		if len(problems) > 0 {
			t.Fatalf("%q: %v", text, problems)
		}
		at := 0
		for _, st := range stmts {
			at += strings.Index(text[at:], st.text)
			line, column := 1, 1
			for _, r := range text[:at] {
				if column++; r == '\n' {
					line, column = line+1, 1
				}
			}
			if st.line != line || st.column != column {
				t.Fatalf("%q: %q at %d:%d, counted %d:%d", text, st.text, st.line, st.column, line, column)
			}
			at += len(st.text)
		}
		if n := len(stmts); n > 0 && !strings.HasSuffix(stmts[n-1].text, ";") {
			t.Fatalf("%q ends without ;", stmts[n-1].text)
		}
	}
}
