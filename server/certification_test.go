package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Members of the certification scenario of the AuthZEN working group
// (certification/authorization-api-1_0-scenario.md in openid/authzen): its
// fixture is testdata/records.
const (
	alice    = `"subject":{"type":"user","id":"alice"}`
	bob      = `"subject":{"type":"user","id":"bob"}`
	admin    = `"subject":{"type":"user","id":"bob","properties":{"role":"admin"}}`
	read     = `"action":{"name":"read"}`
	write    = `"action":{"name":"write"}`
	record1  = `"resource":{"type":"record","id":"record-1"}`
	record2  = `"resource":{"type":"record","id":"record-2"}`
	active   = `"resource":{"type":"record","id":"record-1","properties":{"status":"active"}}`
	archived = `"resource":{"type":"record","id":"record-2","properties":{"status":"archived"}}`
	environ  = `"context":{"time":"2025-06-27T18:03-07:00","ip":"192.168.1.1"}`
)

func object(members ...string) string { return "{" + strings.Join(members, ",") + "}" }

// TestCertificationBasic: levels Basic Core and Basic Properties.
func TestCertificationBasic(t *testing.T) {
	p := serve(t, "records")
	deletes := func(soft string) string { return `"action":{"name":"delete","properties":{"soft":` + soft + `}}` }
	for _, c := range []struct {
		id   string
		body string
		want bool
	}{
		{"c-2-2-1", object(alice, read, record1), true},
		{"c-2-2-2", object(bob, write, record1), false},
		{"rule 2", object(alice, write, record1), true},
		{"rule 3", object(bob, read, record1), true},
		{"c-2-2-3", object(alice, read, record1, environ), true},
		{"c-2-2-4", object(alice, write, archived), false},
		{"c-2-2-5", object(admin, write, archived), true},
		{"c-2-2-6", object(alice, deletes("true"), record1), true},
		{"c-2-2-7", object(alice, deletes("false"), record1), false},
		{"c-2-2-8", object(`"subject":{"type":"user","id":"alice","properties":{"department":"Sales","role":"manager"}}`,
			`"action":{"name":"read","properties":{"method":"GET"}}`,
			`"resource":{"type":"record","id":"record-1","properties":{"status":"active","owner":"bob"}}`), true},
		{"c-2-2-9", object(alice, read, record1, `"foo":"bar"`, `"futureField":{"nested":true}`), true},
		{"c-3-4-2", object(alice, read, record1), true},
	} {
		for range 3 { // c-2-6: the same each time
			for _, path := range []string{one, several} {
				var d decision
				if p.ask(path, c.body, &d); d.Decision == nil || *d.Decision != c.want {
					t.Errorf("%s at %s: %v, want %v", c.id, path, d.Decision, c.want)
				}
			}
		}
	}
}

// TestCertificationErrors: sections c-2-4 and c-4-7.
func TestCertificationErrors(t *testing.T) {
	p := serve(t, "records")
	user, record := `"subject":{"type":"user"}`, `"resource":{"type":"record"}`
	for path, bodies := range map[string][]string{
		one: {
			object(read, record1), object(alice, record1), object(alice, read),
			object(`"subject":{"id":"alice"}`, read, record1), object(user, read, record1),
			object(alice, `"action":{}`, record1), object(alice, read, `"resource":{"id":"record-1"}`), object(alice, read, record),
			"{", "not JSON", "", " ", object(`"subject":"alice"`, read, record1), object(alice, `"action":{"name":123}`, record1),
		},
		find + "subject":  {object(user, record1), object(user, read, record)},
		find + "resource": {object(read, record), object(user, read, record)},
		find + "action":   {object(alice), object(user, record1)},
	} {
		for _, body := range bodies {
			if status, _, answer := p.send(path, body, nil); status != http.StatusBadRequest {
				t.Errorf("POST %s %s: %d %s, want 400", path, body, status, answer)
			}
		}
	}
}

