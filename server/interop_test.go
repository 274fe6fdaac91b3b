package server_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The interop scenarios of the AuthZEN working group (openid/authzen, interop/),
// asked whole: each question that the scenario's people, things and actions make
// up, against the scenario's rules written again in Go.

// entity is one entry of an entities.json.
type entity struct {
	UID   struct{ Type, ID string }
	Attrs struct {
		Email, Role, Department string
		Roles                   []string
		Owner                   struct {
			Entity struct{ ID string } `json:"__entity"`
		}
	}
}

// listed gives the entities of a type in an application of testdata.
func listed(t *testing.T, app, kind string) (out []entity) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", app, "entities.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []entity
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.UID.Type == kind {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s lists no %s", app, kind)
	}
	return out
}

func (e *entity) has(roles ...string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(e.Attrs.Roles, r) })
}

// expect asks one question.
func (p *point) expect(question string, want bool) {
	p.t.Helper()
	var d decision
	if p.ask(one, question, &d); d.Decision == nil || *d.Decision != want {
		p.t.Errorf("%s: %v, want %v", question, d.Decision, want)
	}
}

// TestInteropTodo: the Todo application asks about single items.
func TestInteropTodo(t *testing.T) {
	p := serve(t, "todo")
	people := listed(t, "todo", "Todo::user")
	ask := func(who *entity, action, resource string) string {
		return fmt.Sprintf(`{"subject":{"type":"user","id":%q},"action":{"name":%q},"resource":%s}`, who.UID.ID, action, resource)
	}
	for i := range people {
		who := &people[i]
		edits := who.has("editor", "admin", "evil_genius")
		p.expect(ask(who, "can_read_todos", `{"type":"todo","id":"todo-1"}`), true)
		p.expect(ask(who, "can_create_todo", `{"type":"todo","id":"todo-1"}`), edits)
		for _, owner := range people {
			p.expect(ask(who, "can_read_user", fmt.Sprintf(`{"type":"user","id":%q}`, owner.Attrs.Email)), true)
			item := fmt.Sprintf(`{"type":"todo","id":"7240d0db","properties":{"ownerID":%q}}`, owner.Attrs.Email)
			own := edits && owner.UID == who.UID
			p.expect(ask(who, "can_update_todo", item), own || who.has("evil_genius"))
			p.expect(ask(who, "can_delete_todo", item), own || who.has("admin"))
		}
	}
	// What the schema does not let a request state is nobody's to claim.
	p.expect(`{"subject":{"type":"user","id":"mallory","properties":{"roles":["admin"]}},"action":{"name":"can_delete_todo"},"resource":{"type":"todo","id":"x"}}`, false)
}

// TestInteropGateway: an API gateway asks about methods and routes.
func TestInteropGateway(t *testing.T) {
	p := serve(t, "gateway")
	for _, who := range listed(t, "gateway", "Gateway::identity") {
		for _, route := range listed(t, "gateway", "Gateway::route") {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
				p.expect(fmt.Sprintf(`{"subject":{"type":"identity","id":%q},"action":{"name":%q},"resource":{"type":"route","id":%q}}`,
					who.UID.ID, method, route.UID.ID), method == "GET" || who.has("editor", "admin", "evil_genius"))
			}
		}
	}
}

// TestInteropSearch: the search and the identity provider's scenario look for
// people, records and actions, and find what an evaluation permits.
func TestInteropSearch(t *testing.T) {
	p := serve(t, "search")
	people, records := listed(t, "search", "Search::user"), listed(t, "search", "Search::record")
	actions := []string{"delete", "edit", "view"}
	may := func(who *entity, action string, r *entity) bool {
		manager, department := who.Attrs.Role == "manager", who.Attrs.Department == r.Attrs.Department
		switch own := r.Attrs.Owner.Entity.ID == who.UID.ID; action {
		case "view":
			return own || department || manager
		case "edit":
			return own || manager && department
		default:
			return own
		}
	}
	found := func(kind, question string, want []string) {
		t.Helper()
		var r results
		if p.ask(find+kind, question, &r); !slices.Equal(r.names(), want) {
			t.Errorf("%s %s: %v, want %v", kind, question, r.names(), want)
		}
	}
	subject := func(e *entity) string { return fmt.Sprintf(`"subject":{"type":"user","id":%q}`, e.UID.ID) }
	resource := func(e *entity) string { return fmt.Sprintf(`"resource":{"type":"record","id":%q}`, e.UID.ID) }
	action := func(name string) string { return fmt.Sprintf(`"action":{"name":%q}`, name) }
	for i := range people {
		for j := range records {
			may3 := []string{}
			for _, a := range actions {
				want := may(&people[i], a, &records[j])
				p.expect(object(subject(&people[i]), action(a), resource(&records[j])), want)
				if want {
					may3 = append(may3, a)
				}
			}
			found("action", object(subject(&people[i]), resource(&records[j])), may3)
		}
	}
	for _, a := range actions {
		for i := range people {
			want := []string{}
			for j := range records {
				if may(&people[i], a, &records[j]) {
					want = append(want, records[j].UID.ID)
				}
			}
			found("resource", object(subject(&people[i]), action(a), `"resource":{"type":"record"}`), want)
		}
		for j := range records {
			want := []string{}
			for i := range people {
				if may(&people[i], a, &records[j]) {
					want = append(want, people[i].UID.ID)
				}
			}
			found("subject", object(`"subject":{"type":"user"}`, action(a), resource(&records[j])), want)
		}
	}
}
