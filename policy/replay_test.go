package policy

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// A source survives its canonical bytes, and whoever loads them decides alike.
func TestSourceTravels(t *testing.T) {
	s := mustLoad(t, Starter())
	b, err := s.Source().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	src, err := DecodeSource(b)
	if err != nil {
		t.Fatal(err)
	}
	again := mustLoad(t, src)
	if again.PolicySet() != s.PolicySet() {
		t.Fatal("the digest changed on the way")
	}
	r := testRequest(exeq.ActionWrite, "/home/u/app/.envrc")
	if a, b := decide(t, s, r, testInputs()), decide(t, again, r, testInputs()); !sameDecision(a, b) {
		t.Errorf("%+v and %+v", a, b)
	}
	b2, _ := src.Canonical()
	if !bytes.Equal(b, b2) {
		t.Error("two spellings of one source")
	}
}

// The digest covers each file's name and text, and nothing else.
func TestDigestCovers(t *testing.T) {
	base := func() *Source {
		return &Source{Version: 1, Files: map[string]string{"a.cedar": "x", EntitiesFile: "[]", SettingsFile: "{}"}}
	}
	want, err := base().Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Source){
		"text":     func(s *Source) { s.Files["a.cedar"] = "y" },
		"name":     func(s *Source) { s.Files["b.cedar"] = s.Files["a.cedar"]; delete(s.Files, "a.cedar") },
		"entities": func(s *Source) { s.Files[EntitiesFile] = "[ ]" },
		"settings": func(s *Source) { delete(s.Files, SettingsFile) },
	} {
		src := base()
		change(src)
		if got, err := src.Digest(); err != nil || got == want {
			t.Errorf("%s: digest %s, %v", name, got, err)
		}
	}
	for name, src := range map[string]*Source{
		"version":   {Version: 2, Files: map[string]string{}},
		"traversal": {Version: 1, Files: map[string]string{"../a.cedar": ""}},
		"stranger":  {Version: 1, Files: map[string]string{"README.md": ""}},
		"too large": {Version: 1, Files: map[string]string{"a.cedar": strings.Repeat(" ", exeq.MaxPolicyBytes+1)}},
	} {
		if _, err := src.Digest(); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if _, err := Load(src); err == nil {
			t.Errorf("%s was loaded", name)
		}
	}
	for _, text := range []string{``, `{}`, `{"v":1,"files":{"a.cedar":"x","a.cedar":"y"}}`, `{"v":1,"files":{},"more":1}`, `{"v":1,"files":{"a.cedar":null}}`} {
		if _, err := DecodeSource([]byte(text)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func TestReadAndWriteDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	if err := Starter().WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := Starter().Digest()
	if s.PolicySet() != want {
		t.Error("the directory is not the starter that was written")
	}
	if err := Starter().WriteDir(dir); err == nil {
		t.Error("an existing policy was overwritten")
	}
	if _, err := LoadDir(filepath.Join(dir, "starter.cedar")); err != nil {
		t.Errorf("a single file: %v", err)
	}
	if _, err := LoadDir(filepath.Join(dir, "notes.txt")); err == nil {
		t.Error("a text file was loaded as a policy")
	}
	if err := os.Mkdir(filepath.Join(dir, "d.cedar"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(dir); err == nil {
		t.Error("a directory named d.cedar was passed over")
	}
	if _, err := LoadDir(t.TempDir()); err == nil {
		t.Error("an empty directory is a policy set")
	}
}

func TestReplayAndDiff(t *testing.T) {
	from := mustLoad(t, Starter())
	src := Starter()
	src.Files["starter.cedar"] = strings.Replace(src.Files["starter.cedar"], `     Exeq::Workspace::".envrc",
`, "", 1)
	src.Files["more.cedar"] = `@id("npm") permit(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"registry.npmjs.org:443");`
	to := mustLoad(t, src)

	var history []Recorded
	for i := range 3000 {
		r := testRequest(exeq.ActionRead, "/home/u/app/main.go")
		switch i {
		case 100:
			r = testRequest(exeq.ActionWrite, "/home/u/app/.envrc")
		case 2900:
			r = testRequest(exeq.ActionConnect, "registry.npmjs.org:443")
		}
		in := testInputs()
		history = append(history, Recorded{ID: string(rune('a' + i%26)), Request: r, Inputs: in, Decision: decide(t, from, r, in)})
	}
	same, err := from.Replay(context.Background(), history)
	if err != nil || len(same) != 0 {
		t.Fatalf("the same set decides %d otherwise, %v", len(same), err)
	}
	changes, err := to.Replay(context.Background(), history)
	if err != nil || len(changes) != 2 {
		t.Fatalf("%d changes, %v; want 2", len(changes), err)
	}
	if c := changes[0]; c.Request.Action != exeq.ActionWrite || c.Decision.Verdict != exeq.Deny || c.Now.Verdict != exeq.Allow {
		t.Errorf("first change %+v", c)
	}
	if c := changes[1]; c.Request.Action != exeq.ActionConnect || !slices.Equal(c.Now.Policies, []string{"npm"}) {
		t.Errorf("second change %+v", c)
	}
	other := history[:1:1]
	other[0].Decision.Policies = []string{"another"}
	if changes, _ := from.Replay(context.Background(), other); len(changes) != 1 {
		t.Error("the same verdict by another policy is no change")
	}
	for i := range history {
		history[i].Decision = exeq.Decision{} // Diff does not look at what was recorded
	}
	d, err := Diff(context.Background(), from, to, history)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Added, []string{"npm"}) || !slices.Equal(d.Changed, []string{"no-later-code"}) || len(d.Removed) != 0 || d.Settings || d.Entities || len(d.Decisions) != 2 {
		t.Errorf("difference %+v", d)
	}
	if back, _ := Diff(context.Background(), to, from, nil); !slices.Equal(back.Removed, []string{"npm"}) {
		t.Errorf("backwards %+v", back)
	}
	laid := Starter()
	laid.Files["starter.cedar"] = "// another comment\n" + strings.ReplaceAll(laid.Files["starter.cedar"], "\n  ", " ")
	if d, _ := Diff(context.Background(), from, mustLoad(t, laid), nil); len(d.Changed) != 0 {
		t.Errorf("layout alone changed %v", d.Changed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := to.Replay(ctx, history); err == nil {
		t.Error("a cancelled replay gave a result")
	}
}

func TestCases(t *testing.T) {
	s := mustLoad(t, Starter())
	results, err := s.Test("x.cases.json", []byte(`{"cases":[
	 {"name":"code","action":"write","resource":"./main.go","expect":{"verdict":"allow","policies":["workspace-files"]}},
	 {"name":"keys","action":"read","resource":"~/.ssh/id_rsa","expect":{"verdict":"deny","policies":["no-home-secrets"]}},
	 {"name":"net","action":"connect","resource":"example.com:443","expect":{"verdict":"deny","policies":[]}},
	 {"name":"wrong","action":"connect","resource":"example.com:443","expect":{"verdict":"allow"}},
	 {"name":"wrong policy","action":"run","resource":"/usr/bin/make","args":["all"],"expect":{"verdict":"allow","policies":["x"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, failed := range []bool{false, false, false, true, true} {
		if (results[i].Failure != "") != failed {
			t.Errorf("%s: %q", results[i].Name, results[i].Failure)
		}
	}
	if f := results[3].Failure; !strings.Contains(f, "verdict deny, want allow") {
		t.Errorf("failure %q", f)
	}
	for want, text := range map[string]string{
		"x.json: cases[0].colour: unknown member": `{"cases":[{"name":"a","colour":1}]}`,
		`x.json: cases[0].name`:                   `{"cases":[{"name":"","action":"read","resource":"/","expect":{"verdict":"deny"}}]}`,
		`x.json: case "a": expect.verdict`:        `{"cases":[{"name":"a","action":"read","resource":"/","expect":{"verdict":"maybe"}}]}`,
		`x.json: case "a": action`:                `{"cases":[{"name":"a","action":"fly","resource":"/","expect":{"verdict":"deny"}}]}`,
		`x.json: case "a": tier`:                  `{"cases":[{"name":"a","action":"read","resource":"/","tier":"x","expect":{"verdict":"deny"}}]}`,
		`x.json: case "a": policy: request`:       `{"cases":[{"name":"a","action":"read","resource":"/a/","expect":{"verdict":"deny"}}]}`,
	} {
		if _, err := s.Test("x.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestTestDir(t *testing.T) {
	dir := t.TempDir()
	if err := Starter().WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := TestDir(dir); err == nil {
		t.Error("no case at all passed as tested")
	}
	if err := os.WriteFile(filepath.Join(dir, "tests.json"), []byte(`{"cases":[{"name":"a","action":"read","resource":"/etc/shadow","expect":{"verdict":"deny"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, filepath.Join(dir, "starter.cedar")} {
		results, err := TestDir(p)
		if err != nil || len(results) != 1 || results[0].Failure != "" || results[0].File != "tests.json" {
			t.Errorf("%s: %v, %v", p, results, err)
		}
	}
}

func TestExplain(t *testing.T) {
	s := mustLoad(t, cedarSource(`
@id("base") permit(principal, action == Exeq::Action::"connect", resource);
@id("later") permit(principal, action == Exeq::Action::"connect", resource) when { context.risk > 50 };
@id("other") permit(principal, action == Exeq::Action::"read", resource);
@id("no-exfil") forbid(principal, action == Exeq::Action::"connect", resource)
  when { context.session.labels.contains("pii") };
@id("ask") @resolve("step_up:owner") forbid(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"a.org:443");
`+labels))
	in := testInputs()
	e, err := s.Explain(context.Background(), testRequest(exeq.ActionConnect, "a.org:443"), in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range e.Rules {
		mark := r.Effect + " " + r.ID
		if r.Satisfied {
			mark += " holds"
		}
		if r.Determining {
			mark += " determines"
		}
		got = append(got, mark)
	}
	want := []string{"forbid ask holds determines", "permit base holds", "permit later", "forbid no-exfil"}
	if !slices.Equal(got, want) || e.Decision.Verdict != exeq.StepUp || !slices.Equal(e.Changes, []string{`an approval by "owner"`}) {
		t.Errorf("rules %q, changes %q, want %q", got, e.Changes, want)
	}
	if r := e.Rules[3]; r.Line != 5 || !strings.HasPrefix(r.Text, `@id("no-exfil")`) || !strings.HasSuffix(r.Text, "};") {
		t.Errorf("rule %+v lacks its place or text", r)
	}
	in.Session.Labels = []string{"pii"}
	if e, _ = s.Explain(context.Background(), testRequest(exeq.ActionConnect, "b.org:443"), in); len(e.Changes) != 1 || !strings.Contains(e.Changes[0], `"no-exfil" (test.cedar:5)`) {
		t.Errorf("changes %q", e.Changes)
	}
	if e, _ = s.Explain(context.Background(), testRequest(exeq.ActionWrite, "/x"), in); len(e.Changes) != 1 || !strings.Contains(e.Changes[0], "add: @id(") {
		t.Errorf("changes %q", e.Changes)
	}
	r := testRequest(exeq.ActionRead, "/x")
	r.Subject.Type = "Ghost"
	if e, err = s.Explain(context.Background(), r, in); err != nil || len(e.Rules) != 0 || !strings.Contains(e.Reason, "Ghost") {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestVerdictsComeFirst: what changes a verdict is not lost among what keeps it,
// and each change says what it is.
func TestVerdictsComeFirst(t *testing.T) {
	set := mustLoad(t, Starter())
	var history []Recorded
	add := func(id, path string, bend func(*exeq.Decision)) {
		r, in := testRequest(exeq.ActionRead, path), testInputs()
		d := decide(t, set, r, in)
		bend(&d)
		history = append(history, Recorded{ID: id, Request: r, Inputs: in, Decision: d})
	}
	for range 200 {
		add("rules", "/home/u/app/main.go", func(d *exeq.Decision) { d.Policies = []string{"other"} })
	}
	add("label", "/home/u/app/main.go", func(d *exeq.Decision) { d.Labels, d.Policies = []string{"pii"}, []string{"other"} })
	add("verdict", "/home/u/app/main.go", func(d *exeq.Decision) { d.Verdict, d.Policies = exeq.Deny, nil })
	add("same", "/home/u/app/main.go", func(*exeq.Decision) {})
	add("verdict2", "/nowhere", func(d *exeq.Decision) { d.Verdict = exeq.Allow })
	changes, err := set.Replay(t.Context(), history)
	if err != nil || len(changes) != 203 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for i, want := range []struct{ id, changed, words string }{
		{"verdict", "verdict policies", "policies none → workspace-files"},
		{"verdict2", "verdict", ""},
		{"label", "labels policies", "labels pii → none; policies other → workspace-files"},
		{"rules", "policies", "policies other → workspace-files"},
	} {
		c := changes[i]
		if c.ID != want.id || strings.Join(c.Changed, " ") != want.changed || c.Words() != want.words {
			t.Errorf("change %d is %s, %q, %q; want %+v", i, c.ID, c.Changed, c.Words(), want)
		}
	}
}
