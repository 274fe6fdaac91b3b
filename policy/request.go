package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// query is one request on its way through the set: the Cedar request and,
// made only when a condition asks, its entities and context. It answers
// [types.EntityGetter]. Not safe for concurrent use.
type query struct {
	set       *Set
	action    *action
	request   *exeq.Request
	in        *exeq.Inputs
	principal *principal
	resource  types.EntityUID
	sha256    exeq.Digest

	// host and port of an endpoint, server and name of a tool.
	host, server, name string
	port               int

	entity  types.Entity // of the resource
	made    bool
	context types.Record
	has     deps // members that context holds
	want    deps // everything that was asked for

	found  []int32 // candidates, ascending
	unseen deps    // what rules look at that the index left out
	words  []byte  // room for the reason, kept from query to query

	// Room for the usual, so that a decision allocates little.
	room             [24]int32
	settled          [24]settled
	forbids, permits [4]*rule
	self             [1]types.EntityUID
	alone            [1]group
	own              principal
}

func (s *Set) newQuery(r *exeq.Request, in *exeq.Inputs) (*query, error) {
	q := new(query)
	return q, q.start(s, r, in)
}

// start refuses every request whose parts are not exactly known. The query is
// a zero one.
func (q *query) start(s *Set, r *exeq.Request, in *exeq.Inputs) error {
	name := r.Action
	if name == exeq.ActionMap {
		name = exeq.ActionExec
	}
	a, ok := vocabulary().actions[name]
	if !ok {
		return fmt.Errorf("unknown action %q", r.Action)
	}
	if want := string(a.resource[len(namespace):]); r.Resource.Type != want {
		return fmt.Errorf("%s takes a %s, not a %s", r.Action, want, r.Resource.Type)
	}
	uid, p, err := s.directory.find(r.Subject)
	if err != nil {
		return err
	}
	for _, e := range r.OnBehalfOf {
		if _, _, err := s.directory.find(e); err != nil {
			return fmt.Errorf("on behalf of: %w", err)
		}
	}
	if in.Tier < exeq.TierNested || in.Tier > exeq.TierKernel {
		return fmt.Errorf("unknown tier %d", in.Tier)
	}
	if in.Risk < 0 || in.Risk > 100 {
		return fmt.Errorf("risk %d is not within 0 to 100", in.Risk)
	}
	q.set, q.request, q.in, q.principal = s, r, in, p
	if p == nil { // not listed and need not be: it stands for itself
		q.self[0] = uid
		q.own = principal{uid: uid, ancestors: q.self[:], entity: types.Entity{UID: uid}}
		q.own.groups = s.index.groupsOf(q.alone[:0], q.self[:])
		q.principal = &q.own
	}
	return q.aim(a, r.Resource.ID, r.Resource.SHA256)
}

// aim points the query at another resource.
func (q *query) aim(a *action, id string, sha256 exeq.Digest) error {
	q.action, q.sha256 = a, sha256
	q.resource = types.EntityUID{Type: a.resource, ID: types.String(id)}
	q.made, q.has, q.want = false, 0, 0
	var err error
	switch a.class {
	case classEndpoint:
		q.host, q.port, err = splitEndpoint(id)
	case classTool:
		q.server, q.name, err = splitTool(id)
	}
	return err
}

// relative gives p relative to place, "." for place itself.
func relative(place, p string) (string, bool) {
	switch {
	case p == place:
		return ".", true
	case place == "/":
		return p[1:], true
	case len(p) > len(place) && p[len(place)] == '/' && strings.HasPrefix(p, place):
		return p[len(place)+1:], true
	}
	return "", false
}

// prefixes yields p and each directory above it but the root of the spelling:
// for "/a/b" "/a/b", "/a", "/"; for the relative "a/b" "a/b", "a", ".".
func prefixes(p, root string, yield func(string)) {
	for p != root {
		yield(p)
		cut := strings.LastIndexByte(p, '/')
		if cut < 0 || cut == 0 && root == "/" {
			break
		}
		p = p[:cut]
	}
	yield(root)
}

// above yields each entity that the resource is in, itself excepted, the
// types one after the other.
func (q *query) above(yield func(types.EntityType, string)) {
	id := string(q.resource.ID)
	switch q.action.class {
	case classPath, classProgram:
		prefixes(id, "/", func(p string) {
			if q.action.class == classProgram || p != id {
				yield(typePath, p)
			}
		})
		c := &q.request.Context
		for _, place := range [...]struct {
			t  types.EntityType
			at string
		}{{typeWorkspace, c.Workspace}, {typeHome, c.Home}, {typeTmp, c.Tmp}} {
			if rel, ok := relative(place.at, id); ok {
				prefixes(rel, ".", func(p string) { yield(place.t, p) })
			}
		}
	case classEndpoint:
		q.domains(func(d string) { yield(typeDomain, d) })
	case classTool:
		yield(typeToolServer, q.server)
	}
}

// domains yields the name of an endpoint and each suffix of it; an address
// has none.
func (q *query) domains(yield func(string)) {
	if looksNumeric(q.host) {
		return
	}
	for d := q.host; ; {
		yield(d)
		cut := strings.IndexByte(d, '.')
		if cut < 0 {
			return
		}
		d = d[cut+1:]
	}
}

// Get implements [types.EntityGetter]. The resource carries all its ancestors,
// so that none of them needs to be an entity of its own.
func (q *query) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid.Type {
	case q.resource.Type:
		if uid == q.resource {
			if !q.made {
				q.entity, q.made = q.makeEntity(), true
			}
			return q.entity, true
		}
		if uid.Type == typePath {
			return q.place(uid)
		}
	case typePath:
		return q.place(uid)
	case typeAction:
		if uid == q.action.uid {
			return q.action.entity, true
		}
	default:
		if uid == q.principal.uid {
			return q.principal.entity, true
		}
		if p, ok := q.set.directory.known[uid]; ok {
			return p.entity, true
		}
	}
	return types.Entity{}, false
}

