package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// directory knows the principals of a set. A Cedar policy about a team says
// nothing about an agent that is not known to be in it, so a forbid would fail
// open; that is why an unknown principal is refused before evaluation.
type directory struct {
	// listed: the set has an entities.json, and only what it lists exists.
	// Without one no policy can name a team, and any agent or user stands for
	// itself.
	listed bool
	known  map[types.EntityUID]*principal
	// agents and users are of known, by id.
	agents, users map[string]*principal
}

// principal is a User or Agent with everything that it is in, itself first.
type principal struct {
	uid       types.EntityUID
	ancestors []types.EntityUID
	entity    types.Entity
	groups    []group // of ancestors, those that scopes name
}

// entityJSON is one element of entities.json, in Cedar's own JSON form.
type entityJSON struct {
	UID     exeq.Entity       `json:"uid"`
	Parents []exeq.Entity     `json:"parents"`
	Attrs   map[string]string `json:"attrs,omitempty"` // must be empty
}

// decodeEntities reads entities.json strictly.
func decodeEntities(text string) (*directory, error) {
	var list []entityJSON
	if err := canon.Decode([]byte(text), &list, canon.Limits{Bytes: exeq.MaxConfigBytes, Depth: exeq.MaxDepth}); err != nil {
		return nil, err
	}
	d := &directory{listed: true, known: make(map[types.EntityUID]*principal, len(list)),
		agents: map[string]*principal{}, users: map[string]*principal{}}
	parents := map[types.EntityUID][]types.EntityUID{}
	for i, e := range list {
		uid, err := directoryUID(e.UID)
		if err != nil {
			return nil, fmt.Errorf("[%d].uid: %w", i, err)
		}
		if len(e.Attrs) > 0 {
			return nil, fmt.Errorf("[%d].attrs: %s has no attributes", i, uid)
		}
		if _, dup := parents[uid]; dup {
			return nil, fmt.Errorf("[%d].uid: %s is listed twice", i, uid)
		}
		parents[uid] = []types.EntityUID{}
		for j, p := range e.Parents {
			puid, err := directoryUID(p)
			if err != nil {
				return nil, fmt.Errorf("[%d].parents[%d]: %w", i, j, err)
			}
			if uid.Type == typeNode || puid.Type != typeTeam {
				return nil, fmt.Errorf("[%d].parents[%d]: %s cannot be in %s (users, agents and teams are in teams)", i, j, uid, puid)
			}
			parents[uid] = append(parents[uid], puid)
		}
	}
	for _, uid := range slices.SortedFunc(maps.Keys(parents), compareUID) {
		for _, p := range parents[uid] {
			if _, ok := parents[p]; !ok {
				return nil, fmt.Errorf("%s is in %s, which is not listed", uid, p)
			}
		}
		p := &principal{uid: uid, ancestors: closure(uid, parents)}
		if p.ancestors == nil {
			return nil, fmt.Errorf("%s is in itself", uid)
		}
		p.entity = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(p.ancestors[1:]...)}
		d.known[uid] = p
		switch uid.Type {
		case typeAgent:
			d.agents[string(uid.ID)] = p
		case typeUser:
			d.users[string(uid.ID)] = p
		}
	}
	return d, nil
}

// entitiesWrong finds everything that is wrong with an entities.json.
func entitiesWrong(f *jsonFile, v *value) {
	if !v.is('[') {
		f.problem(v.at, "document: a list is wanted here", `write [{"uid": {"type": "Agent", "id": "dev"}, "parents": []}]`)
		return
	}
	parents := map[types.EntityUID][]types.EntityUID{}
	places := map[types.EntityUID]*value{}
	var order []types.EntityUID
	for i := range v.items {
		e, path := &v.items[i], fmt.Sprintf("[%d]", i)
		if !f.shape(e, path, "uid", "parents", "attrs") {
			continue
		}
		uid, ok := f.uid(e.member("uid"), e.at, path+".uid")
		if a := e.member("attrs"); a != nil && (!a.is('{') || len(a.members) > 0) {
			f.problem(a.at, path+".attrs: there are no attributes", "remove it")
		}
		if _, dup := parents[uid]; ok && dup {
			f.problem(e.at, fmt.Sprintf("%s.uid: %s is listed twice", path, uid), "make one entry of them")
		} else if ok {
			parents[uid], places[uid] = []types.EntityUID{}, e
			order = append(order, uid)
		}
		list := e.member("parents")
		if list == nil {
			continue
		}
		if !list.is('[') {
			f.problem(list.at, path+".parents: a list is wanted", `write "parents": [] where there are none`)
			continue
		}
		for j := range list.items {
			p, where := &list.items[j], fmt.Sprintf("%s.parents[%d]", path, j)
			puid, known := f.uid(p, p.at, where)
			switch {
			case !ok || !known:
			case uid.Type == typeNode || puid.Type != typeTeam:
				f.problem(p.at, fmt.Sprintf("%s: %s cannot be in %s", where, uid, puid), "users, agents and teams are in teams")
			default:
				parents[uid] = append(parents[uid], puid)
			}
		}
	}
	for _, uid := range order {
		for _, p := range parents[uid] {
			if _, ok := parents[p]; !ok {
				f.problem(places[uid].at, fmt.Sprintf("%s is in %s, which is not listed", uid, p), "list it too")
			}
		}
		if closure(uid, parents) == nil {
			f.problem(places[uid].at, fmt.Sprintf("%s is in itself", uid), "break the circle of parents")
		}
	}
}

