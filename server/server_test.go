package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/server"
)

const token = "of-the-test"

// point is an enforcement point before a server.
type point struct {
	t    *testing.T
	at   *httptest.Server
	inst *standalone.Installation
}

// serve starts a server over a new installation with the named applications.
func serve(t *testing.T, apps ...string) *point {
	t.Helper()
	inst, err := standalone.Open(t.Context(), standalone.Options{Dir: filepath.Join(t.TempDir(), "state")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inst.Close() })
	c := server.Config{Installation: inst, Token: token, Base: "https://pdp.example"}
	for _, a := range apps {
		app, err := policy.LoadApplication(filepath.Join("testdata", a))
		if err != nil {
			t.Fatal(err)
		}
		c.Applications = append(c.Applications, app)
	}
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &point{t, httptest.NewTLSServer(s), inst}
	t.Cleanup(p.at.Close)
	return p
}

// send posts a body as the caller that edit makes of a good one. Several may at
// once; what fails is an error of the test, and the status 0.
func (p *point) send(path, body string, edit func(*http.Request)) (status int, header http.Header, answer []byte) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), "POST", p.at.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return 0, nil, nil
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	if edit != nil {
		edit(r)
	}
	resp, err := p.at.Client().Do(r)
	if err != nil {
		p.t.Error(err)
		return 0, nil, nil
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		p.t.Error(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// ask posts a body that must be answered, into v.
func (p *point) ask(path, body string, v any) {
	p.t.Helper()
	status, header, answer := p.send(path, body, nil)
	if status != 200 || header.Get("Content-Type") != "application/json" {
		p.t.Errorf("POST %s %s: %d %s %s", path, body, status, header.Get("Content-Type"), answer)
		return
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		p.t.Errorf("POST %s: %v in %s", path, err, answer)
	}
}

// decision is an answer of which the decision must be there.
type decision struct {
	Decision *bool          `json:"decision"`
	Context  map[string]any `json:"context"`
}

const (
	one     = "/access/v1/evaluation"
	several = "/access/v1/evaluations"
	find    = "/access/v1/search/"
)

// TestRefused: who may not ask, or asks what is no question, gets a status, a
// message and nothing else.
func TestRefused(t *testing.T) {
	p := serve(t, "records")
	const good = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		name, path, body string
		edit             func(*http.Request)
		status           int
		says             string
	}{
		{"as it should be", one, good, nil, 200, `"decision":true`},
		{"no token", one, good, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "token"},
		{"another's token", one, good, header("Authorization", "Bearer another"), 401, "token"},
		{"a longer token", one, good, header("Authorization", "Bearer "+token+"x"), 401, "token"},
		{"another scheme", one, good, header("Authorization", "Basic "+token), 401, "token"},
		{"search without token", find + "subject", good, header("Authorization", ""), 401, "token"},
		{"a form", one, good, header("Content-Type", "application/x-www-form-urlencoded"), 400, "application/json"},
		{"no content type", one, good, header("Content-Type", ""), 400, "application/json"},
		{"a member twice", one, strings.Replace(good, `"id":"alice"`, `"id":"bob","id":"alice"`, 1), nil, 400, `"id" stands twice`},
		{"another case", one, strings.Replace(good, `"subject"`, `"Subject"`, 1), nil, 400, "subject: is missing"},
		{"null", one, strings.Replace(good, `{"type":"user","id":"alice"}`, "null", 1), nil, 400, "subject: want an object"},
		{"an array", one, "[" + good + "]", nil, 400, "want an object"},
		{"two values", one, good + good, nil, 400, "behind"},
		{"too deep", one, strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40), nil, 400, "nested"},
		{"not UTF-8", one, "{\"a\":\"\xff\"}", nil, 400, "UTF-8"},
		{"too large", one, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "limit"},
		{"too many", several, `{"evaluations":[{}` + strings.Repeat(",{}", 1000) + `]}`, nil, 400, "limit of 1000"},
		{"an unknown semantic", several, `{"evaluations":[{}],"options":{"evaluations_semantic":"first"}}`, nil, 400, "execute_all"},
		{"a broken page token", find + "subject", strings.Replace(good, `"action"`, `"page":{"token":"AAAA"},"action"`, 1), nil, 400, "page.token"},
		{"a negative limit", find + "subject", strings.Replace(good, `"action"`, `"page":{"limit":-1},"action"`, 1), nil, 400, "page.limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _, answer := p.send(c.path, c.body, c.edit)
			if status != c.status || !strings.Contains(string(answer), c.says) {
				t.Errorf("%d %s, want %d and %q", status, answer, c.status, c.says)
			}
			if status != 200 && strings.Contains(string(answer), "decision") {
				t.Errorf("a refusal with a decision: %s", answer)
			}
		})
	}
	for path, want := range map[string]int{one: 405, "/access/v1/nothing": 404, "/healthz": 200, "/readyz": 200} {
		resp, err := p.at.Client().Get(p.at.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// TestUnfit: a question that the API's rules let pass and that is not as the
// schema has it is denied and says why; in a batch the others are answered.
func TestUnfit(t *testing.T) {
	p := serve(t, "records")
	for name, c := range map[string]struct{ question, says string }{
		"a type of nobody":     {`{"subject":{"type":"spaceship","id":"a"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, "spaceship"},
		"an unknown subject":   {`{"subject":{"type":"user","id":"mallory"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, "knows no such user"},
		"an unknown action":    {`{"subject":{"type":"user","id":"alice"},"action":{"name":"own"},"resource":{"type":"record","id":"record-1"}}`, "no action"},
		"a property misfits":   {`{"subject":{"type":"user","id":"alice","properties":{"role":7}},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, "want a string"},
		"a contradiction":      {`{"subject":{"type":"user","id":"alice"},"action":{"name":"write"},"resource":{"type":"record","id":"record-2","properties":{"status":"active"}}}`, "contradicts"},
		"a context of no kind": {`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"},"context":{"exeq":7}}`, "context.exeq"},
		"a permit of an application": {`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"},
			"context":{"exeq":{"permit":{"node":"n","bootId":"b","epoch":"e"}}}}`, "permits are for the action run"},
	} {
		var d decision
		p.ask(one, c.question, &d)
		said, _ := json.Marshal(d.Context)
		if d.Decision == nil || *d.Decision || !strings.Contains(string(said), c.says) {
			t.Errorf("%s: %v %s, want a denial that says %q", name, d.Decision, said, c.says)
		}
	}
}

// TestTwoApplicationsOfOneType: no question has two who could answer it.
func TestTwoApplicationsOfOneType(t *testing.T) {
	var apps []*policy.Application
	for _, name := range []string{"records", "search"} {
		a, err := policy.LoadApplication(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		apps = append(apps, a)
	}
	inst, err := standalone.Open(context.Background(), standalone.Options{Dir: filepath.Join(t.TempDir(), "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer inst.Close()
	_, err = server.New(server.Config{Installation: inst, Applications: apps, Token: token, Base: "https://pdp.example"})
	if err == nil || !strings.Contains(err.Error(), `"record"`) {
		t.Errorf("two applications with one type: %v", err)
	}
}

// pemOf is a certificate as clients read it.
func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
