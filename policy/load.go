package policy

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/exeq/exeq"
)

// build makes a set of a source and lists every problem; the set is usable
// only if there is none.
func build(src *Source) (*Set, []Problem) {
	src = &Source{Version: src.Version, Files: maps.Clone(src.Files)} // the caller may go on with its own
	s := &Set{source: src, settings: &Settings{floor: exeq.TierNested}, directory: &directory{}}
	digest, err := src.Digest()
	if err != nil {
		return nil, []Problem{{Message: err.Error()}}
	}
	s.digest = digest
	var problems []Problem
	if text, ok := src.Files[SettingsFile]; ok {
		if s.settings, err = decodeSettings(text); err != nil {
			problems = append(problems, explain(SettingsFile, text, err, settingsWrong)...)
		}
		problems = append(problems, s.settings.lint(text)...)
	}
	if text, ok := src.Files[EntitiesFile]; ok {
		if s.directory, err = decodeEntities(text); err != nil {
			problems = append(problems, explain(EntitiesFile, text, err, entitiesWrong)...)
			s.directory = &directory{}
		}
	}
	for _, name := range src.names() {
		if strings.HasSuffix(name, cedarSuffix) {
			rules, ps := parseRules(name, src.Files[name])
			problems = append(append(problems, ps...), lintText(name, src.Files[name])...)
			s.rules = append(s.rules, rules...)
		}
	}
	if len(s.rules) == 0 && len(problems) == 0 {
		problems = append(problems, Problem{Message: "there is no policy in it", Fix: "an empty set permits nothing: write a permit in a .cedar file"})
	}
	if len(s.rules) > exeq.MaxPolicies {
		return nil, append(problems, Problem{Message: fmt.Sprintf("more than %d policies", exeq.MaxPolicies)})
	}
	problems = append(problems, s.checkRules()...)
	slices.SortFunc(s.rules, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	sortProblems(problems)
	return s, problems
}

// checkRules validates and lints each rule and finds ids used twice.
func (s *Set) checkRules() (problems []Problem) {
	seen := map[string]*rule{}
	for _, r := range s.rules {
		if first, dup := seen[r.id]; dup && r.id != "" {
			problems = append(problems, r.problem(fmt.Sprintf("the id stands already at %s:%d", first.file, first.line), "give each policy an id of its own"))
		}
		seen[r.id] = r
	}
	labels := map[string]bool{}
	for _, r := range s.rules {
		for _, l := range r.labels {
			labels[l] = true
		}
	}
	groups := byScope(s.rules)
	found := make([][]Problem, len(groups))
	parallel(len(groups), func(i int) {
		actions := scopeActions(groups[i][0].policy.Action)
		valid := valid(groups[i])
		for _, r := range groups[i] {
			r.actions = actions
			ps := []Problem(nil)
			if !valid {
				ps = r.validate()
			}
			if len(ps) == 0 {
				ps = r.lint(s.directory, labels)
			}
			found[i] = append(found[i], ps...)
		}
	})
	return append(problems, slices.Concat(found...)...)
}

// parallel calls f for 0 to n-1 on all processors: loading stands in the way
// of every start.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// scopeActions expands an action scope to the leaf actions it covers.
func scopeActions(s ast.IsActionScopeNode) []string {
	var out []string
	add := func(u types.EntityUID) {
		if a, ok := vocabulary().actions[string(u.ID)]; ok && a.uid == u {
			out = append(out, a.name)
		}
		out = append(out, vocabulary().groups[u]...)
	}
	switch t := s.(type) {
	case ast.ScopeTypeAll:
		return vocabulary().names
	case ast.ScopeTypeEq:
		if a, ok := vocabulary().actions[string(t.Entity.ID)]; ok && a.uid == t.Entity {
			out = append(out, a.name)
		}
	case ast.ScopeTypeIn:
		add(t.Entity)
	case ast.ScopeTypeInSet:
		for _, u := range t.Entities {
			add(u)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Message, b.Message))
	})
}