// place gives context.workspace, .home and .tmp as entities, so that
// context.workspace in Exeq::Path::"/srv" works.
func (q *query) place(uid types.EntityUID) (types.Entity, bool) {
	c, id := &q.request.Context, string(uid.ID)
	if id != c.Workspace && id != c.Home && id != c.Tmp {
		return types.Entity{}, false
	}
	at := *q
	at.action, at.resource, at.want = vocabulary().read, uid, depResource
	return at.makeEntity(), true
}

// makeEntity makes of the resource what the conditions ask for: its parents,
// its attributes, or both.
func (q *query) makeEntity() types.Entity {
	e := types.Entity{UID: q.resource}
	// The resource may be the workspace itself, of which a condition may ask
	// where it lies.
	if q.want&(depResource|depOdd|depWorkspace|depHome|depTmp) != 0 {
		parents := make([]types.EntityUID, 0, 16)
		q.above(func(t types.EntityType, id string) {
			parents = append(parents, types.EntityUID{Type: t, ID: types.String(id)})
		})
		e.Parents = types.NewEntityUIDSet(parents...)
	}
	if q.want&(depDigest|depName|depAddress|depOdd) == 0 {
		return e
	}
	switch q.action.class {
	case classProgram:
		id := string(q.resource.ID)
		e.Attributes = types.NewRecord(types.RecordMap{
			"sha256": types.String(q.sha256.String()),
			"name":   types.String(id[strings.LastIndexByte(id, '/')+1:]),
		})
	case classEndpoint:
		attrs := types.RecordMap{"host": types.String(q.host), "port": types.Long(q.port)}
		if looksNumeric(q.host) {
			if a, err := netip.ParseAddr(q.host); err == nil {
				attrs["ip"] = types.IPAddr(netip.PrefixFrom(a, a.BitLen()))
			}
		}
		e.Attributes = types.NewRecord(attrs)
	case classTool:
		e.Attributes = types.NewRecord(types.RecordMap{"server": types.String(q.server), "name": types.String(q.name)})
	}
	return e
}

// claims are the keys of context.claimed that the schema knows; a policy can
// name no other.
var claims = []string{"intent", "task", "model", "tool", "reason"}

// need makes ready what conditions with these dependencies look at: the
// context holds at least their members, the resource its parents or attributes.
func (q *query) need(want deps) {
	if more := want &^ q.want; more != 0 {
		q.want, q.made = q.want|more, false
	}
	want &= contextDeps
	if want&depWhole != 0 {
		want = contextDeps
	}
	if want &^= q.has; want == 0 {
		return
	}
	q.has |= want
	if q.action.class != classProgram {
		q.has &^= depArgs
	}
	q.context = q.contextRecord()
}

// record makes the context record of the members in has.
func (q *query) record() types.Record {
	m := types.RecordMap{}
	in, c := q.in, &q.request.Context
	for key, d := range contextKeys {
		if q.has&d == 0 {
			continue
		}
		switch d {
		case depTier:
			m[key] = types.Long(in.Tier)
		case depRisk:
			m[key] = types.Long(in.Risk)
		case depClaimed:
			m[key] = claimed(c.Claimed)
		case depSession:
			m[key] = sessionRecord(&in.Session, q.has&depCounts != 0)
		case depWorkspace:
			m[key] = types.EntityUID{Type: typePath, ID: types.String(c.Workspace)}
		case depHome:
			m[key] = types.EntityUID{Type: typePath, ID: types.String(c.Home)}
		case depTmp:
			m[key] = types.EntityUID{Type: typePath, ID: types.String(c.Tmp)}
		case depCommand:
			m[key] = types.String(c.Command)
		case depArgs:
			m[key] = argSet(q.request.Argv)
		}
	}
	return types.NewRecord(m)
}

func claimed(m map[string]string) types.Record {
	out := types.RecordMap{}
	for _, k := range claims {
		if v, ok := m[k]; ok {
			out[types.String(k)] = types.String(v)
		}
	}
	return types.NewRecord(out)
}

// sessionRecord leaves the counts out where no condition asks for them: they
// change with every activity, the labels seldom.
func sessionRecord(s *exeq.Session, counts bool) types.Record {
	labels := make([]types.Value, len(s.Labels))
	for i, l := range s.Labels {
		labels[i] = types.String(l)
	}
	m := types.RecordMap{"labels": types.NewSet(labels...)}
	if counts {
		m["execs"], m["reads"], m["writes"] = types.Long(s.Execs), types.Long(s.Reads), types.Long(s.Writes)
		m["connects"], m["denials"], m["processes"] = types.Long(s.Connects), types.Long(s.Denials), types.Long(s.Processes)
		m["bytesOut"] = types.Long(s.BytesOut)
	}
	return types.NewRecord(m)
}

// argSet gives the arguments behind the program's name.
func argSet(argv []string) types.Set {
	if len(argv) < 2 {
		return types.NewSet()
	}
	vs := make([]types.Value, len(argv)-1)
	for i, a := range argv[1:] {
		vs[i] = types.String(a)
	}
	return types.NewSet(vs...)
}

// cedarRequest is the request in Cedar's form, with what need has made.
func (q *query) cedarRequest() cedar.Request {
	return cedar.Request{Principal: q.principal.uid, Action: q.action.uid, Resource: q.resource, Context: q.context}
}
