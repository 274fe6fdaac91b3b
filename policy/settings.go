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
