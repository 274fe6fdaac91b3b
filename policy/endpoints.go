package policy

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/exeq/exeq"
)

// endpoints gives the upper bound of connect: what the permits could reach,
// less what a forbid takes away for certain. Each connection is still decided.
func (q *query) endpoints() []exeq.Endpoint {
	q.action = vocabulary().connect
	q.made, q.has, q.want = false, 0, 0
	var out []exeq.Endpoint
	for _, r := range q.set.rules {
		if !r.permit || !q.speaksOf(r) {
			continue
		}
		for _, e := range r.reaches() {
			if !q.takenAway(e) {
				out = append(out, e)
			}
		}
	}
	return minimal(out)
}

// speaksOf reports whether a connect rule can hold for this principal and
// what is known of the context.
func (q *query) speaksOf(r *rule) bool {
	if !slices.Contains(r.actions, exeq.ActionConnect) || !q.isPrincipal(r.policy.Principal) {
		return false
	}
	q.need(r.uses &^ varying[classEndpoint])
	ok, err := q.holds(r.residue[classEndpoint])
	return ok || err != nil
}

// isPrincipal matches a principal scope.
func (q *query) isPrincipal(s ast.IsPrincipalScopeNode) bool {
	p := q.principal
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity == p.uid
	case ast.ScopeTypeIn:
		return slices.Contains(p.ancestors, s.Entity)
	case ast.ScopeTypeIs:
		return s.Type == p.uid.Type
	case ast.ScopeTypeIsIn:
		return s.Type == p.uid.Type && slices.Contains(p.ancestors, s.Entity)
	}
	return true
}

// reaches gives the endpoints that a connect permit speaks of: never fewer.
func (r *rule) reaches() []exeq.Endpoint {
	out := []exeq.Endpoint{{Host: "*"}}
	narrow := func(us []types.EntityUID) {
		out = nil
		for _, u := range us {
			if e, ok := bounded(u); ok {
				out = append(out, e)
			}
		}
	}
	keys, all := resourceKeys(r, typeEndpoint)
	if !all {
		us := make([]types.EntityUID, len(keys))
		for i, k := range keys {
			us[i] = k.uid
		}
		narrow(us)
	}
	for _, c := range r.conjuncts {
		if c.negate {
			continue
		}
		if ports := portsOf(c.node); ports != nil {
			out = withPorts(out, ports)
		}
		if h, ok := hostOf(c.node); ok {
			for i := range out {
				if out[i].Host == "*" || strings.HasPrefix(out[i].Host, ".") {
					out[i].Host = h
				}
			}
		}
	}
	return out
}

func bounded(u types.EntityUID) (exeq.Endpoint, bool) {
	switch u.Type {
	case typeDomain:
		return exeq.Endpoint{Host: "." + string(u.ID)}, true
	case typeEndpoint:
		host, port, err := splitEndpoint(string(u.ID))
		return exeq.Endpoint{Host: host, Port: port}, err == nil
	}
	return exeq.Endpoint{}, false
}

// portsOf reads resource.port == N and [N, …].contains(resource.port).
func portsOf(n ast.IsNode) []int {
	isPort := func(n ast.IsNode) bool {
		a, ok := n.(ast.NodeTypeAccess)
		return ok && a.Value == "port" && isVariable(a.Arg, "resource")
	}
	long := func(n ast.IsNode) (int, bool) {
		v, ok := n.(ast.NodeValue)
		if !ok {
			return 0, false
		}
		l, ok := v.Value.(types.Long)
		return int(l), ok && l > 0 && l < 65536
	}
	switch t := n.(type) {
	case ast.NodeTypeEquals:
		for _, side := range [][2]ast.IsNode{{t.Left, t.Right}, {t.Right, t.Left}} {
			if p, ok := long(side[1]); ok && isPort(side[0]) {
				return []int{p}
			}
		}
	case ast.NodeTypeContains:
		set, ok := t.Left.(ast.NodeTypeSet)
		if !ok || !isPort(t.Right) {
			return nil
		}
		var ports []int
		for _, e := range set.Elements {
			p, ok := long(e)
			if !ok {
				return nil
			}
			ports = append(ports, p)
		}
		return ports
	}
	return nil
}

// hostOf reads resource.host == "name".
func hostOf(n ast.IsNode) (string, bool) {
	eq, ok := n.(ast.NodeTypeEquals)
	if !ok {
		return "", false
	}
	a, ok := eq.Left.(ast.NodeTypeAccess)
	v, lit := eq.Right.(ast.NodeValue)
	if !ok || !lit || a.Value != "host" || !isVariable(a.Arg, "resource") {
		return "", false
	}
	h, ok := v.Value.(types.String)
	return string(h), ok && checkHost(string(h)) == nil
}

func withPorts(es []exeq.Endpoint, ports []int) (out []exeq.Endpoint) {
	for _, e := range es {
		if e.Port != 0 {
			out = append(out, e)
			continue
		}
		for _, p := range ports {
			out = append(out, exeq.Endpoint{Host: e.Host, Port: p})
		}
	}
	return out
}

// takenAway reports that a forbid without @resolve covers all of e, whatever
// session and risk are.
func (q *query) takenAway(e exeq.Endpoint) bool {
	if e.Port != 0 && e.Host != "*" && e.Host[0] != '.' {
		return !q.bound(vocabulary().connect, net.JoinHostPort(e.Host, strconv.Itoa(e.Port))).possible
	}
	for _, r := range q.set.rules {
		if r.permit || r.resolve != "" || r.varies[classEndpoint] || !q.isPrincipal(r.policy.Principal) ||
			!slices.Contains(r.actions, exeq.ActionConnect) {
			continue
		}
		keys, all := resourceKeys(r, typeEndpoint)
		if !all && !slices.ContainsFunc(keys, func(k resourceKey) bool {
			d := "." + string(k.uid.ID)
			return k.in && k.uid.Type == typeDomain && (e.Host == d || strings.HasSuffix(e.Host, d) || "."+e.Host == d)
		}) {
			continue
		}
		q.need(r.uses)
		if ok, err := q.holds(r.residue[classEndpoint]); ok && err == nil {
			return true
		}
	}
	return false
}

// minimal sorts, and drops each range that another covers. An exact host and
// port stays beside a range: the proxy opens loopback and its like to what was
// named exactly, never to a range.
func minimal(es []exeq.Endpoint) []exeq.Endpoint {
	slices.SortFunc(es, func(a, b exeq.Endpoint) int { return cmp.Or(strings.Compare(a.Host, b.Host), a.Port-b.Port) })
	es = slices.Compact(es)
	var out []exeq.Endpoint
	for i, e := range es {
		exact := e.Port != 0 && e.Host != "*" && !strings.HasPrefix(e.Host, ".")
		covered := !exact && slices.ContainsFunc(es, func(o exeq.Endpoint) bool {
			return o != e && (o.Port == 0 || o.Port == e.Port) && coversHost(o.Host, e.Host)
		})
		if !covered {
			out = append(out, es[i])
		}
	}
	return out
}

func coversHost(o, e string) bool {
	if o == "*" || o == e {
		return true
	}
	return strings.HasPrefix(o, ".") && (e == o[1:] || strings.HasSuffix(e, o))
}