// uid reads the name of an entity or says what is wrong with it.
func (f *jsonFile) uid(v *value, at int, path string) (u types.EntityUID, ok bool) {
	const fix = `write {"type": "Agent", "id": "dev"}; the types are User, Agent, Team and Node`
	if v == nil {
		f.problem(at, path+": it is missing", fix)
		return u, false
	}
	if !f.shape(v, path, "type", "id") {
		return u, false
	}
	var e exeq.Entity
	for name, to := range map[string]*string{"type": &e.Type, "id": &e.ID} {
		if m := v.member(name); m != nil {
			*to, _ = m.text.(string)
		}
	}
	u, err := directoryUID(e)
	if err != nil {
		f.problem(v.at, path+": "+err.Error(), fix)
	}
	return u, err == nil
}

// closure gives uid and everything above it; nil where it is above itself.
func closure(uid types.EntityUID, parents map[types.EntityUID][]types.EntityUID) []types.EntityUID {
	seen := map[types.EntityUID]bool{uid: true}
	out := []types.EntityUID{uid}
	for i := 0; i < len(out); i++ {
		for _, p := range parents[out[i]] {
			if p == uid {
				return nil
			}
			if !seen[p] {
				seen[p] = true
				out = append(out, p)
			}
		}
	}
	return out
}

func compareUID(a, b types.EntityUID) int {
	if a.Type != b.Type {
		if a.Type < b.Type {
			return -1
		}
		return 1
	}
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// directoryTypes are the types that entities.json may list, by either name.
var directoryTypes = map[string]types.EntityType{
	"User": typeUser, "Agent": typeAgent, "Team": typeTeam, "Node": typeNode,
	string(typeUser): typeUser, string(typeAgent): typeAgent, string(typeTeam): typeTeam, string(typeNode): typeNode,
}

func directoryUID(e exeq.Entity) (types.EntityUID, error) {
	t, ok := directoryTypes[e.Type]
	if !ok {
		return types.EntityUID{}, fmt.Errorf("unknown type %q (want Exeq::User, Agent, Team or Node)", e.Type)
	}
	if e.ID == "" || exeq.EncodeBytes(e.ID) != e.ID {
		return types.EntityUID{}, fmt.Errorf("%s %q: an id is printable text", e.Type, e.ID)
	}
	return types.NewEntityUID(t, types.String(e.ID)), nil
}

// find gives the principal of a request, nil where none is listed and it need
// not be, or why it is refused.
func (d *directory) find(e exeq.Entity) (types.EntityUID, *principal, error) {
	uid := types.EntityUID{ID: types.String(e.ID)}
	var p *principal
	switch e.Type {
	case "Agent":
		uid.Type, p = typeAgent, d.agents[e.ID]
	case "User":
		uid.Type, p = typeUser, d.users[e.ID]
	default:
		return uid, nil, fmt.Errorf("a %q cannot ask: principals are agents and users", e.Type)
	}
	if p != nil {
		return uid, p, nil
	}
	if d.listed {
		return uid, nil, fmt.Errorf("%s %q is not listed in %s", e.Type, e.ID, EntitiesFile)
	}
	if e.ID == "" || exeq.EncodeBytes(e.ID) != e.ID {
		return uid, nil, fmt.Errorf("%s %q: an id is printable text", e.Type, e.ID)
	}
	return uid, nil, nil
}

// has reports whether a policy may name the entity.
func (d *directory) has(uid types.EntityUID) bool {
	if _, ok := d.known[uid]; ok {
		return true
	}
	return !d.listed && uid.Type != typeTeam && uid.Type != typeNode
}
