package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// index finds the rules whose scope a request matches, exactly: action, then
// resource, then principal. Groups are expanded when it is built; a path is
// looked up once for each of its directories. What it finds needs only the
// rest of its conditions evaluated. A rule about any resource that asks for one
// argument, name or host is found by that. A test holds the index equal to a
// linear scan.
type index struct {
	actions map[*action]*actionIndex
	// numbers are of the principals and groups that scopes name.
	numbers map[types.EntityUID]int32
	alone   []int32 // each rule, for the many buckets of one
}

type actionIndex struct {
	any   bucket
	equal names
	// in holds rules for what lies in an entity, by its type and id.
	in [numSlots]names
	// keyed holds the rules about any resource that stand under a literal of
	// their conditions, as byArg, byName and byHost do; uses is what they all
	// look at.
	keyed                 bucket
	byArg, byName, byHost names
	uses                  deps
	// spread: a rule stands under several keys, so hits may repeat.
	spread bool
}

// slot numbers the types that a resource can be in.
type slot int

const (
	slotPath slot = iota
	slotWorkspace
	slotHome
	slotTmp
	slotDomain
	slotServer
	slotSelf // the resource's own type, where that is no Path
	numSlots
)

// slotOf gives the slot of a type for an action; false where nothing that the
// action is done to can be in it.
func slotOf(t types.EntityType, a *action) (slot, bool) {
	switch t {
	case typePath:
		return slotPath, true
	case typeWorkspace:
		return slotWorkspace, true
	case typeHome:
		return slotHome, true
	case typeTmp:
		return slotTmp, true
	case typeDomain:
		return slotDomain, true
	case typeToolServer:
		return slotServer, true
	}
	return slotSelf, t == a.resource
}

// names finds a bucket by a text. Most texts that are asked for are of no
// length that stands in it, and need no hashing.
type names struct {
	at      map[string]*bucket
	lengths [4]uint64
}

func (n *names) get(s string) *bucket {
	l := uint8(len(s))
	if n.lengths[l>>6]&(1<<(l&63)) == 0 {
		return nil
	}
	return n.at[s]
}

// make gives the bucket of a text: the first of room, which is for this one and
// those to come, where none is there yet.
func (n *names) make(s string, room []bucket) *bucket {
	b := n.at[s]
	if b == nil {
		if n.at == nil {
			n.at = make(map[string]*bucket, len(room))
		}
		b = &room[0]
		n.at[s] = b
		l := uint8(len(s))
		n.lengths[l>>6] |= 1 << (l & 63)
	}
	return b
}

// bucket holds the rules of one resource key by principal.
type bucket struct {
	any  []int32
	is   map[types.EntityType][]int32
	byID []grant // by principal's number, then rule
}

// grant is a rule about one principal or group; is narrows it to a type.
type grant struct {
	number, rule int32
	is           types.EntityType // empty: any
}

func buildIndex(rules []*rule) *index {
	ix := &index{actions: map[*action]*actionIndex{}, numbers: map[types.EntityUID]int32{}, alone: make([]int32, len(rules))}
	for i, r := range rules {
		ix.alone[i] = int32(i)
		keysOf := map[types.EntityType][]resourceKey{} // the same for each action on a type
		for _, name := range r.actions {
			a := vocabulary().actions[name]
			keys, seen := keysOf[a.resource]
			all := keys == nil
			if !seen {
				keys, all = resourceKeys(r, a.resource)
				if !all && keys == nil {
					keys = []resourceKey{}
				}
				keysOf[a.resource] = keys
			}
			if !all && len(keys) == 0 {
				continue // another type of resource
			}
			ai := ix.actions[a]
			if ai == nil {
				ai = &actionIndex{}
				ix.actions[a] = ai
			}
			ai.spread = ai.spread || len(keys) > 1
			room := make([]bucket, len(keys)) // one allocation for all
			if all {
				ix.addAny(ai, a, r, int32(i))
			}
			for n, k := range keys {
				if !k.in {
					ix.add(ai.equal.make(string(k.uid.ID), room[n:]), r, int32(i))
				} else if s, ok := slotOf(k.uid.Type, a); ok {
					ix.add(ai.in[s].make(string(k.uid.ID), room[n:]), r, int32(i))
				}
			}
		}
	}
	for _, ai := range ix.actions {
		ai.any.sort()
		ai.keyed.sort()
		for _, n := range append([]*names{&ai.equal, &ai.byArg, &ai.byName, &ai.byHost}, ai.slots()...) {
			for _, b := range n.at {
				b.sort()
			}
		}
	}
	return ix
}

