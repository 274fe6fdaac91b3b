// Package equivalence holds what policy compiles to, and what each tier makes of
// that, against an interpreter of the same policies that shares nothing with
// them: it knows docs/policy.md and no Cedar.
package equivalence

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// question is one request, as a policy sees it.
type question struct {
	action    string
	path      string // read, write, exec, run
	sha256    string // exec, run
	host      string // connect
	port      int
	agent     string
	tier      int
	workspace string
}

// rule is a policy that can be asked and written.
type rule struct {
	permit  bool
	agent   string // "" is anybody
	actions []string
	scope   expr // nil is any resource
	when    expr // nil is always
	unless  expr // nil is never
}

// policy is a set of rules. It allows what a permit holds for and no forbid.
type policy []rule

func (p policy) allows(q question) bool {
	allowed := false
	for _, r := range p {
		if !r.holds(q) {
			continue
		}
		if !r.permit {
			return false
		}
		allowed = true
	}
	return allowed
}

func (r rule) holds(q question) bool {
	acts := false
	for _, a := range r.actions {
		acts = acts || a == q.action
	}
	return acts && (r.agent == "" || r.agent == q.agent) && (r.scope == nil || r.scope.is(q)) &&
		(r.when == nil || r.when.is(q)) && (r.unless == nil || !r.unless.is(q))
}

// names reports whether a permit that holds is for exactly this endpoint.
func (p policy) names(q question) bool {
	for _, r := range p {
		if e, ok := r.scope.(endpoint); ok && r.permit && r.holds(q) && e.is(q) {
			return true
		}
	}
	return false
}

func (p policy) cedar() string {
	var b strings.Builder
	for i, r := range p {
		effect, principal, actions, scope := "forbid", "principal", make([]string, len(r.actions)), "resource"
		if r.permit {
			effect = "permit"
		}
		if r.agent != "" {
			principal = fmt.Sprintf("principal == Exeq::Agent::%q", r.agent)
		}
		for i, a := range r.actions {
			actions[i] = fmt.Sprintf("Exeq::Action::%q", a)
		}
		if r.scope != nil {
			scope = r.scope.cedar(r.kind())
		}
		fmt.Fprintf(&b, "@id(\"r%d\")\n%s (%s, action in [%s], %s)", i, effect, principal, strings.Join(actions, ", "), scope)
		if r.when != nil {
			fmt.Fprintf(&b, " when { %s }", r.when.cedar(r.kind()))
		}
		if r.unless != nil {
			fmt.Fprintf(&b, " unless { %s }", r.unless.cedar(r.kind()))
		}
		b.WriteString(";\n")
	}
	return b.String()
}

// kind is the type of a rule's resource.
func (r rule) kind() string {
	switch r.actions[0] {
	case "run", "exec":
		return "Program"
	}
	return "Path"
}

// expr is a condition that can be asked and written.
type expr interface {
	is(q question) bool
	cedar(kind string) string
}

type (
	in        string // a directory or a file
	inPlace   string // one relative to the workspace, "." itself
	exactly   string // a path
	bytes     []string
	tier      int // at least
	workspace string
	domain    string
	endpoint  struct {
		host string
		port int
	}
	port     int
	host     string
	loopback struct{}
	not      struct{ e expr }
	and      struct{ a, b expr }
	or       struct{ a, b expr }
)

