package policy

import (
	"errors"
	"fmt"
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
		places = append(places, fmt.Sprintf("%s:%d", p.File, p.Line))
	}
	want := []string{"a.cedar:1", "a.cedar:1", "b.cedar:1", "b.cedar:2", "b.cedar:3", "entities.json:0", "settings.json:0"}
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