// TestCertificationRequestID: section c-2-5.
func TestCertificationRequestID(t *testing.T) {
	p := serve(t, "records")
	const id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
	_, header, _ := p.send(one, object(alice, read, record1), func(r *http.Request) { r.Header.Set("X-Request-ID", id) })
	if got := header.Get("X-Request-ID"); got != id {
		t.Errorf("X-Request-ID: %q, want %q", got, id)
	}
	if status, _, _ := p.send(one, object(alice, read, record1), nil); status != 200 {
		t.Errorf("without X-Request-ID: %d", status)
	}
	status, header, _ := p.send(one, "{", func(r *http.Request) { r.Header.Set("X-Request-ID", id) })
	if got := header.Get("X-Request-ID"); status != 400 || got != id {
		t.Errorf("a refusal: %d, X-Request-ID %q", status, got)
	}
}

// TestCertificationBatch: levels Batch Core and Batch Properties, and the
// semantics that the scenario leaves out.
func TestCertificationBatch(t *testing.T) {
	p := serve(t, "records")
	list := func(items ...string) string { return `"evaluations":[` + strings.Join(items, ",") + "]" }
	semantic := func(s string) string { return `"options":{"evaluations_semantic":"` + s + `"}` }
	for _, c := range []struct {
		id   string
		body string
		want []bool
	}{
		{"c-3-2-1", object(alice, read, list(object(record1), object(record2))), []bool{true, true}},
		{"c-3-2-2", object(bob, record1, list(object(read), object(write))), []bool{true, false}},
		{"c-3-2-3", object(alice, write, list(object(active), object(archived))), []bool{true, false}},
		{"c-3-2-4", object(write, archived, list(object(alice), object(admin))), []bool{false, true}},
		{"c-3-2-5", object(list(object(alice, read, record1), object(bob, write, record1))), []bool{true, false}},
		{"c-3-2-6", object(alice, read, `"context":{"time":"2025-06-27T18:03-07:00"}`,
			list(object(record1), object(record2, `"context":{"source":"batch-override"}`))), []bool{true, true}},
		{"c-3-2-7", object(alice, write, active, list(object(), object(archived))), []bool{true, false}},
		{"c-3-4-1", object(alice, read, semantic("execute_all"), list(object(record1), object())), []bool{true, false}},
		{"deny on first deny", object(bob, record1, semantic("deny_on_first_deny"), list(object(read), object(write), object(read))), []bool{true, false}},
		{"deny on first failure", object(alice, read, semantic("deny_on_first_deny"), list(object(), object(record1))), []bool{false}},
		{"permit on first permit", object(bob, record1, semantic("permit_on_first_permit"), list(object(write), object(read), object(write))), []bool{false, true}},
		{"none permits", object(bob, record1, semantic("permit_on_first_permit"), list(object(write), object(write))), []bool{false, false}},
	} {
		var d struct {
			Decision    *bool      `json:"decision"`
			Evaluations []decision `json:"evaluations"`
		}
		p.ask(several, c.body, &d)
		var got []bool
		for _, e := range d.Evaluations {
			if e.Decision == nil {
				t.Fatalf("%s: an evaluation without decision", c.id)
			}
			got = append(got, *e.Decision)
		}
		if !slices.Equal(got, c.want) || d.Decision != nil {
			t.Errorf("%s: %v, want %v", c.id, got, c.want)
		}
	}
	var d decision // c-3-4-3
	if p.ask(several, object(alice, read, record1, `"evaluations":[]`), &d); d.Decision == nil || !*d.Decision {
		t.Errorf("an empty array: %v, want true", d.Decision)
	}
}

