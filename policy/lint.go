package policy

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/exeq/exeq"
)

// lintText refuses characters that make a policy read otherwise than it
// parses: direction overrides and what does not show at all.
func lintText(file, text string) (problems []Problem) {
	line, col := 1, 0
	for _, r := range text {
		col++
		switch {
		case r >= 0x20 && r < 0x7F: // nearly all
		case r == '\n':
			line, col = line+1, 0
		case r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F, r == 0x061C:
			problems = append(problems, Problem{File: file, Line: line, Column: col,
				Message: fmt.Sprintf("U+%04X changes the direction of the text", r), Fix: "remove it; in a path write it as %XX"})
		case r >= 0x200B && r <= 0x200D, r == 0x2060, r == 0xFEFF, r == 0x00AD, r < 0x20 && r != '\t' && r != '\r', r == 0x7F:
			problems = append(problems, Problem{File: file, Line: line, Column: col,
				Message: fmt.Sprintf("U+%04X does not show", r), Fix: "remove it; in a path write it as %XX"})
		}
	}
	return problems
}

// lint finds what validates and yet cannot mean what it seems to say.
func (r *rule) lint(d *directory, labels map[string]bool) (problems []Problem) {
	add := func(message, fix string) { problems = append(problems, r.problem(message, fix)) }
	for _, u := range r.literals() {
		if message, fix := lintLiteral(u, d); message != "" {
			p := r.problem(fmt.Sprintf("%s: %s", u, message), fix)
			p.Line, p.Column = r.locate(u)
			problems = append(problems, p)
		}
	}
	for _, c := range r.policy.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if message, fix := lintNode(n); message != "" {
				add(message, fix)
			}
			return true
		})
	}
	r.lintCovers(add)
	r.lintStatic(add)
	if !r.permit {
		for _, c := range r.policy.Conditions {
			if c.Condition == ast.ConditionUnless && usesOf(c.Body)&(depClaimed|depWhole) != 0 || negativeClaim(c.Body) {
				add("a claim would lift this forbid", "context.claimed may stand in a forbid's `when` only, joined by && and ||, and not under ! or !=")
				break
			}
		}
	}
	problems = append(problems, r.lintValues(labels)...)
	if len(problems) == 0 && r.neverTrue() {
		add("the policy can never be satisfied", "compare the condition with the scope: their types or literals exclude one another")
	}
	if len(problems) == 0 {
		problems = r.lintContradiction()
	}
	if r.wide() {
		p := r.problem("this permits everything to everyone", "name the principal, the actions or the resource, or add a condition")
		p.Warning = true
		problems = append(problems, p)
	}
	return problems
}

// locate finds an entity literal in the text of the rule; the parser keeps no
// positions below a policy.
func (r *rule) locate(u types.EntityUID) (line, column int) { return r.locateText(u.String()) }

func (r *rule) locateText(what string) (line, column int) {
	at := strings.Index(r.text, what)
	if at < 0 {
		return r.line, r.column
	}
	before := r.text[:at]
	if n := strings.Count(before, "\n"); n > 0 {
		return r.line + n, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	}
	return r.line, r.column + utf8.RuneCountInString(before)
}

// wide finds a permit that narrows nothing.
func (r *rule) wide() bool {
	_, who := r.policy.Principal.(ast.ScopeTypeAll)
	_, what := r.policy.Action.(ast.ScopeTypeAll)
	_, where := r.policy.Resource.(ast.ScopeTypeAll)
	return r.permit && who && what && where && !slices.ContainsFunc(r.conjuncts, func(c conjunct) bool {
		v := judge{}.eval(c.node)
		return c.negate && v != isFalse || !c.negate && v != isTrue
	})
}

