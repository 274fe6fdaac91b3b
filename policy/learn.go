package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// LearnedFile is the file of policies that Learn writes.
const LearnedFile = "learned.cedar"

// Learn makes the least-privilege set under which the run r and everything
// observed in it would be allowed: programs and endpoints exactly, files by
// the fewest directories that say what was done (see group in places.go), and
// forbids for the well-known secrets and later-run files that those
// directories would open without need. The result passes Check.
func Learn(observed []exeq.Activity, r *exeq.Request) (*Source, error) {
	l := &learner{context: &r.Context, touched: map[string]map[string]bool{}}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("learn: %w", err)
	}
	if r.Resource.Type != "Program" {
		return nil, fmt.Errorf("learn: the run is of a %s, not of a Program", r.Resource.Type)
	}
	for i, a := range observed {
		if err := l.observe(a); err != nil {
			return nil, fmt.Errorf("learn: activity %d: %w", i, err)
		}
	}
	text := l.write(r)
	starter := Starter()
	src := &Source{Version: 1, Files: map[string]string{LearnedFile: text, SettingsFile: starter.Files[SettingsFile]}}
	if problems := Check(src); slices.ContainsFunc(problems, Problem.refuses) { // a file may be named *
		return nil, fmt.Errorf("learn: the learned set does not pass its own check: %w", &CheckError{problems})
	}
	return src, nil
}

// learner collects the distinct resources of each action; map counts as an
// action of its own here, since libraries are grouped and programs are not.
type learner struct {
	context *exeq.Context
	touched map[string]map[string]bool
}

func (l *learner) observe(a exeq.Activity) error {
	id := a.Resource.ID
	switch a.Action {
	case exeq.ActionExec, exeq.ActionMap, exeq.ActionRead, exeq.ActionWrite:
		if err := exeq.CheckPath(id); err != nil {
			return err
		}
	case exeq.ActionConnect:
		if _, _, err := splitEndpoint(id); err != nil {
			return err
		}
	default:
		return fmt.Errorf("action %q cannot be learned", a.Action)
	}
	l.touch(a.Action, id)
	if a.Action == exeq.ActionExec || a.Action == exeq.ActionMap {
		l.touch(exeq.ActionRead, id) // seen or not: what runs was opened
	}
	return nil
}

func (l *learner) touch(action, id string) {
	if l.touched[action] == nil {
		l.touched[action] = map[string]bool{}
	}
	l.touched[action][id] = true
}

func (l *learner) seen(action string) []string { return slices.Sorted(maps.Keys(l.touched[action])) }

// write gives the text of the set.
func (l *learner) write(r *exeq.Request) string {
	var b strings.Builder
	// A newline in the command must not end the comment: EncodeBytes has
	// already made the arguments printable.
	fmt.Fprintf(&b, "// Learned from one run of: %s\n//\n", exeq.EncodeBytes(brief(r.Context.Command)))
	b.WriteString("// It allows what that run did and little else. Read it before you use it:\n" +
		"// what a run did is not what it should have been allowed.\n")

	writePermit(&b, "run", "The program that was started.", `action == Exeq::Action::"run"`,
		[]types.EntityUID{l.exact(r.Resource.ID)}, nil)
	writePermit(&b, "exec", "Each program that ran in it.", `action == Exeq::Action::"exec"`, l.programs(), nil)
	libraries, single := l.files(exeq.ActionMap)
	writePermit(&b, "libraries", "What was mapped executable.", `action == Exeq::Action::"exec"`, libraries, single)
	reads, listings := l.files(exeq.ActionRead)
	writePermit(&b, "read", "Files that were read.", `action == Exeq::Action::"read"`, reads, nil)
	writePermit(&b, "list", "Directories that were listed, without what is in them.", `action == Exeq::Action::"read"`, nil, listings)
	writes, alone := l.files(exeq.ActionWrite)
	writePermit(&b, "write", "Files that were written, created, renamed or removed.", `action == Exeq::Action::"write"`, writes, nil)
	writePermit(&b, "write-alone", "Directories that were written to as such.", `action == Exeq::Action::"write"`, nil, alone)
	var endpoints []types.EntityUID
	for _, e := range l.seen(exeq.ActionConnect) {
		endpoints = append(endpoints, types.EntityUID{Type: typeEndpoint, ID: types.String(e)})
	}
	writePermit(&b, "connect", "Hosts that were reached.", `action == Exeq::Action::"connect"`, endpoints, nil)

	writeForbid(&b, "unneeded-reads", "Secrets that the directories above would open and that were not read.",
		"read", l.guards(exeq.ActionRead, reads, "no-project-secrets", "system-secrets", "no-home-secrets"))
	writeForbid(&b, "unneeded-writes", "Files that other tools run or obey later and that were not written.",
		"write", l.guards(exeq.ActionWrite, writes, "no-later-code", "no-home-startup", "no-project-secrets", "no-home-secrets", "no-system-writes"))
	return b.String()
}

