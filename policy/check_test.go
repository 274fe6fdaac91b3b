package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// Each mistake is found, at its line, with its fix; the control beside it passes.
func TestCheck(t *testing.T) {
	rw := func(cond string) string {
		return `@id("x") permit(principal, action == Exeq::Action::"read", resource) when { ` + cond + ` };`
	}
	forbid := func(cond string) string {
		return `@id("x") forbid(principal, action == Exeq::Action::"connect", resource) ` + cond + `;`
	}
	for _, c := range []struct {
		name, text string
		want       string // part of the one problem; "" for none
		line       int
	}{
		{"control", rw(`resource in Exeq::Path::"/etc"`), "", 0},
		{"no id", `permit(principal, action, resource);`, "no @id", 1},
		{"empty id", `@id("") permit(principal, action, resource);`, "not a name", 1},
		{"id with space", `@id("a b") permit(principal, action, resource);`, "not a name", 1},
		{"id twice", "@id(\"x\") permit(principal, action, resource);\n@id(\"x\") permit(principal, action, resource);", "stands already at test.cedar:1", 2},
		{"misspelt annotation", `@id("x") @lable("pii") permit(principal, action == Exeq::Action::"read", resource);`, "unknown annotation @lable", 1},
		{"resolve on permit", `@id("x") @resolve("step_up:g") permit(principal, action, resource);`, "@resolve stands on a permit", 1},
		{"resolve of nothing", `@id("x") @resolve("step_up:") forbid(principal, action, resource);`, "neither step_up:GROUP nor defer:WHAT", 1},
		{"resolve of something else", `@id("x") @resolve("ask:me") forbid(principal, action, resource);`, "neither step_up:GROUP nor defer:WHAT", 1},
		{"label on forbid", `@id("x") @label("pii") forbid(principal, action, resource);`, "@label stands on a forbid", 1},
		{"empty label", `@id("x") @label("") permit(principal, action == Exeq::Action::"read", resource);`, "not a list of names", 1},
		{"label with a hole", `@id("x") @label("a,,b") permit(principal, action == Exeq::Action::"read", resource);`, "not a list of names", 1},
		{"label on write", `@id("x") @label("pii") permit(principal, action == Exeq::Action::"write", resource);`, "@label stands on a permit that covers write", 1},
		{"modify on forbid", `@id("x") @modify("no_network") forbid(principal, action == Exeq::Action::"run", resource);`, "@modify stands on a forbid", 1},
		{"modify on read", `@id("x") @modify("no_network") permit(principal, action == Exeq::Action::"read", resource);`, "for more than run", 1},
		{"unknown obligation", `@id("x") @modify("dance") permit(principal, action == Exeq::Action::"run", resource);`, "unknown obligation", 1},
		{"empty obligation", `@id("x") @modify("") permit(principal, action == Exeq::Action::"run", resource);`, "unknown obligation", 1},
		{"obligation without number", `@id("x") @modify("execs=many") permit(principal, action == Exeq::Action::"run", resource);`, "whole number", 1},

		{"trailing slash", "\n\n" + rw(`resource in Exeq::Path::"/etc/"`), `write "/etc"`, 3},
		{"relative path", rw(`resource in Exeq::Path::"etc"`), `write "/etc"`, 1},
		{"dots", rw(`resource in Exeq::Path::"/a/../b"`), `write "/b"`, 1},
		{"two slashes", rw(`resource in Exeq::Path::"//a"`), `write "/a"`, 1},
		{"other spelling", rw(`resource in Exeq::Path::"/%61"`), "never matches", 1},
		{"line of the literal", "@id(\"x\")\npermit(principal, action == Exeq::Action::\"read\", resource)\nwhen {\n  resource in [Exeq::Path::\"/a\",\n    Exeq::Path::\"/b/\"] };", "test.cedar:5:5", 5},
		{"absolute home", rw(`resource in Exeq::Home::"/.ssh"`), "not a relative path", 1},
		{"climbing home", rw(`resource in Exeq::Home::"../x"`), "never matches", 1},
		{"empty home", rw(`resource in Exeq::Home::""`), "not a relative path", 1},
		{"endpoint without port", `@id("x") permit(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"example.com");`, "not host:port", 1},
		{"upper case host", `@id("x") permit(principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"Example.com:443");`, "lower-case", 1},
		{"domain with a dot", `@id("x") permit(principal, action == Exeq::Action::"connect", resource in Exeq::Domain::".example.com");`, "empty or overlong label", 1},
		{"domain of an address", `@id("x") permit(principal, action == Exeq::Action::"connect", resource in Exeq::Domain::"10.0.0.1");`, "in no domain", 1},
		{"tool", `@id("x") permit(principal, action == Exeq::Action::"call_tool", resource == Exeq::Tool::"push");`, "not server/name", 1},
		{"unlisted team", `@id("x") permit(principal in Exeq::Team::"t", action, resource);`, "no such entity", 1},

		{"arithmetic", `@id("x") permit(principal, action == Exeq::Action::"connect", resource) when { context.risk + 1 < 5 };`, "arithmetic", 1},
		{"negation", `@id("x") permit(principal, action == Exeq::Action::"connect", resource) when { -context.risk < 5 };`, "arithmetic", 1},
		{"literals compared", rw(`Exeq::Path::"/a" in Exeq::Path::"/b"`), "two literals", 1},
		{"never", rw(`false`), "never be satisfied", 1},
		{"never, by not", rw(`!(true) || false`), "never be satisfied", 1},
		{"never, by type", `@id("x") permit(principal is Exeq::User, action == Exeq::Action::"read", resource) when { principal is Exeq::Agent };`, "never be satisfied", 1},
		{"never, two places", `@id("x") permit(principal, action == Exeq::Action::"read", resource == Exeq::Path::"/a") when { resource == Exeq::Path::"/b" };`, "never be satisfied", 1},
		{"always unless", `@id("x") permit(principal, action == Exeq::Action::"read", resource) unless { true };`, "never be satisfied", 1},
		{"wrong place", rw(`resource in Exeq::Domain::"a.b"`), "", 1},
		{"direction override", "// \u202e\n" + rw(`resource in Exeq::Path::"/etc"`), "U+202E", 1},
		{"invisible", rw("resource in Exeq::Path::\"/e\u200btc\""), "U+200B", 1},

		{"session in read", rw(`context.session.labels.contains("pii")`), "depends on context.session", 1},
		{"risk in write", `@id("x") forbid(principal, action == Exeq::Action::"write", resource) when { context.risk > 5 };`, "depends on context.session", 1},
		{"session for all actions", `@id("x") forbid(principal, action, resource) when { context.session.execs > 5 };`, "name the actions", 1},
		{"labelled read may look at the session", `@id("x") @label("pii") permit(principal, action == Exeq::Action::"read", resource) when { context.session.execs > 5 };`, "", 0},
		{"resource on the right", rw(`Exeq::Path::"/a/b" in resource`), "not a place", 1},
		{"resource in a set", rw(`[Exeq::Path::"/a"].contains(resource)`), "not a place", 1},
		{"context as a whole", rw(`[context].isEmpty()`), "depends on", 1},

		{"claim lifts a forbid", forbid(`unless { context.claimed has intent && context.claimed.intent == "x" }`), "a claim would lift", 1},
		{"claim lifts by not", forbid(`when { !(context.claimed has intent) }`), "a claim would lift", 1},
		{"claim lifts by other", forbid(`when { context.claimed has intent && context.claimed.intent != "x" }`), "a claim would lift", 1},
		{"claim narrows", forbid(`when { context.claimed has intent && context.claimed.intent like "*deploy*" }`), "", 0},

		{"unknown attribute", rw(`context.mood == 1`), "not found", 1},
		{"optional attribute", rw(`context.claimed.intent == "x"`), "optional attribute", 1},
		{"unknown action", `@id("x") permit(principal, action == Exeq::Action::"fly", resource);`, "the actions are call_tool, connect", 1},
		{"unknown type", rw(`resource in Exeq::Folder::"/x"`), "the types are Exeq::Agent", 1},
		{"path for exec", `@id("x") permit(principal, action == Exeq::Action::"exec", resource == Exeq::Path::"/bin/sh");`, "run and exec take an Exeq::Program", 1},
		{"no namespace", `@id("x") permit(principal, action == Action::"read", resource);`, "Exeq::Action", 1},
		{"syntax", "\n  @id(\"x\")\n  permit(principal, action, resource) when { context. };", "does not parse", 3},
		{"no semicolon", `@id("x") permit(principal, action, resource)`, "does not end", 1},
		{"open string", `@id("x) permit(principal, action, resource);`, "not closed", 1},
		{"open bracket", `@id("x") permit(principal, action, resource;`, "not closed", 1},
		{"stray bracket", `@id("x") permit(principal, action, resource));`, "closes nothing", 1},
		{"nesting", rw(strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100)), "nest deeper", 1},
		{"too long", rw(strings.Repeat("true && ", 20000) + "true"), "over the limit", 1},
		{"not UTF-8", "// \xff", "UTF-8", 0},
		{"template", `@id("x") permit(principal == ?principal, action, resource);`, "does not parse", 1},
		{"empty", "// nothing\n", "no policy", 0},
		{"stray semicolon", `;`, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := Check(cedarSource(c.text))
			_, err := Load(cedarSource(c.text))
			switch c.name {
			case "wrong place", "stray semicolon": // which check finds it does not matter
				if len(problems) == 0 || err == nil {
					t.Error("it loads")
				}
				return
			}
			if c.want == "" {
				if len(problems) > 0 || err != nil {
					t.Errorf("problems %v, error %v; want none", problems, err)
				}
				return
			}
			if !slices.ContainsFunc(problems, Problem.refuses) {
				t.Errorf("problems %v, and yet it loads", problems)
			}
			var ce *CheckError
			if !errors.As(err, &ce) || !slices.Equal(ce.Problems, problems) {
				t.Errorf("Load gives %v, Check %v", err, problems)
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), c.want) && p.Line == c.line }) {
				t.Errorf("problems %v, want one with %q at line %d", problems, c.want, c.line)
			}
			for _, p := range problems {
				if p.Fix == "" && c.want != "UTF-8" {
					t.Errorf("%v has no fix", p)
				}
			}
		})
	}
}

