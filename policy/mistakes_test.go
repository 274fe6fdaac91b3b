package policy

import (
	"slices"
	"strings"
	"testing"
)

// TestUsualMistakesHaveTheirFix: what people write wrong in Cedar is told with
// what to write, and writing it parses.
func TestUsualMistakesHaveTheirFix(t *testing.T) {
	const head = "@id(\"x\")\n"
	for _, c := range []struct{ wrong, fix, right string }{
		{`permit (principal, action == Exeq::Action::"connect", resource in [Exeq::Endpoint::"h:443"]);`, "the scope names one principal and one resource",
			`permit (principal, action == Exeq::Action::"connect", resource == Exeq::Endpoint::"h:443");`},
		{`permit (principal, action, resource) when { context.risk = 5 };`, "write == to compare", `permit (principal, action, resource) when { context.risk == 5 };`},
		{`permit (principal, action, resource) when { context.risk =< 5 };`, "write <=", `permit (principal, action, resource) when { context.risk <= 5 };`},
		{"permit (principal, action, resource)\n@id(\"y\") permit (principal, action, resource);", "a ; is missing", "permit (principal, action, resource);\n@id(\"y\") permit (principal, action, resource);"},
		{`permit (principal action, resource);`, "a comma is missing", `permit (principal, action, resource);`},
		{`permit (principal, action in [Exeq::Action::"read" Exeq::Action::"write"], resource);`, "a comma is missing", `permit (principal, action in [Exeq::Action::"read", Exeq::Action::"write"], resource);`},
		{`permit (principal, action, resource) when { lower(context.command) == "x" };`, "there are like with *", `permit (principal, action, resource) when { context.command like "x" };`},
		{`permit (principal, action, resource) when { context.command.startsWith("x") };`, "write like with *", `permit (principal, action, resource) when { context.command like "x*" };`},
		{`permit (principal, action == Exeq::Action::'read', resource);`, "double quotes", `permit (principal, action == Exeq::Action::"read", resource);`},
		{`permit (principal, action == "read", resource);`, "name an entity, as in", `permit (principal, action == Exeq::Action::"read", resource);`},
		{`permit (principal, action == read, resource);`, "name it in full", `permit (principal, action == Exeq::Action::"read", resource);`},
		{`permit (principal, action, resource) when { context.risk > 5 and context.tier > 3 };`, "write &&", `permit (principal, action, resource) when { context.risk > 5 && context.tier > 3 };`},
		{`permit (principal, action, resource) when { context.risk > 5 or context.tier > 3 };`, "write ||", `permit (principal, action, resource) when { context.risk > 5 || context.tier > 3 };`},
		{`permit (principal, action, resource) when { not (context.risk > 5) };`, "is not a function", ""},
		{`permit (principal, action, resource) when context.risk > 5;`, "into braces", `permit (principal, action, resource) when { context.risk > 5 };`},
		{`permit (principal, action, resource) if { context.risk > 5 };`, "when or unless", `permit (principal, action, resource) when { context.risk > 5 };`},
		{`permit (principal, action, resource) when { context.risk > 0.5 };`, "numbers are whole", `permit (principal, action, resource) when { context.risk > 1 };`},
		{`allow (principal, action, resource);`, "is a permit or a forbid", `permit (principal, action, resource);`},
		{`permit (principal, action);`, "a policy names all three", `permit (principal, action, resource);`},
		{`permit (action, principal, resource);`, "the order is", `permit (principal, action, resource);`},
		{`permit (principal, action != Exeq::Action::"read", resource);`, "put all else into when", `permit (principal, action, resource) when { action != Exeq::Action::"read" };`},
		{`permit (principal, action, resource in Exeq::Path::"/a" || resource in Exeq::Path::"/b");`, "put all else into when",
			`permit (principal, action, resource) when { resource in Exeq::Path::"/a" || resource in Exeq::Path::"/b" };`},
	} {
		_, problems := parseRules("a.cedar", head+c.wrong)
		if len(problems) != 1 || !strings.Contains(problems[0].String(), c.fix) || problems[0].Line < 2 {
			t.Errorf("%s\n  %v; want one with %q, behind line 1", c.wrong, problems, c.fix)
		}
		if c.right == "" {
			continue
		}
		if _, problems := parseRules("a.cedar", head+c.right); len(problems) > 0 {
			t.Errorf("%s\n  the fix does not parse: %v", c.right, problems)
		}
	}
}