// brief keeps a long command line from filling the head of the file.
func brief(s string) string {
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

// writePermit writes one permit over places and, exactly, over single paths.
func writePermit(b *strings.Builder, id, comment, action string, in, equal []types.EntityUID) {
	if len(in) == 0 && len(equal) == 0 {
		return
	}
	fmt.Fprintf(b, "\n// %s\n@id(\"learned-%s\")\npermit (principal, %s, resource)\nwhen\n{\n", comment, id, action)
	writeList(b, in, equal)
	b.WriteString("};\n")
}

func writeForbid(b *strings.Builder, id, comment, action string, in []types.EntityUID) {
	if len(in) == 0 {
		return
	}
	fmt.Fprintf(b, "\n// %s\n@id(\"learned-%s\")\nforbid (principal, action == Exeq::Action::%q, resource)\nwhen\n{\n", comment, id, action)
	writeList(b, in, nil)
	b.WriteString("};\n")
}

// writeList writes resource in [...] for each type of place (Cedar's sets hold
// one type), and resource == for single paths, joined by ||.
func writeList(b *strings.Builder, in, equal []types.EntityUID) {
	var parts []string
	byType := map[types.EntityType][]string{}
	for _, u := range in {
		byType[u.Type] = append(byType[u.Type], string(u.Type)+"::"+cedarString(string(u.ID)))
	}
	for _, t := range []types.EntityType{typeWorkspace, typeTmp, typeHome, typePath, typeEndpoint} {
		if list := byType[t]; len(list) > 0 {
			slices.Sort(list)
			parts = append(parts, "  resource in\n    ["+strings.Join(list, ",\n     ")+"]")
		}
	}
	for _, u := range equal {
		parts = append(parts, "  resource == "+string(u.Type)+"::"+cedarString(string(u.ID)))
	}
	b.WriteString(strings.Join(parts, " ||\n") + "\n")
}

// guards gives the literals of the starter's forbids that lie inside what is
// granted and were not touched.
func (l *learner) guards(action string, granted []types.EntityUID, rules ...string) []types.EntityUID {
	var out []types.EntityUID
	for _, u := range starterPlaces(rules) {
		p := l.absolute(u)
		inside := slices.ContainsFunc(granted, func(g types.EntityUID) bool {
			_, ok := relative(l.absolute(g), p)
			return ok
		})
		needed := false
		for t := range l.touched[action] {
			if _, ok := relative(p, t); ok {
				needed = true
			}
		}
		if inside && !needed {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, compareUID)
	return slices.Compact(out)
}

// GuardedUse is one use of a place that the starter set forbids.
type GuardedUse struct {
	Policy string // id in the starter set
	What   string // "read /home/u/.ssh, …"
}

// Guarded gives, for each place that the starter set forbids and that was read
// or written in a run of r all the same, one use: what was learned from it
// would allow it for good.
func Guarded(observed []exeq.Activity, r *exeq.Request) (out []GuardedUse) {
	l := &learner{context: &r.Context, touched: map[string]map[string]bool{}}
	for _, a := range observed {
		l.touch(a.Action, a.Resource.ID)
	}
	for _, g := range []struct {
		action string
		verb   string
		rules  []string
	}{
		{exeq.ActionRead, "read", []string{"no-project-secrets", "system-secrets", "no-home-secrets"}},
		{exeq.ActionWrite, "wrote to", []string{"no-project-secrets", "system-secrets", "no-home-secrets", "no-later-code", "no-home-startup"}},
	} {
		for _, rule := range g.rules {
			for _, u := range starterPlaces([]string{rule}) {
				for _, t := range l.seen(g.action) {
					if _, ok := relative(l.absolute(u), t); ok {
						out = append(out, GuardedUse{rule, g.verb + " " + t})
						break
					}
				}
			}
		}
	}
	return out
}

// starterPlaces gives the places that rules of the starter set name.
func starterPlaces(names []string) (out []types.EntityUID) {
	text := Starter().Files["starter.cedar"]
	rules, _ := parseRules("starter.cedar", text)
	for _, r := range rules {
		if !slices.Contains(names, r.id) {
			continue
		}
		for _, c := range r.conjuncts {
			if keys, ok := placeKeys(nil, c.node); ok && !c.negate {
				for _, k := range keys {
					out = append(out, k.uid)
				}
			}
		}
	}
	return out
}
