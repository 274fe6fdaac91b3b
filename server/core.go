package server

import (
	"fmt"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
)

// coreRequest reads a question about Exeq's own types. As the API has it:
//
//   - subject: type Agent or User;
//   - action: run, exec, read, write, connect, call_tool;
//   - resource: type Program (properties.sha256), Path, Endpoint or Tool;
//   - context: workspace, home, tmp, command, cwd (strings), argv (strings),
//     claimed (an object of strings), tier (its name), on_behalf_of (a list of
//     {type, id}).
//
// What is missing of the context and is needed denies by the request's own rules.
func coreRequest(e *authzen.Evaluation) (*exeq.Request, *exeq.Inputs, error) {
	c := members{e.Context, "context.", nil}
	r := &exeq.Request{
		Subject:  exeq.Entity{Type: e.Subject.Type, ID: e.Subject.ID},
		Action:   e.Action.Name,
		Resource: exeq.Resource{Type: e.Resource.Type, ID: e.Resource.ID},
		Dir:      c.text("cwd"),
		Argv:     c.list("argv"),
		Context: exeq.Context{
			Workspace: c.text("workspace"), Home: c.text("home"), Tmp: c.text("tmp"),
			Command: c.text("command"), Claimed: c.texts("claimed"),
		},
		OnBehalfOf: c.entities("on_behalf_of"),
	}
	if t := r.Subject.Type; t != "Agent" && t != "User" {
		return nil, nil, fmt.Errorf("subject.type: neither Exeq nor an application of this server has a subject type %q", t)
	}
	in := &exeq.Inputs{Time: exeq.At(time.Now()), Session: exeq.Session{Labels: []string{}}}
	if name := c.text("tier"); name != "" && c.err == nil {
		in.Tier, c.err = exeq.ParseTier(name)
	}
	p := members{e.Resource.Properties, "resource.properties.", c.err}
	if sum := p.text("sha256"); sum != "" && p.err == nil {
		if err := r.Resource.SHA256.UnmarshalText([]byte(sum)); err != nil {
			p.err = fmt.Errorf("resource.properties.sha256: %w", err)
		}
	}
	return r, in, p.err
}

// members reads members by type; the first that misfits is the error.
type members struct {
	of  map[string]any
	at  string
	err error
}

func (m *members) wrong(name, want string) {
	if m.err == nil {
		m.err = fmt.Errorf("%s%s: want %s", m.at, name, want)
	}
}

func (m *members) text(name string) string {
	v, ok := m.of[name]
	s, is := v.(string)
	if ok && !is {
		m.wrong(name, "a string")
	}
	return s
}

func (m *members) list(name string) (out []string) {
	v, ok := m.of[name]
	list, is := v.([]any)
	if ok && !is {
		m.wrong(name, "an array of strings")
	}
	for _, x := range list {
		s, is := x.(string)
		if !is {
			m.wrong(name, "an array of strings")
		}
		out = append(out, s)
	}
	return out
}

func (m *members) texts(name string) map[string]string {
	v, ok := m.of[name]
	object, is := v.(map[string]any)
	if !ok {
		return nil
	}
	out := map[string]string{}
	for k, x := range object {
		s, text := x.(string)
		is = is && text
		out[k] = s
	}
	if !is {
		m.wrong(name, "an object of strings")
	}
	return out
}

func (m *members) entities(name string) (out []exeq.Entity) {
	v, ok := m.of[name]
	list, is := v.([]any)
	for _, x := range list {
		of, object := x.(map[string]any)
		e := members{of, "", nil}
		out = append(out, exeq.Entity{Type: e.text("type"), ID: e.text("id")})
		if last := out[len(out)-1]; !object || last.Type == "" || last.ID == "" {
			is = false
		}
	}
	if ok && !is {
		m.wrong(name, `an array of {"type", "id"}`)
	}
	return out
}
