package policy

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/exeq/exeq"
)

// quick is a condition that is held against the request without Cedar: a
// comparison of what every request has with a literal, and such joined by &&,
// || and !. It says what Cedar would say and cannot err; where what it compares
// is not there, which is an error or not only Cedar knows, it cannot tell and
// Cedar is asked. A test holds it equal to Cedar.
type quick struct {
	op          quickOp
	left, right *quick
	fact        fact
	text        string
	n           int64
	digest      exeq.Digest
	uids        []types.EntityUID
	is          types.EntityType
}

type quickOp uint8

const (
	quickAnd quickOp = iota
	quickOr
	quickNot
	quickConst      // n: 0 false, 1 true
	quickText       // fact == text
	quickDigest     // resource.sha256 == digest
	quickEqual      // fact == n
	quickLess       // fact < n
	quickMore       // fact > n
	quickArg        // context.args.contains(text)
	quickLabel      // context.session.labels.contains(text)
	quickResourceIn // resource in [uids]
	quickResource   // resource == uids[0]
	quickResourceIs
	quickPrincipalIn
	quickPrincipal
	quickPrincipalIs
	quickClaims // context.claimed has text
)

// fact is something of a request that a literal is compared with.
type fact uint8

const (
	noFact fact = iota
	factName
	factHost
	factServer
	factCommand
	factDigest
	factPort
	factTier
	factRisk
	factExecs
	factReads
	factWrites
	factConnects
	factDenials
	factProcesses
	factBytesOut
)

var (
	resourceFacts = map[types.String]fact{"name": factName, "host": factHost, "server": factServer, "sha256": factDigest, "port": factPort}
	contextFacts  = map[types.String]fact{"command": factCommand, "tier": factTier, "risk": factRisk}
	sessionFacts  = map[types.String]fact{"execs": factExecs, "reads": factReads, "writes": factWrites, "connects": factConnects,
		"denials": factDenials, "processes": factProcesses, "bytesOut": factBytesOut}
)

func factOf(n ast.IsNode) fact {
	a, ok := n.(ast.NodeTypeAccess)
	switch {
	case !ok:
	case isVariable(a.Arg, "resource"):
		return resourceFacts[a.Value]
	case isVariable(a.Arg, "context"):
		return contextFacts[a.Value]
	case isSession(a.Arg):
		return sessionFacts[a.Value]
	}
	return noFact
}

// quickOf gives a condition's quick form, nil where it has none.
func quickOf(n ast.IsNode) *quick {
	switch t := n.(type) {
	case ast.NodeValue:
		if b, ok := t.Value.(types.Boolean); ok {
			return quickBool(bool(b))
		}
	case ast.NodeTypeAnd:
		return joined(quickAnd, quickOf(t.Left), quickOf(t.Right))
	case ast.NodeTypeOr:
		return joined(quickOr, quickOf(t.Left), quickOf(t.Right))
	case ast.NodeTypeNot:
		return not(quickOf(t.Arg))
	case ast.NodeTypeEquals:
		return quickEquality(t.Left, t.Right)
	case ast.NodeTypeNotEquals:
		return not(quickEquality(t.Left, t.Right))
	case ast.NodeTypeLessThan:
		return quickOrder(t.Left, t.Right, quickLess, quickMore)
	case ast.NodeTypeGreaterThan:
		return quickOrder(t.Left, t.Right, quickMore, quickLess)
	case ast.NodeTypeLessThanOrEqual:
		return not(quickOrder(t.Left, t.Right, quickMore, quickLess))
	case ast.NodeTypeGreaterThanOrEqual:
		return not(quickOrder(t.Left, t.Right, quickLess, quickMore))
	case ast.NodeTypeContains:
		return quickContains(t.Left, t.Right)
	case ast.NodeTypeHas:
		if a, ok := t.Arg.(ast.NodeTypeAccess); ok && a.Value == "claimed" && isVariable(a.Arg, "context") && slices.Contains(claims, string(t.Value)) {
			return &quick{op: quickClaims, text: string(t.Value)}
		}
	case ast.NodeTypeIn:
		if us, ok := targets(t.Right); ok && isVariable(t.Left, "resource") {
			return &quick{op: quickResourceIn, uids: us}
		}
		if us, ok := entityLiterals(t.Right); ok && isVariable(t.Left, "principal") {
			return &quick{op: quickPrincipalIn, uids: us}
		}
	case ast.NodeTypeIs:
		return quickIs(t.Left, t.EntityType)
	case ast.NodeTypeIsIn:
		return joined(quickAnd, quickIs(t.Left, t.EntityType), quickOf(ast.NodeTypeIn{BinaryNode: ast.BinaryNode{Left: t.Left, Right: t.Entity}}))
	}
	return nil
}

