package policy

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/exeq/exeq"
)

// reason says in words why a decision fell as it did, and on a denial the one
// line that would allow it. What was asked stands in front of it, where it is
// printed.
func (q *query) reason(d *exeq.Decision, o *outcome, why cause) string {
	b := q.words[:0]
	switch why {
	case byError:
		b = append(appendIDs(append(b, "policy "...), d.Policies), " could not be evaluated, and any doubt denies"...)
	case byForbid:
		r := firstFinal(o.forbids)
		b = append(appendIDs(append(b, "policy "...), d.Policies), " ("...)
		b = strconv.AppendInt(append(append(b, r.file...), ':'), int64(r.line), 10)
		b = append(q.appendExactly(append(b, ") forbids it; to allow it add there: unless { "...)), " }"...)
	case byNothing:
		b = q.appendPermitLine(append(b, "no policy permits it; to allow it add: "...))
	case byObligation:
		b = append(appendIDs(append(b, "the obligations of "...), ids(o.permits)), " contradict one another; make them agree"...)
	case byNeed:
		b = appendJoined(append(appendIDs(append(b, "policy "...), d.Policies), " waits for "...), d.Needs, " and ")
	default:
		if d.Verdict == exeq.Allow && len(o.permits) == 1 {
			return o.permits[0].allowed
		}
		b = appendJoined(append(b, allowedBy...), d.Policies, ", ")
		if d.Verdict == exeq.Modify {
			b = appendJoined(append(b, " with "...), d.Obligations, ", ")
		}
	}
	q.words = b
	return string(b)
}

const allowedBy = "allowed by "

func firstFinal(forbids []*rule) *rule {
	for _, r := range forbids {
		if r.resolve == "" {
			return r
		}
	}
	return forbids[0]
}

// appendIDs quotes and joins.
func appendIDs(b []byte, ids []string) []byte {
	return append(appendJoined(append(b, '"'), ids, `", "`), '"')
}

func appendJoined(b []byte, list []string, between string) []byte {
	for i, s := range list {
		if i > 0 {
			b = append(b, between...)
		}
		b = append(b, s...)
	}
	return b
}

// appendWritten writes the resource the way a policy should name it: relative
// to workspace, home or tmp where it lies there.
func (q *query) appendWritten(b []byte) []byte {
	id := string(q.resource.ID)
	if q.action.class != classPath && q.action.class != classProgram {
		for _, c := range []byte(id) {
			if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
				return append(b, q.resource.String()...)
			}
		}
		return append(append(append(append(b, q.resource.Type...), `::"`...), id...), '"')
	}
	c := &q.request.Context
	for _, at := range [...]struct{ name, dir string }{{"Workspace", c.Workspace}, {"Tmp", c.Tmp}, {"Home", c.Home}} {
		if rel, ok := relative(at.dir, id); ok && at.dir != "/" {
			return appendCedar(append(append(append(b, namespace...), at.name...), "::"...), rel)
		}
	}
	return appendCedar(append(append(b, namespace...), "Path::"...), id)
}

// appendExactly writes the condition that singles this resource out.
func (q *query) appendExactly(b []byte) []byte {
	if q.action.class == classPath || q.action.class == classProgram {
		return q.appendWritten(append(b, "resource in "...))
	}
	return q.appendWritten(append(b, "resource == "...))
}

// exactly is the condition that singles this resource out.
func (q *query) exactly() string { return string(q.appendExactly(nil)) }

// appendPermitLine writes the whole policy that would permit exactly this.
func (q *query) appendPermitLine(b []byte) []byte {
	b = append(append(append(b, `@id("`...), q.action.name...), '-')
	b = append(q.appendSlug(b), `") permit(principal, action == `...)
	return append(q.appendExactly(append(append(b, q.action.text...), ", "...)), ");"...)
}

func (q *query) permitLine() string { return string(q.appendPermitLine(nil)) }

// appendSlug makes the resource's last part usable in an id.
func (q *query) appendSlug(b []byte) []byte {
	id := strings.TrimRight(string(q.resource.ID), "/")
	if q.action.class != classEndpoint {
		id = id[strings.LastIndexByte(id, '/')+1:]
	}
	var room [40]byte
	out := room[:0]
	for _, c := range []byte(id[:min(len(id), cap(out))]) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_':
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		default:
			c = '-'
		}
		out = append(out, c)
	}
	return append(b, bytes.Trim(out, "-")...)
}

// appendCedar quotes text that EncodeBytes has made printable.
func appendCedar(b []byte, s string) []byte {
	b = append(b, '"')
	if strings.IndexByte(s, '\\') < 0 && strings.IndexByte(s, '"') < 0 {
		b = append(b, s...)
	} else {
		b = append(b, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)...)
	}
	return append(b, '"')
}

