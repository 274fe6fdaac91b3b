package guard

import (
	"bytes"
	"strings"
)

// setting is one value in a git configuration.
type setting struct{ section, subsection, key, value string }

// settings reads a git configuration as git does (config.c: git_parse_source):
// what follows a section on its line, quotes, comments, continued lines, keys
// and sections in any case. It stops at what git calls a bad line, as git does.
func settings(b []byte) (out []setting) {
	p := &configParser{b: bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))}
	section, subsection := "", ""
	for {
		c := p.next()
		switch {
		case p.eof:
			return out
		case space(c):
		case c == '#' || c == ';':
			for c != '\n' {
				c = p.next()
			}
		case c == '[':
			var ok bool
			if section, subsection, ok = p.section(); !ok {
				return out
			}
		case !letter(c):
			return out
		default:
			values, key, ok := p.setting(c)
			if !ok {
				return out
			}
			for _, v := range values {
				out = append(out, setting{section, subsection, key, v})
			}
		}
	}
}

type configParser struct {
	b   []byte
	eof bool
}

// next gives the end of the text as the end of a line, and CR LF as LF.
func (p *configParser) next() byte {
	if len(p.b) == 0 {
		p.eof = true
		return '\n'
	}
	if bytes.HasPrefix(p.b, []byte("\r\n")) {
		p.b = p.b[1:]
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c
}

// section reads what follows a bracket. The old [section.sub] is the same name
// as [section "sub"].
func (p *configParser) section() (name, sub string, ok bool) {
	var s strings.Builder
	for {
		c := p.next()
		switch {
		case p.eof:
			return "", "", false
		case c == ']':
			name, sub, _ = strings.Cut(s.String(), ".")
			return name, sub, true
		case space(c):
			sub, ok = p.subsection(c)
			if old, more, dotted := strings.Cut(s.String(), "."); dotted {
				return old, more + "." + sub, ok
			}
			return s.String(), sub, ok
		case !keyChar(c) && c != '.':
			return "", "", false
		}
		s.WriteByte(lower(c))
	}
}

func (p *configParser) subsection(c byte) (string, bool) {
	for space(c) {
		if c == '\n' {
			return "", false
		}
		c = p.next()
	}
	if c != '"' {
		return "", false
	}
	var s strings.Builder
	for {
		c = p.next()
		if c == '"' {
			return s.String(), p.next() == ']'
		}
		if c == '\\' {
			c = p.next()
		}
		if c == '\n' {
			return "", false
		}
		s.WriteByte(c)
	}
}

// setting reads a key from its first letter on, and its value. A key without
// one has none.
func (p *configParser) setting(c byte) (values []string, key string, ok bool) {
	var s strings.Builder
	for keyChar(c) && !p.eof {
		s.WriteByte(lower(c))
		c = p.next()
	}
	for c == ' ' || c == '\t' {
		c = p.next()
	}
	if c == '\n' {
		return nil, s.String(), true
	}
	if c != '=' {
		return nil, "", false
	}
	values, ok = p.value()
	return values, s.String(), ok
}

// value reads a value: as new git does, and where older git (before 2.45)
// makes each white space inside a blank, also that.
func (p *configParser) value() ([]string, bool) {
	var v, old, spaces strings.Builder
	quoted, comment := false, false
	for {
		c := p.next()
		switch {
		case c == '\n':
			// Git's strings end at a NUL.
			value, _, _ := strings.Cut(v.String(), "\x00")
			older, _, _ := strings.Cut(old.String(), "\x00")
			if value == older {
				return []string{value}, !quoted
			}
			return []string{value, older}, !quoted
		case comment:
			continue
		case space(c) && !quoted:
			if v.Len() > 0 {
				spaces.WriteByte(c)
			}
			continue
		case !quoted && (c == ';' || c == '#'):
			comment = true
			continue
		}
		v.WriteString(spaces.String())
		old.WriteString(strings.Repeat(" ", spaces.Len()))
		spaces.Reset()
		switch c {
		case '"':
			quoted = !quoted
			continue
		case '\\':
			if c = p.next(); c == '\n' {
				continue
			}
			to := strings.IndexByte("tbn\\\"", c)
			if to < 0 {
				return nil, false
			}
			c = "\t\b\n\\\""[to]
		}
		v.WriteByte(c)
		old.WriteByte(c)
	}
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func keyChar(c byte) bool { return letter(c) || '0' <= c && c <= '9' || c == '-' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}