// lintLiteral checks the spelling of one entity literal.
func lintLiteral(u types.EntityUID, d *directory) (message, fix string) {
	id := string(u.ID)
	switch u.Type {
	case typePath, typeProgram:
		return lintPath(id, exeq.CheckPath(id), "/")
	case typeWorkspace, typeHome, typeTmp:
		if id == "." {
			return "", ""
		}
		if strings.HasPrefix(id, "/") || id == "" {
			return "the id is not a relative path", fmt.Sprintf(`write for example %s::".config"`, u.Type)
		}
		return lintPath(id, exeq.CheckPath("/"+id), "")
	case typeEndpoint:
		if _, _, err := splitEndpoint(id); err != nil {
			return err.Error(), `write host:port, as in Exeq::Endpoint::"registry.npmjs.org:443"`
		}
	case typeDomain:
		if err := checkHost(id); err != nil {
			return err.Error(), `write a name in lower case without a dot at either end, as in Exeq::Domain::"example.com"`
		}
		if looksNumeric(id) {
			return "an address is in no domain", `compare the endpoint: resource == Exeq::Endpoint::"` + net.JoinHostPort(id, "443") + `"`
		}
	case typeTool:
		if _, _, err := splitTool(id); err != nil {
			return err.Error(), `write server/name`
		}
	case typeUser, typeAgent, typeTeam, typeNode:
		if !d.has(u) {
			return "no such entity is listed", "add it to " + EntitiesFile
		}
	}
	return "", ""
}

func lintPath(id string, err error, root string) (message, fix string) {
	if err == nil {
		return "", ""
	}
	raw, derr := exeq.DecodeBytes(id)
	if derr != nil {
		raw = id
	}
	clean := path.Clean("/" + raw)
	if root == "" && clean == "/" {
		return "the path is not clean", `write "."`
	}
	return "this never matches: " + err.Error(), fmt.Sprintf("write %q", root+exeq.EncodeBytes(clean[1:]))
}

// lintNode checks one node of a condition.
func lintNode(n ast.IsNode) (message, fix string) {
	const arithmetic = "arithmetic is refused: it can overflow, and an error denies everything"
	switch t := n.(type) {
	case ast.NodeTypeAdd, ast.NodeTypeSub, ast.NodeTypeMult, ast.NodeTypeNegate:
		return arithmetic, "compare with a literal"
	case ast.NodeTypeExtensionCall:
		switch t.Name {
		case "offset", "durationSince", "toTime", "toDate":
			return arithmetic, "compare with a literal"
		}
	case ast.NodeTypeEquals:
		return lintConstants(t.Left, t.Right)
	case ast.NodeTypeNotEquals:
		return lintConstants(t.Left, t.Right)
	case ast.NodeTypeIn:
		return lintConstants(t.Left, t.Right)
	case ast.NodeTypeIs:
		return lintConstants(t.Left, ast.NodeValue{Value: types.True})
	case ast.NodeTypeIsIn:
		return lintConstants(t.Left, t.Entity)
	}
	return "", ""
}

func lintConstants(left, right ast.IsNode) (message, fix string) {
	constant := func(n ast.IsNode) bool {
		if _, ok := entityLiterals(n); ok {
			return true
		}
		_, ok := n.(ast.NodeValue)
		return ok
	}
	if !constant(left) || !constant(right) {
		return "", ""
	}
	return "two literals are compared with one another, which says nothing about the request", "compare with resource, principal or context"
}

// lintCovers checks that the annotations can be carried out for the actions.
func (r *rule) lintCovers(add func(message, fix string)) {
	if len(r.obligations) > 0 && !slices.Equal(r.actions, []string{exeq.ActionRun}) {
		add("@modify stands on a permit for more than run", `an obligation changes the rights of an execution: write action == Exeq::Action::"run"`)
	}
	if len(r.labels) > 0 && slices.Contains(r.actions, exeq.ActionWrite) {
		add("@label stands on a permit that covers write, where it cannot be set before the fact", `split the policy: @label on action == Exeq::Action::"read"`)
	}
}

// lintStatic refuses a read or write rule whose answer could change while an
// execution lives: the kernel is given the answer once, at the start.
func (r *rule) lintStatic(add func(message, fix string)) {
	for _, a := range []string{exeq.ActionRead, exeq.ActionWrite} {
		if !slices.Contains(r.actions, a) || !r.varies[classPath] {
			continue
		}
		if a == exeq.ActionRead && r.permit && len(r.labels) > 0 && r.uses&depOdd == 0 {
			continue
		}
		what, fix := "context.session, context.risk or context as a whole", "the kernel is given read and write rules once, at the start: "+
			"use tier, claimed, command, workspace, home or tmp; or put session and risk on connect and exec; or @label a read"
		if r.uses&depOdd != 0 {
			what, fix = "the resource in a way that is not a place",
				"write resource in, ==, != or is, with literals or context.workspace, context.home, context.tmp"
		}
		if _, all := r.policy.Action.(ast.ScopeTypeAll); all {
			fix += `; or name the actions that you mean, as in action == Exeq::Action::"connect"`
		}
		add(fmt.Sprintf("a rule for %s depends on %s", a, what), fix)
		return
	}
}