func quickBool(b bool) *quick {
	if b {
		return &quick{op: quickConst, n: 1}
	}
	return &quick{op: quickConst}
}

func joined(op quickOp, left, right *quick) *quick {
	if left == nil || right == nil {
		return nil
	}
	return &quick{op: op, left: left, right: right}
}

func not(k *quick) *quick {
	if k == nil {
		return nil
	}
	return &quick{op: quickNot, left: k}
}

func quickIs(n ast.IsNode, t types.EntityType) *quick {
	switch {
	case isVariable(n, "resource"):
		return &quick{op: quickResourceIs, is: t}
	case isVariable(n, "principal"):
		return &quick{op: quickPrincipalIs, is: t}
	}
	return nil
}

func quickEquality(left, right ast.IsNode) *quick {
	v, ok := right.(ast.NodeValue)
	if !ok {
		if v, ok = left.(ast.NodeValue); !ok {
			return nil
		}
		left = right
	}
	m := factOf(left)
	switch lit := v.Value.(type) {
	case types.String:
		switch m {
		case factName, factHost, factServer, factCommand:
			return &quick{op: quickText, fact: m, text: string(lit)}
		case factDigest:
			k := &quick{op: quickDigest}
			if k.digest.UnmarshalText([]byte(lit)) != nil || k.digest.IsZero() {
				return nil // spelled as no digest is
			}
			return k
		}
	case types.Long:
		if m >= factPort {
			return &quick{op: quickEqual, fact: m, n: int64(lit)}
		}
	case types.EntityUID:
		switch {
		case isVariable(left, "resource"):
			return &quick{op: quickResource, uids: []types.EntityUID{lit}}
		case isVariable(left, "principal"):
			return &quick{op: quickPrincipal, uids: []types.EntityUID{lit}}
		}
	}
	return nil
}

// quickOrder reads a comparison with a number on either side.
func quickOrder(left, right ast.IsNode, op, turned quickOp) *quick {
	if v, ok := left.(ast.NodeValue); ok {
		left, right, op = right, v, turned
	}
	v, ok := right.(ast.NodeValue)
	m := factOf(left)
	if !ok || m < factPort {
		return nil
	}
	n, ok := v.Value.(types.Long)
	if !ok {
		return nil
	}
	return &quick{op: op, fact: m, n: int64(n)}
}

// quickContains reads context.args.contains("x"), context.session.labels
// .contains("x") and [literals].contains(fact).
func quickContains(set, element ast.IsNode) *quick {
	if list, ok := set.(ast.NodeTypeSet); ok && len(list.Elements) > 0 {
		out := quickBool(false)
		for _, e := range list.Elements {
			k := quickEquality(element, e)
			if k == nil {
				return nil
			}
			out = joined(quickOr, out, k)
		}
		return out
	}
	a, ok := set.(ast.NodeTypeAccess)
	v, ok2 := element.(ast.NodeValue)
	if !ok || !ok2 {
		return nil
	}
	s, ok := v.Value.(types.String)
	switch {
	case !ok:
	case a.Value == "args" && isVariable(a.Arg, "context"):
		return &quick{op: quickArg, text: string(s)}
	case a.Value == "labels" && isSession(a.Arg):
		return &quick{op: quickLabel, text: string(s)}
	}
	return nil
}

// total reports whether a condition is known of every request of a class.
func (k *quick) total(c class) bool {
	switch k.op {
	case quickAnd, quickOr:
		return k.left.total(c) && k.right.total(c)
	case quickNot:
		return k.left.total(c)
	case quickDigest, quickArg:
		return c == classProgram
	}
	switch k.fact {
	case factName:
		return c == classProgram || c == classTool
	case factHost, factPort:
		return c == classEndpoint
	case factServer:
		return c == classTool
	}
	return true
}

