package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// value is a JSON value with its place in the text. Files of a set are read
// with these only once something is wrong with them, to say all of it and where.
type value struct {
	at      int    // offset of the first byte, of a member's name where it has one
	key     string // of a member
	members []value
	items   []value
	text    any // string, json.Number, bool or nil; '{' and '[' as json.Delim
}

// readValue parses one JSON value; the error is a [*json.SyntaxError] where the
// text is none.
func readValue(text string) (*value, error) {
	if err := json.Unmarshal([]byte(text), new(json.RawMessage)); err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	next := func() (json.Token, int, error) {
		at := int(d.InputOffset())
		for at < len(text) && strings.IndexByte(" \t\r\n,:", text[at]) >= 0 {
			at++
		}
		t, err := d.Token()
		return t, at, err
	}
	var read func() (value, error)
	read = func() (value, error) {
		t, at, err := next()
		v := value{at: at, text: t}
		if err != nil || t != json.Delim('{') && t != json.Delim('[') {
			return v, err
		}
		for d.More() {
			if t == json.Delim('[') {
				item, err := read()
				if err != nil {
					return v, err
				}
				v.items = append(v.items, item)
				continue
			}
			key, at, err := next()
			if err != nil {
				return v, err
			}
			m, err := read()
			if err != nil {
				return v, err
			}
			m.key, _ = key.(string)
			m.at = at
			v.members = append(v.members, m)
		}
		_, _, err = next()
		return v, err
	}
	v, err := read()
	return &v, err
}

// member finds a member by name.
func (v *value) member(key string) *value {
	for i := range v.members {
		if v.members[i].key == key {
			return &v.members[i]
		}
	}
	return nil
}

func (v *value) is(d rune) bool { return v.text == json.Delim(d) }

// jsonFile collects the problems of one file.
type jsonFile struct {
	name, text string
	problems   []Problem
}

func (f *jsonFile) problem(at int, message, fix string) *Problem {
	line := 1 + strings.Count(f.text[:at], "\n")
	f.problems = append(f.problems, Problem{File: f.name, Line: line, Column: at - strings.LastIndexByte(f.text[:at], '\n'), Message: message, Fix: fix})
	return &f.problems[len(f.problems)-1]
}

// shape checks an object's members: unknown ones, and ones that stand twice.
func (f *jsonFile) shape(v *value, path string, known ...string) bool {
	if !v.is('{') {
		f.problem(v.at, path+": an object is wanted here", "write { … } with "+strings.Join(known, ", "))
		return false
	}
	seen := map[string]bool{}
	for _, m := range v.members {
		where := strings.TrimPrefix(path+"."+m.key, "document.")
		switch {
		case seen[m.key]:
			f.problem(m.at, where+": it stands here a second time", "keep one")
		case !contains(known, m.key):
			f.problem(m.at, where+": there is no such member", "the members are "+strings.Join(known, ", "))
		}
		seen[m.key] = true
	}
	return true
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// explain says what is wrong with a file of a set that err refuses: everything
// that look finds, or err itself.
func explain(name, text string, err error, look func(*jsonFile, *value)) []Problem {
	f := &jsonFile{name: name, text: text}
	v, syntax := readValue(text)
	var se *json.SyntaxError
	switch {
	case errors.As(syntax, &se):
		at := min(max(int(se.Offset)-1, 0), len(text))
		if strings.HasPrefix(se.Error(), "unexpected end") {
			at = len(text)
		}
		f.problem(at, "does not parse: "+se.Error(), jsonFix(text, at))
	case syntax == nil && v != nil:
		look(f, v)
	}
	if len(f.problems) == 0 {
		f.problems = []Problem{{File: name, Message: err.Error(), Fix: "see docs/policy.md for its form"}}
	}
	return f.problems
}

// jsonFix says what to write for the mistakes that people make in JSON.
func jsonFix(text string, at int) string {
	before := strings.TrimRight(text[:at], " \t\r\n")
	rest := text[at:]
	switch {
	case rest == "":
		return "a closing } or ] or \" is missing at the end"
	case strings.HasPrefix(rest, "'"):
		return "write strings in double quotes"
	case strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "#"):
		return "JSON has no comments: leave it out"
	case strings.HasSuffix(before, ",") && (rest[0] == '}' || rest[0] == ']'):
		return "remove the comma before it"
	case rest[0] == '"' || rest[0] == '{' || rest[0] == '[':
		return "put a comma before it"
	}
	return fmt.Sprintf("JSON cannot go on with %.1q here", rest)
}