// What validates and never holds fails open in a forbid, and refuses the set;
// in a permit it is a warning, unless it stands where it opens.
func TestCheckValues(t *testing.T) {
	const (
		fine    = ""
		refused = "refused"
		warned  = "warned"
	)
	head := map[string]string{
		"forbid": `@id("x") forbid(principal, action == Exeq::Action::%q, resource) `,
		"permit": `@id("x") permit(principal, action == Exeq::Action::%q, resource) `,
	}
	for _, c := range []struct{ effect, action, cond, want, words string }{
		{"forbid", "connect", `when { context.tier > 40 && context.tier < 10 }`, refused, "context.tier > 40 never holds"},
		{"forbid", "connect", `when { context.tier > 20 && context.tier < 30 }`, refused, "contradict one another"},
		{"forbid", "connect", `when { context.tier >= 20 && context.tier < 30 }`, fine, ""},
		{"forbid", "connect", `when { context.tier < 20 }`, fine, ""},
		{"forbid", "connect", `when { context.risk > 60 } unless { 50 < context.risk }`, refused, "contradict one another"},
		{"forbid", "connect", `when { context.risk > 60 } unless { context.risk > 90 }`, fine, ""},
		{"forbid", "connect", `when { context.risk > 100 }`, refused, "context.risk is 0 to 100"},
		{"forbid", "connect", `when { 100 < context.risk }`, refused, "context.risk is 0 to 100"},
		{"forbid", "connect", `when { context.risk >= 100 }`, fine, ""},
		{"permit", "connect", `when { context.risk > 100 }`, warned, "context.risk is 0 to 100"},
		{"permit", "connect", `unless { context.risk > 100 }`, refused, "context.risk is 0 to 100"},
		{"permit", "connect", `when { !(context.risk > 100) }`, refused, "context.risk is 0 to 100"},
		{"permit", "connect", `when { context.risk < 20 && context.risk > 30 }`, warned, "contradict"},
		{"forbid", "connect", `unless { context.tier >= 10 }`, refused, "contradict one another"},
		{"permit", "connect", `when { context.tier >= 10 }`, fine, ""},
		{"forbid", "connect", `when { context.tier == 25 }`, refused, "20 (rootless), 30 (kernel-lite)"},
		{"forbid", "connect", `when { [10, 25].contains(context.tier) }`, refused, "one of 10"},
		{"forbid", "connect", `when { [10, 20].contains(context.tier) }`, fine, ""},
		{"permit", "connect", `when { context.tier != 15 }`, refused, "one of 10"},
		{"forbid", "connect", `when { resource.port == 443 && resource.port == 80 }`, refused, "contradict one another"},
		{"forbid", "connect", `when { resource.port == 443 || resource.port == 80 }`, fine, ""},
		{"forbid", "connect", `when { resource.port != 443 && resource.port != 80 }`, fine, ""},
		{"forbid", "connect", `when { (resource.port == 443 || resource.port == 80) && resource.port > 1024 }`, refused, "contradict one another"},
		{"forbid", "connect", `when { resource.port > 65535 }`, refused, "1 to 65535"},
		{"forbid", "connect", `when { context.session.execs < 0 }`, refused, "never negative"},
		{"forbid", "connect", `when { if context.risk > 50 then context.risk < 40 else false }`, refused, "contradict"},
		{"forbid", "connect", `when { resource has ip && !(resource has ip) }`, refused, "contradict"},
		{"forbid", "connect", `when { resource has ip && resource.ip.isLoopback() }`, fine, ""},

		{"forbid", "connect", `when { resource.host == "Evil.com" }`, refused, `write "evil.com"`},
		{"forbid", "connect", `when { resource.host == "evil.com" }`, fine, ""},
		{"forbid", "connect", `when { resource.port == 22 || resource.host == "evil.com:443" }`, refused, "the port is resource.port"},
		{"forbid", "connect", `when { resource.host like "*.EVIL.com" }`, refused, `write "*.evil.com"`},
		{"forbid", "connect", `when { resource.host like "*.evil.com" }`, fine, ""},
		{"forbid", "connect", `when { resource.host like "fd00:*" }`, fine, ""},
		{"forbid", "connect", `when { resource.host like "https://*" }`, refused, "without scheme"},
		{"forbid", "connect", `when { resource.host == "evil.com" && resource.host like "*.org" }`, refused, "contradict"},
		{"forbid", "connect", `when { ["evil.com", "Evil.org"].contains(resource.host) }`, refused, `write "evil.org"`},
		{"permit", "connect", `when { resource.host == "Good.com" }`, warned, `write "good.com"`},
		{"permit", "connect", `when { resource.host != "Evil.com" }`, refused, `write "evil.com"`},

		{"forbid", "exec", `when { resource.sha256 == "ABC" }`, refused, "64 lower-case"},
		{"forbid", "exec", `when { resource.sha256 == "` + strings.Repeat("A", 64) + `" }`, refused, "64 lower-case"},
		{"forbid", "exec", `when { resource.sha256 == "` + strings.Repeat("a", 64) + `" }`, fine, ""},
		{"forbid", "exec", `when { resource.name == "/usr/bin/curl" }`, refused, `write "curl"`},
		{"forbid", "exec", `when { resource.name == "curl" }`, fine, ""},
		{"forbid", "exec", `when { resource.name like "*/curl" }`, refused, `write "curl"`},
		{"forbid", "call_tool", `when { resource.name == "issues/create" }`, fine, ""},
		{"forbid", "call_tool", `when { resource.server == "git/push" }`, refused, "has no slash"},

		{"forbid", "read", `when { resource in Exeq::Path::"/home/*/.ssh" }`, refused, `write resource in Exeq::Home::".ssh"`},
		{"forbid", "read", `when { resource in Exeq::Path::"/srv/app/**" }`, refused, `resource in Exeq::Path::"/srv/app"`},
		{"forbid", "read", `when { resource in Exeq::Workspace::"*.pem" }`, refused, `resource in Exeq::Workspace::"."`},
		{"forbid", "read", `when { resource in Exeq::Workspace::"app/[id]" }`, fine, ""},
		{"permit", "read", `when { resource in Exeq::Path::"/srv/*" }`, warned, `resource in Exeq::Path::"/srv"`},
		{"permit", "read", `when { resource in Exeq::Path::"/srv" } unless { resource in Exeq::Path::"/srv/*.key" }`, refused, `resource in Exeq::Path::"/srv"`},
		{"forbid", "call_tool", `when { resource == Exeq::Tool::"git/*" }`, refused, `Exeq::ToolServer::"git"`},

		{"forbid", "connect", `when { context.session.labels.contains("pi") }`, refused, "the labels are fin, pii"},
		{"forbid", "connect", `when { context.session.labels.contains("pii") }`, fine, ""},
		{"forbid", "connect", `when { context.session.labels.containsAny(["fin", "pi"]) }`, refused, `sets the label "pi"`},
		{"permit", "connect", `unless { context.session.labels.contains("pi") }`, refused, `sets the label "pi"`},
		{"permit", "connect", `when { context.session.labels.contains("pi") }`, warned, `sets the label "pi"`},
	} {
		text := "@id(\"l\") @label(\"fin,pii\") permit(principal, action == Exeq::Action::\"read\", resource in Exeq::Path::\"/l\");\n" +
			fmt.Sprintf(head[c.effect], c.action) + c.cond + ";"
		problems := Check(cedarSource(text))
		_, err := Load(cedarSource(text))
		if (err != nil) != (c.want == refused) || (len(problems) > 0) != (c.want != fine) {
			t.Errorf("%s %s: Load %v, Check %v; want %s", c.effect, c.cond, err, problems, c.want)
		}
		if c.words != "" && !slices.ContainsFunc(problems, func(p Problem) bool {
			return strings.Contains(p.String(), c.words) && p.Line == 2 && p.Fix != "" && p.Policy == "x"
		}) {
			t.Errorf("%s %s: problems %v, want %q at line 2", c.effect, c.cond, problems, c.words)
		}
	}
}