// below is what `in` means: the path itself, or a directory of it.
func below(path, dir string) bool {
	if dir == "/" || path == dir {
		return true
	}
	return strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

func (e in) is(q question) bool { return below(q.path, string(e)) }
func (e inPlace) is(q question) bool {
	if e == "." {
		return below(q.path, q.workspace)
	}
	return below(q.path, q.workspace+"/"+string(e))
}
func (e exactly) is(q question) bool { return q.path == string(e) }
func (e bytes) is(q question) bool {
	for _, d := range e {
		if d == q.sha256 {
			return true
		}
	}
	return false
}
func (e tier) is(q question) bool      { return q.tier >= int(e) }
func (e workspace) is(q question) bool { return below(q.workspace, string(e)) }

// An address is in no domain.
func (e domain) is(q question) bool {
	if _, err := netip.ParseAddr(q.host); err == nil {
		return false
	}
	return q.host == string(e) || strings.HasSuffix(q.host, "."+string(e))
}
func (e endpoint) is(q question) bool { return q.host == e.host && q.port == e.port }
func (e port) is(q question) bool     { return q.port == int(e) }
func (e host) is(q question) bool     { return q.host == string(e) }
func (e loopback) is(q question) bool {
	a, err := netip.ParseAddr(q.host)
	return err == nil && a.IsLoopback()
}
func (e not) is(q question) bool { return !e.e.is(q) }
func (e and) is(q question) bool { return e.a.is(q) && e.b.is(q) }
func (e or) is(q question) bool  { return e.a.is(q) || e.b.is(q) }

func (e in) cedar(string) string { return fmt.Sprintf("resource in Exeq::Path::%q", string(e)) }
func (e inPlace) cedar(string) string {
	return fmt.Sprintf("resource in Exeq::Workspace::%q", string(e))
}
func (e exactly) cedar(kind string) string {
	return fmt.Sprintf("resource == Exeq::%s::%q", kind, string(e))
}
func (e bytes) cedar(string) string {
	return `["` + strings.Join(e, `", "`) + `"].contains(resource.sha256)`
}
func (e tier) cedar(string) string { return fmt.Sprintf("context.tier >= %d", int(e)) }
func (e workspace) cedar(string) string {
	return fmt.Sprintf("context.workspace in Exeq::Path::%q", string(e))
}
func (e domain) cedar(string) string { return fmt.Sprintf("resource in Exeq::Domain::%q", string(e)) }
func (e endpoint) cedar(string) string {
	return fmt.Sprintf("resource == Exeq::Endpoint::%q", e.String())
}
func (e port) cedar(string) string     { return fmt.Sprintf("resource.port == %d", int(e)) }
func (e host) cedar(string) string     { return fmt.Sprintf("resource.host == %q", string(e)) }
func (e loopback) cedar(string) string { return "resource has ip && resource.ip.isLoopback()" }
func (e not) cedar(k string) string    { return "!(" + e.e.cedar(k) + ")" }
func (e and) cedar(k string) string    { return "(" + e.a.cedar(k) + ") && (" + e.b.cedar(k) + ")" }
func (e or) cedar(k string) string     { return "(" + e.a.cedar(k) + ") || (" + e.b.cedar(k) + ")" }

func (e endpoint) String() string {
	if strings.Contains(e.host, ":") {
		return fmt.Sprintf("[%s]:%d", e.host, e.port)
	}
	return fmt.Sprintf("%s:%d", e.host, e.port)
}

// world is what random policies speak of.
type world struct {
	*rand.Rand
	workspace string
	paths     []string // files and directories
	digests   []string
	ends      []endpoint
}

func one[T any](w *world, list []T) T { return list[w.IntN(len(list))] }

// some gives up to n random rules.
func (w *world) some(n int) (p policy) {
	for range 1 + w.IntN(n) {
		r := rule{permit: w.IntN(3) > 0, agent: one(w, []string{"", "", "", "dev", "other"})}
		r.actions = one(w, [][]string{{"read"}, {"write"}, {"read", "write"}, {"exec"}, {"exec"}, {"connect"}})
		leaf := w.file
		switch r.actions[0] {
		case "exec":
			leaf = w.program
		case "connect":
			leaf = w.endpoint
		}
		switch r.scope = w.scope(r.actions[0]); w.IntN(4) {
		case 0:
			r.when = w.tree(leaf, 2)
		case 1:
			r.unless = w.tree(leaf, 2)
		}
		p = append(p, r)
	}
	return p
}

func (w *world) scope(action string) expr {
	if action == "connect" {
		switch w.IntN(4) {
		case 0:
			return domain(one(w, []string{"example.org", "org", "b.example.org"}))
		case 1, 2:
			return one(w, w.ends)
		}
		return nil
	}
	switch w.IntN(6) {
	case 0:
		return exactly(one(w, w.paths))
	case 1:
		return w.place()
	}
	return in(one(w, w.paths))
}

func (w *world) place() expr {
	p := one(w, w.paths)
	if !below(p, w.workspace) {
		return in(p)
	}
	if p == w.workspace {
		return inPlace(".")
	}
	return inPlace(p[len(w.workspace)+1:])
}

func (w *world) tree(leaf func() expr, depth int) expr {
	if depth > 0 {
		switch w.IntN(6) {
		case 0:
			return not{leaf()}
		case 1:
			return and{w.tree(leaf, depth-1), w.tree(leaf, depth-1)}
		case 2, 3:
			return or{w.tree(leaf, depth-1), w.tree(leaf, depth-1)}
		}
	}
	return leaf()
}

func (w *world) file() expr {
	switch w.IntN(8) {
	case 0:
		return tier(one(w, []int{20, 30, 40}))
	case 1:
		return workspace(one(w, w.paths))
	case 2:
		return exactly(one(w, w.paths))
	case 3:
		return w.place()
	}
	return in(one(w, w.paths))
}

func (w *world) program() expr {
	if w.IntN(2) == 0 {
		return w.file()
	}
	b := bytes{one(w, w.digests)}
	if w.IntN(2) == 0 {
		b = append(b, one(w, w.digests))
	}
	return b
}

func (w *world) endpoint() expr {
	switch w.IntN(5) {
	case 0:
		return port(one(w, w.ends).port)
	case 1:
		return host(one(w, w.ends).host)
	case 2:
		return loopback{}
	case 3:
		return domain(one(w, []string{"example.org", "org"}))
	}
	return one(w, w.ends)
}
