package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Settings are the parts of an execution's rights that no policy decides.
type Settings struct {
	// Environment lists the variable names that pass into an execution; a
	// trailing '*' matches any ending, and "*" alone every name.
	Environment []string    `json:"environment,omitempty"`
	Quotas      exeq.Quotas `json:"quotas,omitzero"`
	// TierFloor is the weakest tier, by name; empty: nested.
	TierFloor string `json:"tierFloor,omitempty"`

	floor exeq.Tier
}

// variableName accepts ^([A-Za-z_][A-Za-z0-9_]{0,127}\*?|\*)$.
func variableName(s string) bool {
	name, wild := strings.CutSuffix(s, "*")
	if name == "" {
		return wild
	}
	return isName(name, 128, "_", "_") && (name[0] < '0' || name[0] > '9')
}

// decodeSettings reads settings.json strictly.
func decodeSettings(text string) (*Settings, error) {
	s := &Settings{floor: exeq.TierNested}
	if err := canon.Decode([]byte(text), s, canon.Limits{Bytes: exeq.MaxConfigBytes, Depth: exeq.MaxDepth}); err != nil {
		return nil, err
	}
	for i, n := range s.Environment {
		if !variableName(n) {
			return nil, fmt.Errorf("environment[%d]: %q is not a variable name with an optional trailing *", i, n)
		}
	}
	slices.Sort(s.Environment)
	s.Environment = slices.Compact(s.Environment)
	q := s.Quotas
	for _, b := range []struct {
		name  string
		value int64
	}{
		{"processes", int64(q.Processes)}, {"execs", int64(q.Execs)}, {"denials", int64(q.Denials)}, {"wallSeconds", int64(q.WallSeconds)},
		{"outputBytes", q.OutputBytes}, {"memoryBytes", q.MemoryBytes}, {"fileBytes", q.FileBytes},
	} {
		if b.value < 0 {
			return nil, fmt.Errorf("quotas.%s: %d is negative", b.name, b.value)
		}
	}
	if s.TierFloor != "" {
		floor, err := exeq.ParseTier(s.TierFloor)
		if err != nil {
			return nil, fmt.Errorf("tierFloor: %w", err)
		}
		s.floor = floor
	}
	return s, nil
}

// hazards are names of variables, a trailing '*' for any ending, whose passing
// into an execution undoes what the policies say.
var hazards = []struct{ name, why string }{
	{"LD_*", "who sets it before the run has other code loaded into each program that a policy permits"},
	{"DYLD_*", "who sets it before the run has other code loaded into each program that a policy permits"},
	{"SSH_AUTH_SOCK", "it leads to an agent that signs with the user's keys"},
	{"SSH_AGENT_PID", "it leads to an agent that signs with the user's keys"},
	{"GPG_AGENT_INFO", "it leads to an agent that signs with the user's keys"},
	{"AWS_SECRET_ACCESS_KEY", secretWhy}, {"AWS_SESSION_TOKEN", secretWhy}, {"GITHUB_TOKEN", secretWhy}, {"GH_TOKEN", secretWhy},
	{"NPM_TOKEN", secretWhy}, {"ANTHROPIC_API_KEY", secretWhy}, {"OPENAI_API_KEY", secretWhy}, {"PGPASSWORD", secretWhy},
}

const secretWhy = "every program of the run can read the secret, and no policy keeps it from what it permits"

// hazard says why a name of the environment list is dangerous; "" where it is not.
func hazard(name string) string {
	prefix, wild := strings.CutSuffix(name, "*")
	if prefix == "" {
		return "every variable passes, secrets and what changes how programs are loaded among them"
	}
	for _, h := range hazards {
		stem, open := strings.CutSuffix(h.name, "*")
		if name == h.name || open && strings.HasPrefix(prefix, stem) || wild && strings.HasPrefix(stem, prefix) {
			if wild && !open {
				return "it covers " + h.name + ": " + h.why
			}
			return h.why
		}
	}
	upper := strings.ToUpper(prefix)
	for _, end := range []string{"_TOKEN", "_SECRET", "_KEY", "_PASSWORD", "_PASSWD", "_CREDENTIALS"} {
		if strings.HasSuffix(upper, end) {
			return secretWhy
		}
	}
	if strings.HasSuffix(upper, "_SOCK") {
		return "it leads to a service outside of the run that acts for the user"
	}
	return ""
}