func TestCheckWide(t *testing.T) {
	for text, warned := range map[string]bool{
		`@id("x") permit(principal, action, resource);`:                             true,
		`@id("x") permit(principal, action, resource) when { true };`:               true,
		`@id("x") permit(principal, action, resource) when { context.tier == 40 };`: false,
		`@id("x") permit(principal, action, resource in Exeq::Path::"/");`:          false,
		`@id("x") permit(principal == Exeq::Agent::"a", action, resource);`:         false,
		`@id("x") forbid(principal, action, resource);`:                             false,
	} {
		src := cedarSource(text)
		src.Files[EntitiesFile] = `[{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[]}]`
		problems := Check(src)
		if found := slices.ContainsFunc(problems, func(p Problem) bool { return p.Warning && strings.Contains(p.Message, "everything to everyone") }); found != warned {
			t.Errorf("%s: problems %v, want a warning: %v", text, problems, warned)
		}
	}
	for name, warned := range map[string]bool{
		"*": true, "LD_PRELOAD": true, "LD_*": true, "LD_LIBRARY_PATH": true, "L*": true, "SSH_AUTH_SOCK": true, "SSH_*": true, "AWS_*": true,
		"GITHUB_TOKEN": true, "MY_SECRET": true, "STRIPE_API_KEY": true, "BUS_SOCK": true,
		"PATH": false, "LC_*": false, "LDFLAGS": false, "TOKENIZER": false, "GIT_AUTHOR_*": false, "KEYBOARD": false,
	} {
		src := cedarSource(`@id("x") permit(principal, action == Exeq::Action::"read", resource);`)
		src.Files[SettingsFile] = fmt.Sprintf(`{"environment":[%q]}`, name)
		problems := Check(src)
		if _, err := Load(src); err != nil || (len(problems) == 1 && problems[0].Warning && problems[0].File == SettingsFile) != warned {
			t.Errorf("environment %s: %v, problems %v, want a warning: %v", name, err, problems, warned)
		}
	}
	if problems := Check(Starter()); len(problems) > 0 {
		t.Errorf("the starter set: %v", problems)
	}
}