func (ai *actionIndex) slots() (out []*names) {
	for s := range ai.in {
		out = append(out, &ai.in[s])
	}
	return out
}

// sort puts the grants, which stand by rule, by principal.
func (b *bucket) sort() {
	slices.SortStableFunc(b.byID, func(x, y grant) int { return cmp.Compare(x.number, y.number) })
}

// addAny puts a rule about any resource under a literal that it cannot do
// without, if it has one.
func (ix *index) addAny(ai *actionIndex, a *action, r *rule, i int32) {
	for _, k := range r.quick {
		if !k.total(a.class) {
			break // it may err, and no literal behind it may hide that
		}
		var by *names
		switch {
		case k.op == quickArg:
			by = &ai.byArg
		case k.op == quickText && k.fact == factName:
			by = &ai.byName
		case k.op == quickText && k.fact == factHost:
			by = &ai.byHost
		default:
			continue
		}
		ix.add(by.make(k.text, make([]bucket, 1)), r, i)
		ix.add(&ai.keyed, r, i)
		ai.uses |= r.uses
		return
	}
	ix.add(&ai.any, r, i)
}

// resourceKey is where a rule stands: under what lies in an entity, or under
// the entity alone.
type resourceKey struct {
	uid types.EntityUID
	in  bool
}

// resourceKeys gives the keys under which a rule is found for a type of
// resource, or all.
func resourceKeys(r *rule, t types.EntityType) (keys []resourceKey, all bool) {
	switch s := r.policy.Resource.(type) {
	case ast.ScopeTypeEq:
		if s.Entity.Type != t {
			return nil, false
		}
		return []resourceKey{{uid: s.Entity}}, false
	case ast.ScopeTypeIn:
		return []resourceKey{{s.Entity, true}}, false
	case ast.ScopeTypeIsIn:
		if s.Type != t {
			return nil, false
		}
		return []resourceKey{{s.Entity, true}}, false
	case ast.ScopeTypeIs:
		if s.Type != t {
			return nil, false
		}
	}
	if r.indexed < 0 {
		return nil, true
	}
	keys, _ = placeKeys(nil, r.conjuncts[r.indexed].node)
	return slices.DeleteFunc(keys, func(k resourceKey) bool { return !k.in && k.uid.Type != t }), false
}

// placeKeys reads resource in X, resource == X, and such joined by ||.
func placeKeys(keys []resourceKey, n ast.IsNode) ([]resourceKey, bool) {
	switch t := n.(type) {
	case ast.NodeTypeOr:
		left, ok := placeKeys(keys, t.Left)
		if !ok {
			return nil, false
		}
		return placeKeys(left, t.Right)
	case ast.NodeTypeIn:
		if !isVariable(t.Left, "resource") {
			return nil, false
		}
		us, ok := targets(t.Right)
		if !ok {
			return nil, false
		}
		keys = slices.Grow(keys, len(us))
		for _, u := range us {
			keys = append(keys, resourceKey{u, true})
		}
		return keys, true
	case ast.NodeTypeEquals:
		if u, ok := entityLiteral(t.Right); ok && isVariable(t.Left, "resource") {
			return append(keys, resourceKey{uid: u}), true
		}
	}
	return nil, false
}

func (ix *index) add(b *bucket, r *rule, i int32) {
	byID := func(u types.EntityUID, is types.EntityType) {
		n, ok := ix.numbers[u]
		if !ok {
			n = int32(len(ix.numbers))
			ix.numbers[u] = n
		}
		b.byID = append(b.byID, grant{n, i, is}) // sorted once all are there
	}
	switch s := r.policy.Principal.(type) {
	case ast.ScopeTypeAll:
		if b.any == nil {
			b.any = ix.alone[i : i+1 : i+1] // append copies it
			return
		}
		b.any = append(b.any, i)
	case ast.ScopeTypeIs:
		if b.is == nil {
			b.is = map[types.EntityType][]int32{}
		}
		b.is[s.Type] = append(b.is[s.Type], i)
	case ast.ScopeTypeEq:
		byID(s.Entity, s.Entity.Type)
	case ast.ScopeTypeIn:
		byID(s.Entity, "")
	case ast.ScopeTypeIsIn:
		byID(s.Entity, s.Type)
	}
}

