package policy

import (
	"slices"
	"strings"
)

// mistake is where the Cedar parser stopped: what it found, what it wanted, and
// the text in front of it.
type mistake struct {
	message   string
	got, want string // where it says so
	before    string // the statement up to its place, without trailing blanks
	after     string // and from there on
	last      string // the token in front of its place, which often is the one that is wrong
}

// mistakes are those that people make, with the fix; the first that fits tells.
var mistakes = []struct {
	is  func(m *mistake) bool
	fix string
}{
	{func(m *mistake) bool { return strings.HasSuffix(m.before, "'") }, `write strings in double quotes: "…"`},
	{func(m *mistake) bool { return strings.HasSuffix(m.message, "unexpected effect: #") }, "comments begin with //"},
	{func(m *mistake) bool { return strings.Contains(m.message, "unexpected effect") }, "a policy is a permit or a forbid, as in permit (principal, action, resource);"},
	{func(m *mistake) bool { return m.last == "[" && strings.Contains(m.message, "expected ident") },
		`the scope names one principal and one resource, as in resource == Exeq::Endpoint::"host:443"; put several into a condition: when { resource in […] }`},
	{func(m *mistake) bool { return m.got == "=" && strings.HasPrefix(m.after, "<") }, "write <="},
	{func(m *mistake) bool { return m.got == "=" }, "write == to compare"},
	{func(m *mistake) bool { return m.got == "if" || m.got == "where" }, "a condition begins with when or unless"},
	{func(m *mistake) bool { return m.got == "and" || m.got == "&" }, "write && for and"},
	{func(m *mistake) bool { return m.got == "or" || m.got == "|" }, "write || for or"},
	{func(m *mistake) bool { return m.last == "not" }, "write !(…) for not"},
	{func(m *mistake) bool { return m.want == ";" }, "a ; is missing in front of it"},
	{func(m *mistake) bool { return m.want == "{" }, "put the condition into braces: when { … }"},
	{func(m *mistake) bool { return m.want == "::" || m.last == "::" }, `name it in full, as in Exeq::Action::"read"`},
	{func(m *mistake) bool { return (m.want == "," || m.want == ")") && slices.Contains(scopeless, m.got) },
		"principal, action and resource are followed by ==, in or is alone; put all else into when { … }"},
	{func(m *mistake) bool { return m.got == ")" && m.want == "," },
		"a policy names all three, as in permit (principal, action, resource)"},
	{func(m *mistake) bool { return slices.Contains([]string{"principal", "action", "resource"}, m.want) },
		"the order is principal, action, resource; several actions are a list: action in […]"},
	{func(m *mistake) bool { return m.want == "," }, "a comma is missing in front of it"},
	{func(m *mistake) bool {
		return strings.Contains(m.message, "`startsWith`") || strings.Contains(m.message, "`endsWith`")
	},
		`write like with *, as in context.command like "git *"`},
	{func(m *mistake) bool {
		return strings.Contains(m.message, "is not a function") || strings.Contains(m.message, "is not a method")
	}, `there are like with * for text, and contains, containsAll, containsAny and isEmpty for sets`},
	{func(m *mistake) bool {
		return strings.HasSuffix(m.last, `"`) && strings.Contains(m.message, "expected ident")
	},
		`name an entity, as in Exeq::Path::"/etc"`},
	{func(m *mistake) bool {
		return strings.Trim(m.last, "0123456789") == "" && strings.Contains(m.message, "ident")
	}, "numbers are whole"},
	{func(m *mistake) bool { return m.want == "}" || m.want == ")" || m.want == "]" }, "close what is open, or join both sides with &&, || or a comparison"},
}

// scopeless may stand in a condition and not in a scope.
var scopeless = []string{"||", "&&", "!=", "<", ">", "<=", ">=", "like", "has", "contains"}

// mistakeFix says what to write where the parser stopped at an offset of a
// statement; "" where it is none of the usual mistakes.
func mistakeFix(message, text string, offset int) string {
	offset = min(max(offset, 0), len(text))
	m := mistake{message: message, before: strings.TrimRight(text[:offset], " \t\r\n"), after: text[offset:]}
	if _, said, ok := strings.Cut(message, "got "); ok {
		m.got, m.want, _ = strings.Cut(said, " want ")
	}
	// The token in front: a run of letters, or of signs, or one string.
	i := len(m.before)
	switch {
	case i == 0:
	case m.before[i-1] == '"':
		i = max(strings.LastIndexByte(m.before[:i-1], '"'), 0)
	case isWord(m.before[i-1]):
		for i > 0 && isWord(m.before[i-1]) {
			i--
		}
	case strings.IndexByte("[](){},;", m.before[i-1]) >= 0:
		i--
	default:
		for i > 0 && strings.IndexByte("=<>!&|:.", m.before[i-1]) >= 0 {
			i--
		}
	}
	m.last = m.before[i:]
	for _, known := range mistakes {
		if known.is(&m) {
			return known.fix
		}
	}
	return ""
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