// What lies beside a set and looks like a part of it is said, and where it can
// hardly be anything else the set is refused: it may be a forbid.
func TestCheckUnread(t *testing.T) {
	for name, want := range map[string]string{
		"extra.CEDAR": "refused", "Settings.json": "refused", "ENTITIES.JSON": "refused", "conf.d/a.cedar": "refused", "conf.d/deep/a.Cedar": "refused",
		"c.cedar.bak": "warned", "c.cedar~": "warned", "#c.cedar#": "warned", ".c.cedar.swp": "warned", "c.cedar.orig": "warned",
		"setings.json": "warned", "tests.JSON": "warned",
		"tests.json": "", "a.cases.json": "", "README.md": "", "schema.cedarschema": "", ".git/a.cedar": "", "docs/a.md": "", "x.cedar": "",
	} {
		dir := t.TempDir()
		for n, text := range map[string]string{
			"ok.cedar": `@id("ok") permit(principal, action == Exeq::Action::"read", resource);`,
			name:       `@id("no") forbid(principal, action == Exeq::Action::"read", resource);`,
		} {
			p := filepath.Join(dir, n)
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		problems, err := CheckDir(dir)
		if err != nil || (len(problems) == 1 && problems[0].File == name && strings.Contains(problems[0].String(), "is not read") && problems[0].Fix != "") != (want != "") {
			t.Errorf("%s: problems %v, %v; want %q", name, problems, err, want)
		}
		if _, err := LoadDir(dir); (err != nil) != (want == "refused") {
			t.Errorf("%s: LoadDir gives %v, want %q", name, err, want)
		}
		if _, err := LoadDir(filepath.Join(dir, "ok.cedar")); err != nil {
			t.Errorf("%s: the single file does not load: %v", name, err)
		}
	}
	// Through a link as well, and a directory that is too large to tell.
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Symlink(other, filepath.Join(dir, "more")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ok.cedar"), []byte(`@id("ok") permit(principal, action == Exeq::Action::"read", resource);`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(dir); err != nil {
		t.Errorf("a link to an empty directory: %v", err)
	}
	for i := range maxUnread {
		if err := os.WriteFile(filepath.Join(other, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "cannot tell") {
		t.Errorf("a directory too large to look through: %v", err)
	}
	if err := os.WriteFile(filepath.Join(other, "0.cedar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), filepath.Join("more", "0.cedar")) {
		t.Errorf("a policy behind a link: %v", err)
	}
}

// One mistake does not hide the next, and the order is by place.
func TestCheckFindsAll(t *testing.T) {
	src := &Source{Version: 1, Files: map[string]string{
		"b.cedar":    "permit(principal, action, resource);\n@id(\"y\") permit(principal, action == Exeq::Action::\"read\", resource) when { context. };\n@id(\"z\") @oops(\"1\") permit(principal, action, resource);",
		"a.cedar":    "@id(\"x\") permit(principal, action == Exeq::Action::\"read\", resource) when { resource in [Exeq::Path::\"/b/\", Exeq::Path::\"c\"] };",
		SettingsFile: `{"environment":["1X"]}`,
		EntitiesFile: `[{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[{"type":"Exeq::Team","id":"t"}]}]`,
	}}
	var places []string
	for _, p := range Check(src) {
		if !p.Warning {
			places = append(places, fmt.Sprintf("%s:%d", p.File, p.Line))
		}
	}
	want := []string{"a.cedar:1", "a.cedar:1", "b.cedar:1", "b.cedar:2", "b.cedar:3", "entities.json:1", "settings.json:1"}
	if !slices.Equal(places, want) {
		t.Errorf("problems at %v, want %v\n%v", places, want, Check(src))
	}
}

func TestEntitiesStrict(t *testing.T) {
	for name, text := range map[string]string{
		"duplicate":        `[{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[]},{"uid":{"type":"Agent","id":"a"},"parents":[]}]`,
		"duplicate member": `[{"uid":{"type":"Exeq::Agent","id":"a","id":"b"},"parents":[]}]`,
		"unknown member":   `[{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[],"tags":{}}]`,
		"unknown type":     `[{"uid":{"type":"Exeq::Path","id":"/"},"parents":[]}]`,
		"attribute":        `[{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[],"attrs":{"admin":"yes"}}]`,
		"missing parent":   `[{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[{"type":"Exeq::Team","id":"t"}]}]`,
		"agent as parent":  `[{"uid":{"type":"Exeq::Agent","id":"b"},"parents":[]},{"uid":{"type":"Exeq::Agent","id":"a"},"parents":[{"type":"Exeq::Agent","id":"b"}]}]`,
		"cycle":            `[{"uid":{"type":"Exeq::Team","id":"a"},"parents":[{"type":"Exeq::Team","id":"b"}]},{"uid":{"type":"Exeq::Team","id":"b"},"parents":[{"type":"Exeq::Team","id":"a"}]}]`,
		"no id":            `[{"uid":{"type":"Exeq::Agent","id":""},"parents":[]}]`,
		"object":           `{}`,
		"more":             `[] []`,
	} {
		if _, err := decodeEntities(text); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	d, err := decodeEntities(testEntities)
	if err != nil {
		t.Fatal(err)
	}
	_, p, err := d.find(exeq.Entity{Type: "Agent", ID: "dev"})
	if err != nil || len(p.ancestors) != 3 {
		t.Errorf("dev is in %v, %v; want itself, eng and all", p, err)
	}
}

func TestSettingsStrict(t *testing.T) {
	for name, text := range map[string]string{
		"unknown member": `{"enviroment":[]}`,
		"bad name":       `{"environment":["A B"]}`,
		"star inside":    `{"environment":["A*B"]}`,
		"two stars":      `{"environment":["**"]}`,
		"negative":       `{"quotas":{"execs":-1}}`,
		"unknown quota":  `{"quotas":{"wishes":3}}`,
		"float":          `{"quotas":{"execs":1.5}}`,
		"unknown tier":   `{"tierFloor":"strong"}`,
		"null":           `{"quotas":null}`,
	} {
		if _, err := decodeSettings(text); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	s, err := decodeSettings(`{"environment":["PATH","LC_*","PATH"],"quotas":{"execs":5},"tierFloor":"rootless"}`)
	if err != nil || !slices.Equal(s.Environment, []string{"LC_*", "PATH"}) || s.floor != exeq.TierRootless || s.Quotas.Execs != 5 {
		t.Errorf("settings %+v, %v", s, err)
	}
}
