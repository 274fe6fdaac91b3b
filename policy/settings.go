package policy

import (
	"fmt"
	"slices"
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

// lint warns of names that open more than they seem to.
func (s *Settings) lint() (problems []Problem) {
	if s == nil {
		return nil
	}
	for _, n := range s.Environment {
		if why := hazard(n); why != "" {
			problems = append(problems, Problem{File: SettingsFile, Warning: true, Message: fmt.Sprintf("environment %q: %s", n, why),
				Fix: "leave it out and list the names that the programs need"})
		}
	}
	return problems
}