type results struct {
	Page *struct {
		NextToken *string `json:"next_token"`
		Count     int     `json:"count"`
		Total     int     `json:"total"`
	} `json:"page"`
	Results []struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"results"`
}

func (r *results) names() []string {
	out := []string{}
	for _, x := range r.Results {
		out = append(out, x.ID+x.Name)
	}
	return out
}

// TestCertificationSearch: levels Search Core and Search Properties.
func TestCertificationSearch(t *testing.T) {
	p := serve(t, "records")
	user, record := `"subject":{"type":"user"}`, `"resource":{"type":"record"}`
	for _, c := range []struct {
		id, kind, body string
		want           []string
	}{
		{"c-4-2-1", "subject", object(user, read, record1), []string{"alice", "bob"}},
		{"c-4-2-2", "subject", object(user, read, record1, environ), []string{"alice", "bob"}},
		{"c-4-2-3", "subject", object(alice, read, record1), []string{"alice", "bob"}},
		{"c-4-2-4", "subject", object(user, write, archived), []string{"bob"}},
		{"c-4-3-1", "resource", object(alice, read, record), []string{"record-1", "record-2"}},
		{"c-4-3-2", "resource", object(alice, read, record, environ), []string{"record-1", "record-2"}},
		{"c-4-3-3", "resource", object(alice, read, record1), []string{"record-1", "record-2"}},
		{"c-4-3-4", "resource", object(admin, write, record), []string{"record-2"}},
		{"c-4-4-1", "action", object(alice, record1), []string{"read", "write"}},
		{"c-4-4-2", "action", object(alice, record1, environ), []string{"read", "write"}},
		{"c-4-4-3", "action", object(admin, archived), []string{"read", "write"}},
		{"c-4-6-1", "action", object(`"subject":{"type":"user","id":"nonexistent-user"}`, record1), []string{}},
		{"c-4-6-1 of resources", "resource", object(`"subject":{"type":"user","id":"nonexistent-user"}`, read, record), []string{}},
		{"c-4-6-2", "subject", object(`"subject":{"type":"spaceship"}`, read, record1), []string{}},
		{"c-4-6-2 of resources", "resource", object(alice, read, `"resource":{"type":"spaceship"}`), []string{}},
		{"c-4-6-2 of actions", "action", object(alice, `"resource":{"type":"spaceship","id":"x"}`), []string{}},
	} {
		var r results
		p.ask(find+c.kind, c.body, &r)
		if got := r.names(); r.Results == nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.id, got, c.want)
		}
	}
}

// TestCertificationPages: section c-4-5.
func TestCertificationPages(t *testing.T) {
	p := serve(t, "records")
	question := func(page string) string { return object(`"subject":{"type":"user"}`, read, record1, `"page":`+page) }
	var first, second results
	p.ask(find+"subject", question(`{"limit":1}`), &first)
	if !slices.Equal(first.names(), []string{"alice"}) || first.Page == nil || first.Page.NextToken == nil || *first.Page.NextToken == "" || first.Page.Total != 2 {
		t.Fatalf("first page: %+v", first)
	}
	next := `"token":"` + *first.Page.NextToken + `"`
	for _, page := range []string{"{" + next + "}", `{"limit":1,` + next + "}"} {
		p.ask(find+"subject", question(page), &second)
		if !slices.Equal(second.names(), []string{"bob"}) || second.Page == nil || second.Page.NextToken == nil || *second.Page.NextToken != "" {
			t.Errorf("second page, asked for as %s: %+v", page, second)
		}
	}
	for name, body := range map[string]string{
		"another limit":    question(`{"limit":2,` + next + `}`),
		"another question": object(`"subject":{"type":"user"}`, write, record1, `"page":{`+next+`}`),
	} {
		if status, _, answer := p.send(find+"subject", body, nil); status != http.StatusBadRequest {
			t.Errorf("a token with %s: %d %s, want 400", name, status, answer)
		}
	}
}

// TestCertificationDiscovery: section c-6.
func TestCertificationDiscovery(t *testing.T) {
	p := serve(t)
	resp, err := p.at.Client().Get(p.at.URL + "/.well-known/authzen-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var m map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	const base = "https://pdp.example"
	for name, want := range map[string]string{
		"policy_decision_point": base, "access_evaluation_endpoint": base + one, "access_evaluations_endpoint": base + several,
		"search_subject_endpoint": base + find + "subject", "search_resource_endpoint": base + find + "resource", "search_action_endpoint": base + find + "action",
	} {
		if m[name] != want {
			t.Errorf("%s: %v, want %s", name, m[name], want)
		}
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "application/json" {
		t.Errorf("%d %s", resp.StatusCode, ct)
	}
}