// lint warns of names that open more than they seem to, and of a quota that
// bounds less than its name says.
func (s *Settings) lint(text string) []Problem {
	if s == nil {
		return nil
	}
	suspect := s.Quotas.OutputBytes > 0
	for _, n := range s.Environment {
		suspect = suspect || hazard(n) != ""
	}
	if !suspect {
		return nil
	}
	v, err := readValue(text)
	if err != nil {
		return nil // it was decoded before
	}
	f := &jsonFile{name: SettingsFile, text: text}
	if list := v.member("environment"); list != nil {
		for _, n := range list.items {
			name, _ := n.text.(string)
			if why := hazard(name); why != "" {
				f.problem(n.at, fmt.Sprintf("environment %q: %s", name, why), "leave it out and list the names that the programs need").Warning = true
			}
		}
	}
	if q := v.member("quotas"); q != nil && s.Quotas.OutputBytes > 0 {
		f.problem(q.member("outputBytes").at, "quotas.outputBytes counts what write calls carry, once a second, and not what is written through memory mappings or splice, nor the last second of processes that nobody waits for",
			"it stops what is too talkative, not what hides; fileBytes is held by the kernel for each file").Warning = true
	}
	return f.problems
}

// settingsWrong finds everything that is wrong with a settings.json.
func settingsWrong(f *jsonFile, v *value) {
	if !f.shape(v, "document", "environment", "quotas", "tierFloor") {
		return
	}
	for i := range v.members {
		switch m := &v.members[i]; m.key {
		case "environment":
			if !m.is('[') {
				f.problem(m.at, "environment: a list is wanted here", `write for example ["PATH", "LC_*"]`)
			}
			for i, n := range m.items {
				if name, ok := n.text.(string); !ok || !variableName(name) {
					f.problem(n.at, fmt.Sprintf("environment[%d]: %v is not a variable name with an optional trailing *", i, shown(&n)), `write for example "LC_*"`)
				}
			}
		case "quotas":
			if !f.shape(m, "quotas", quotaNames...) {
				continue
			}
			for i := range m.members {
				q := &m.members[i]
				n, ok := q.text.(json.Number)
				bound, err := strconv.ParseInt(string(n), 10, 64)
				switch {
				case !contains(quotaNames, q.key):
				case !ok || err != nil:
					f.problem(q.at, fmt.Sprintf("quotas.%s: %v is no whole number", q.key, shown(q)), "write digits alone, 0 for no bound")
				case bound < 0:
					f.problem(q.at, fmt.Sprintf("quotas.%s: %d is negative", q.key, bound), "write the bound, or 0 for none")
				}
			}
		case "tierFloor":
			name, ok := m.text.(string)
			if _, err := exeq.ParseTier(name); name != "" && err != nil || !ok {
				f.problem(m.at, fmt.Sprintf("tierFloor: %v is no tier", shown(m)), `the tiers are "kernel", "kernel-lite", "rootless" and "nested"`)
			}
		}
	}
}

// shown spells a value as it stands in the file, as far as it is short.
func shown(v *value) string {
	switch t := v.text.(type) {
	case string:
		return fmt.Sprintf("%.60q", t)
	case json.Delim:
		return map[json.Delim]string{'{': "an object", '[': "a list"}[t]
	case nil:
		return "null"
	}
	return fmt.Sprintf("%.60v", v.text)
}

var quotaNames = []string{"processes", "execs", "denials", "wallSeconds", "outputBytes", "memoryBytes", "fileBytes"}