// ask evaluates a quick condition; known is false where Cedar has to be asked.
func (q *query) ask(k *quick) (holds, known bool) {
	switch k.op {
	case quickAnd:
		if holds, known = q.ask(k.left); holds && known {
			return q.ask(k.right)
		}
		return holds, known
	case quickOr:
		if holds, known = q.ask(k.left); holds || !known {
			return holds, known
		}
		return q.ask(k.right)
	case quickNot:
		holds, known = q.ask(k.left)
		return !holds, known
	case quickConst:
		return k.n != 0, true
	case quickText:
		s, ok := q.text(k.fact)
		return ok && s == k.text, ok
	case quickDigest:
		return q.sha256 == k.digest, q.action.class == classProgram
	case quickEqual, quickLess, quickMore:
		n, ok := q.number(k.fact)
		switch k.op {
		case quickEqual:
			return n == k.n, ok
		case quickLess:
			return n < k.n, ok
		}
		return n > k.n, ok
	case quickArg:
		return slices.Contains(q.args(), k.text), q.action.class == classProgram
	case quickLabel:
		return slices.Contains(q.in.Session.Labels, k.text), true
	case quickClaims:
		_, ok := q.request.Context.Claimed[k.text]
		return ok, true
	case quickResourceIn:
		return slices.ContainsFunc(k.uids, q.within), true
	case quickResource:
		return q.resource == k.uids[0], true
	case quickResourceIs:
		return q.resource.Type == k.is, true
	case quickPrincipalIn:
		return slices.ContainsFunc(k.uids, func(u types.EntityUID) bool { return slices.Contains(q.principal.ancestors, u) }), true
	case quickPrincipal:
		return q.principal.uid == k.uids[0], true
	case quickPrincipalIs:
		return q.principal.uid.Type == k.is, true
	}
	return false, false
}

// args are the arguments behind the program's name.
func (q *query) args() []string {
	if len(q.request.Argv) < 2 {
		return nil
	}
	return q.request.Argv[1:]
}

// text gives a fact that is a string, if resources of this class have it.
func (q *query) text(m fact) (string, bool) {
	switch m {
	case factName:
		switch q.action.class {
		case classTool:
			return q.name, true
		case classProgram:
			id := string(q.resource.ID)
			return id[strings.LastIndexByte(id, '/')+1:], true
		}
	case factHost:
		return q.host, q.action.class == classEndpoint
	case factServer:
		return q.server, q.action.class == classTool
	case factCommand:
		return q.request.Context.Command, true
	}
	return "", false
}

// number gives a fact that is a number, if resources of this class have it.
func (q *query) number(m fact) (int64, bool) {
	s := &q.in.Session
	switch m {
	case factPort:
		return int64(q.port), q.action.class == classEndpoint
	case factTier:
		return int64(q.in.Tier), true
	case factRisk:
		return int64(q.in.Risk), true
	case factExecs:
		return int64(s.Execs), true
	case factReads:
		return int64(s.Reads), true
	case factWrites:
		return int64(s.Writes), true
	case factConnects:
		return int64(s.Connects), true
	case factDenials:
		return int64(s.Denials), true
	case factProcesses:
		return int64(s.Processes), true
	case factBytesOut:
		return s.BytesOut, true
	}
	return 0, false
}

// within reports whether the resource is in an entity.
func (q *query) within(u types.EntityUID) bool {
	if q.resource == u {
		return true
	}
	id, c := string(q.resource.ID), &q.request.Context
	place := ""
	switch class := q.action.class; u.Type {
	case typePath:
		if class != classPath && class != classProgram {
			return false
		}
		rel, ok := relative(string(u.ID), id)
		return ok && u.ID != "" && (rel != "." || class == classProgram)
	case typeWorkspace:
		place = c.Workspace
	case typeHome:
		place = c.Home
	case typeTmp:
		place = c.Tmp
	case typeDomain:
		d := string(u.ID)
		return class == classEndpoint && !looksNumeric(q.host) && d != "" &&
			(q.host == d || len(q.host) > len(d) && q.host[len(q.host)-len(d)-1] == '.' && strings.HasSuffix(q.host, d))
	case typeToolServer:
		return class == classTool && q.server == string(u.ID)
	}
	if place == "" || q.action.class != classPath && q.action.class != classProgram {
		return false
	}
	rel, ok := relative(place, id)
	if !ok || u.ID == "." {
		return ok
	}
	if rel == "." || strings.HasPrefix(string(u.ID), "/") {
		return false
	}
	_, ok = relative(string(u.ID), rel)
	return ok
}