// TestEveryErrorOfAFileIsTold: settings.json and entities.json give all that is
// wrong with them at once, each with its place and the fix.
func TestEveryErrorOfAFileIsTold(t *testing.T) {
	for _, c := range []struct {
		file, text string
		want       []string // prefix of what is printed
	}{
		{SettingsFile, "{\"quotas\":{\"processes\":-1,\n \"bogus\":1, \"execs\": 1.5, \"denials\": \"3\"},\n \"tierFloor\":\"x\", \"environment\": [\"PATH\", \"1X\", 7],\n \"tierFloor\": \"kernel\", \"Quotas\": {}}", []string{
			"settings.json:1:12: quotas.processes: -1 is negative; write the bound",
			"settings.json:2:2: quotas.bogus: there is no such member; the members are processes, execs,",
			"settings.json:2:13: quotas.execs: 1.5 is no whole number; ",
			"settings.json:2:27: quotas.denials: \"3\" is no whole number; ",
			"settings.json:3:2: tierFloor: \"x\" is no tier; the tiers are ",
			"settings.json:3:43: environment[1]: \"1X\" is not a variable name",
			"settings.json:3:49: environment[2]: 7 is not a variable name",
			"settings.json:4:2: tierFloor: it stands here a second time; keep one",
			"settings.json:4:25: Quotas: there is no such member; the members are environment, quotas, tierFloor",
		}},
		{SettingsFile, "{\"quotas\": {\"execs\": 1,}}", []string{"settings.json:1:24: does not parse: invalid character '}' looking for beginning of object key string; remove the comma before it"}},
		{SettingsFile, "{\n 'quotas': {}}", []string{"settings.json:2:2: does not parse: invalid character '\\'' looking for beginning of object key string; write strings in double quotes"}},
		{SettingsFile, "{\"environment\": [\"A\" \"B\"]}", []string{"settings.json:1:22: does not parse: invalid character '\"' after array element; put a comma before it"}},
		{SettingsFile, "{ // all\n}", []string{"settings.json:1:3: does not parse: invalid character '/' looking for beginning of object key string; JSON has no comments"}},
		{SettingsFile, "{\"quotas\": {}", []string{"settings.json:1:14: does not parse: unexpected end of JSON input; a closing } or ] or \" is missing"}},
		{SettingsFile, "[]", []string{"settings.json:1:1: document: an object is wanted here; "}},
		{SettingsFile, "{\"quotas\": null, \"environment\": \"PATH\"}", []string{"settings.json:1:2: quotas: an object is wanted here", "settings.json:1:18: environment: a list is wanted here"}},
		{EntitiesFile, "[{\"uid\":{\"type\":\"Agent\",\"id\":\"a\"},\"parents\":[{\"type\":\"Team\",\"id\":\"none\"}]},\n" +
			" {\"uid\":{\"type\":\"Robot\",\"id\":\"b\"},\"parents\":[],\"color\":1},\n" +
			" {\"uid\":{\"type\":\"Team\",\"id\":\"t\"},\"parents\":[{\"type\":\"Team\",\"id\":\"t\"},{\"type\":\"Agent\",\"id\":\"a\"}]},\n" +
			" {\"parents\":[]},\n {\"uid\":{\"type\":\"Agent\",\"id\":\"a\"},\"parents\":[],\"attrs\":{\"x\":\"1\"}}]", []string{
			"entities.json:1:2: Exeq::Agent::\"a\" is in Exeq::Team::\"none\", which is not listed; list it too",
			"entities.json:2:3: [1].uid: unknown type \"Robot\" (want Exeq::User, Agent, Team or Node); write ",
			"entities.json:2:48: [1].color: there is no such member; the members are uid, parents, attrs",
			"entities.json:3:2: Exeq::Team::\"t\" is in itself; break",
			"entities.json:3:70: [2].parents[1]: Exeq::Team::\"t\" cannot be in Exeq::Agent::\"a\"; ",
			"entities.json:4:2: [3].uid: it is missing; write ",
			"entities.json:5:2: [4].uid: Exeq::Agent::\"a\" is listed twice; make one entry of them",
			"entities.json:5:48: [4].attrs: there are no attributes; remove it",
		}},
		{EntitiesFile, "{}", []string{"entities.json:1:1: document: a list is wanted here; write [{"}},
	} {
		src := &Source{Version: 1, Files: map[string]string{"a.cedar": `@id("x") permit (principal, action == Exeq::Action::"run", resource);`, c.file: c.text}}
		var got []string
		for _, p := range Check(src) {
			got = append(got, p.String())
		}
		if len(got) != len(c.want) || slices.ContainsFunc(c.want, func(w string) bool {
			return !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) })
		}) {
			t.Errorf("%s\n  got\n\t%s\n  want\n\t%s", c.text, strings.Join(got, "\n\t"), strings.Join(c.want, "\n\t"))
		}
		if _, err := Load(src); err == nil {
			t.Errorf("%s was loaded", c.text)
		}
	}
}

// FuzzEveryErrorOfAFile: whatever is refused is explained with a problem that
// refuses, and what is accepted with none.
func FuzzEveryErrorOfAFile(f *testing.F) {
	f.Add(`{"quotas":{"execs":1}}`, true)
	f.Add(`[{"uid":{"type":"Agent","id":"a"},"parents":[]}]`, false)
	f.Fuzz(func(t *testing.T, text string, settings bool) {
		var err error
		var problems []Problem
		if settings {
			if _, err = decodeSettings(text); err != nil {
				problems = explain(SettingsFile, text, err, settingsWrong)
			}
		} else if _, err = decodeEntities(text); err != nil {
			problems = explain(EntitiesFile, text, err, entitiesWrong)
		}
		if err != nil && !slices.ContainsFunc(problems, Problem.refuses) {
			t.Errorf("%q is refused (%v) and nothing says so: %v", text, err, problems)
		}
	})
}