// cedarString gives what appendCedar appends.
func cedarString(s string) string { return string(appendCedar(nil, s)) }

// Explanation says why a decision fell as it did.
type Explanation struct {
	Decision exeq.Decision `json:"decision"`
	Reason   string        `json:"reason"`
	// Rules are the policies whose scope matches the request, sorted by id.
	Rules []Rule `json:"rules"`
	// Changes says, one line each, what would change the verdict.
	Changes []string `json:"changes,omitempty"`
}

// Rule is one policy in an explanation.
type Rule struct {
	ID        string `json:"id"`
	Effect    string `json:"effect"` // permit or forbid
	File      string `json:"file"`
	Line      int    `json:"line"`
	Text      string `json:"text"`
	Satisfied bool   `json:"satisfied"`
	// Determining: it is one of the decision's policies.
	Determining bool   `json:"determining"`
	Resolve     string `json:"resolve,omitempty"`
	Error       string `json:"error,omitempty"`
}

// Explain decides again and says why. The error is that of Decide.
func (s *Set) Explain(ctx context.Context, r *exeq.Request, in *exeq.Inputs) (*Explanation, error) {
	d, err := s.Decide(ctx, r, in)
	e := &Explanation{Decision: d, Reason: d.Reason, Rules: []Rule{}}
	if err != nil {
		return e, err
	}
	q, err := s.newQuery(r, in)
	if err != nil || len(s.rules) == 0 {
		return e, nil // denied before any rule was looked at; Reason says why
	}
	o, why := q.decide(new(exeq.Decision))
	s.index.find(q, true) // those, too, that a condition kept out
	var want deps
	for _, i := range q.found {
		want |= s.rules[i].pending
	}
	q.need(want)
	for _, i := range q.found {
		e.Rules = append(e.Rules, q.explainRule(s.rules[i], &d))
	}
	e.Changes = q.changes(&d, &o, why)
	return e, nil
}

func (q *query) explainRule(r *rule, d *exeq.Decision) Rule {
	out := Rule{ID: r.id, Effect: r.effect(), File: r.file, Line: r.line, Text: r.text, Resolve: r.resolve,
		Determining: slices.Contains(d.Policies, r.id)}
	ok, err := q.holds(r.cond)
	out.Satisfied = ok
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

func (r *rule) effect() string {
	if r.permit {
		return "permit"
	}
	return "forbid"
}

// changes lists what would change the verdict.
func (q *query) changes(d *exeq.Decision, o *outcome, why cause) (out []string) {
	switch why {
	case byError:
		for _, r := range o.errors {
			out = append(out, fmt.Sprintf("repair policy %q (%s:%d): it could not be evaluated, and any doubt denies", r.id, r.file, r.line))
		}
	case byForbid:
		for _, r := range o.forbids {
			if r.resolve == "" {
				out = append(out, fmt.Sprintf("policy %q (%s:%d): add unless { %s }", r.id, r.file, r.line, q.exactly()))
			}
		}
		if len(o.permits) == 0 {
			out = append(out, "and no policy permits it; add: "+q.permitLine())
		}
	case byNothing:
		for _, i := range q.found {
			if r := q.set.rules[i]; r.permit {
				out = append(out, fmt.Sprintf("policy %q (%s:%d) permits it where its conditions hold", r.id, r.file, r.line))
			}
		}
		out = append(out, "add: "+q.permitLine())
	case byObligation:
		for _, r := range o.permits {
			if len(r.obligations) > 0 {
				out = append(out, fmt.Sprintf("policy %q (%s:%d) asks for %s: make them agree", r.id, r.file, r.line, strings.Join(r.obligations, ", ")))
			}
		}
	case byNeed:
		for _, n := range d.Needs {
			kind, what, _ := strings.Cut(n, ":")
			if kind == "step_up" {
				out = append(out, fmt.Sprintf("an approval by %q", what))
			} else {
				out = append(out, fmt.Sprintf("the context %q, from an authenticated source", what))
			}
		}
	default:
		for _, r := range o.permits {
			line := fmt.Sprintf("without policy %q (%s:%d)", r.id, r.file, r.line)
			if len(o.permits) > 1 {
				line += " alone nothing changes: others permit it too"
			} else {
				line += " it would be denied"
			}
			out = append(out, line)
		}
		for _, i := range q.found {
			if r := q.set.rules[i]; !r.permit && !slices.Contains(o.forbids, r) {
				out = append(out, fmt.Sprintf("policy %q (%s:%d) forbids it where its conditions hold", r.id, r.file, r.line))
			}
		}
	}
	return out
}