// find puts the rules that match the query's scope into q.found, ascending
// (the rules stand sorted by id) and without repeats. Unless all are wanted it
// leaves out those that cannot hold for this request's arguments, name or host.
func (ix *index) find(q *query, all bool) {
	q.found, q.unseen = q.room[:0], 0
	ai := ix.actions[q.action]
	if ai == nil {
		return
	}
	ai.any.find(q)
	repeats := ai.spread
	if all {
		ai.keyed.find(q)
	} else if ai.uses != 0 {
		q.unseen = ai.uses
		repeats = ai.findKeyed(q) || repeats
	}
	id := string(q.resource.ID)
	ai.equal.find(q, id)
	switch q.action.class {
	case classPath, classProgram:
		ai.findPlaces(q, id)
	case classEndpoint:
		if in := &ai.in[slotDomain]; in.at != nil {
			q.domains(func(d string) { in.find(q, d) })
		}
	case classTool:
		ai.in[slotServer].find(q, q.server)
	}
	ai.in[slotSelf].find(q, id)
	slices.Sort(q.found)
	if repeats {
		q.found = slices.Compact(q.found)
	}
}

// findKeyed reports whether hits may repeat.
func (ai *actionIndex) findKeyed(q *query) bool {
	args := q.args()
	if ai.byArg.at != nil {
		for _, a := range args {
			ai.byArg.find(q, a)
		}
	}
	if ai.byName.at != nil {
		name, _ := q.text(factName)
		ai.byName.find(q, name)
	}
	ai.byHost.find(q, q.host)
	return len(args) > 1
}

// findPlaces looks up what a file lies in, as query.above lists it.
func (ai *actionIndex) findPlaces(q *query, id string) {
	if in := &ai.in[slotPath]; in.at != nil {
		for p := id; ; {
			in.find(q, p)
			cut := strings.LastIndexByte(p, '/')
			if cut <= 0 {
				if p != "/" {
					in.find(q, "/")
				}
				break
			}
			p = p[:cut]
		}
	}
	c := &q.request.Context
	for s, place := range [...]string{c.Workspace, c.Home, c.Tmp} {
		in := &ai.in[slotWorkspace+slot(s)]
		if in.at == nil {
			continue
		}
		if rel, ok := relative(place, id); ok {
			prefixes(rel, ".", func(p string) { in.find(q, p) })
		}
	}
}

func (n *names) find(q *query, s string) {
	if b := n.get(s); b != nil {
		b.find(q)
	}
}

func (b *bucket) find(q *query) {
	q.found = append(q.found, b.any...)
	if b.is != nil {
		q.found = append(q.found, b.is[q.principal.uid.Type]...)
	}
	if len(b.byID) == 0 {
		return
	}
	for _, g := range q.principal.groups {
		for i := b.first(g.number); i < len(b.byID) && b.byID[i].number == g.number; i++ {
			// == names the principal itself, never a group above it.
			if m := &b.byID[i]; m.is == "" || m.is == q.principal.uid.Type && (g.self || m.is != g.of) {
				q.found = append(q.found, m.rule)
			}
		}
	}
}

// first gives where the grants of a principal begin.
func (b *bucket) first(number int32) int {
	lo, hi := 0, len(b.byID)
	for lo < hi {
		if mid := (lo + hi) / 2; b.byID[mid].number < number {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// group is a principal, or something above it, that some scope names.
type group struct {
	number int32
	self   bool
	of     types.EntityType
}

// groupsOf numbers what a principal is in, itself first.
func (ix *index) groupsOf(out []group, ancestors []types.EntityUID) []group {
	for i, u := range ancestors {
		if n, ok := ix.numbers[u]; ok {
			out = append(out, group{n, i == 0, u.Type})
		}
	}
	return out
}