// negativeClaim finds context.claimed where a larger claim could make the
// expression false.
func negativeClaim(n ast.IsNode) bool {
	switch t := n.(type) {
	case ast.NodeTypeAnd:
		return negativeClaim(t.Left) || negativeClaim(t.Right)
	case ast.NodeTypeOr:
		return negativeClaim(t.Left) || negativeClaim(t.Right)
	case ast.NodeTypeNot, ast.NodeTypeNotEquals, ast.NodeTypeIfThenElse:
		return usesOf(n)&(depClaimed|depWhole) != 0
	case ast.NodeTypeHas, ast.NodeTypeLike:
		return false
	case ast.NodeTypeEquals:
		// A comparison of two truth values would negate one of them.
		_, l := t.Left.(ast.NodeValue)
		_, r := t.Right.(ast.NodeValue)
		return usesOf(n)&(depClaimed|depWhole) != 0 && !l && !r
	}
	return usesOf(n)&depWhole != 0
}

// splitEndpoint takes "host:port" apart; it accepts one spelling only.
func splitEndpoint(id string) (host string, port int, err error) {
	at := strings.LastIndexByte(id, ':')
	if at < 0 {
		return "", 0, fmt.Errorf("endpoint %q is not host:port", id)
	}
	host, ps := id[:at], id[at+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(host, ":") {
			return "", 0, fmt.Errorf("endpoint %q: only an IPv6 address stands in brackets", id)
		}
	} else if strings.Contains(host, ":") {
		return "", 0, fmt.Errorf("endpoint %q is not host:port (an IPv6 address stands in brackets)", id)
	}
	if len(ps) == 0 || len(ps) > 5 || ps[0] == '0' {
		return "", 0, fmt.Errorf("endpoint %q: the port is not 1 to 65535", id)
	}
	for _, c := range []byte(ps) {
		if c < '0' || c > '9' {
			return "", 0, fmt.Errorf("endpoint %q: the port is not 1 to 65535", id)
		}
		port = port*10 + int(c-'0')
	}
	if port > 65535 {
		return "", 0, fmt.Errorf("endpoint %q: the port is not 1 to 65535", id)
	}
	return host, port, checkHost(host)
}

// looksNumeric tells the hosts that can only be addresses: a colon, or a last
// label that starts with a digit (resolvers read 127.1 and 0x7f.1 so).
func looksNumeric(h string) bool {
	last := h[strings.LastIndexByte(h, '.')+1:]
	return strings.Contains(h, ":") || last != "" && last[0] >= '0' && last[0] <= '9'
}

// checkHost accepts a canonical IP address or a lower-case name.
func checkHost(h string) error {
	if looksNumeric(h) {
		a, err := netip.ParseAddr(h)
		if err != nil {
			return fmt.Errorf("host %q ends in a number and is no address", h)
		}
		if a.Zone() != "" || a.Is4In6() || a.String() != h {
			return fmt.Errorf("host %q is not the canonical form of an address", h)
		}
		return nil
	}
	if h == "" || len(h) > 253 {
		return fmt.Errorf("host %q is empty or too long", h)
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Errorf("host %q has an empty or overlong label", h)
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("host %q: want lower-case letters, digits, '-' and '_'", h)
			}
		}
	}
	return nil
}

// splitTool takes "server/name" apart.
func splitTool(id string) (server, name string, err error) {
	server, name, ok := strings.Cut(id, "/")
	if !ok || server == "" || name == "" || exeq.EncodeBytes(id) != id {
		return "", "", fmt.Errorf("tool %q is not server/name", id)
	}
	return server, name, nil
}
