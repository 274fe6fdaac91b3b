package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/exeq/exeq"
)

// statement is the text of one policy within its file.
type statement struct {
	text         string
	line, column int // of its first character, from 1
}

// splitStatements cuts Cedar text at its semicolons without parsing it, and
// refuses what would make the recursive parser behind it run away: brackets
// nested deeper, or a statement longer, than limits.go allows. Each statement
// then parses on its own, so that one mistake does not hide the next.
func splitStatements(file, text string) ([]statement, []Problem) {
	var out []statement
	if !utf8.ValidString(text) {
		return nil, []Problem{{File: file, Message: "the text is not valid UTF-8", Fix: "save the file as UTF-8"}}
	}
	sc := splitter{text: text, line: 1, column: 1}
	for {
		sc.skipBlank()
		if sc.done() {
			return out, nil
		}
		var st statement
		st.line, st.column = sc.place()
		start := sc.pos
		if msg, fix := sc.statement(); msg != "" {
			return out, []Problem{{File: file, Line: st.line, Column: st.column, Message: msg, Fix: fix}}
		}
		st.text = text[start:sc.pos]
		if len(st.text) > exeq.MaxPolicyStatementBytes {
			return out, []Problem{{File: file, Line: st.line, Column: st.column,
				Message: fmt.Sprintf("one policy of %d bytes is over the limit of %d", len(st.text), exeq.MaxPolicyStatementBytes),
				Fix:     "split it into several policies"}}
		}
		out = append(out, st)
		if len(out) > exeq.MaxPolicies {
			return out, []Problem{{File: file, Message: fmt.Sprintf("more than %d policies", exeq.MaxPolicies)}}
		}
	}
}

// splitter walks valid UTF-8 by bytes: all that it looks for is ASCII.
type splitter struct {
	text string
	pos  int
	// line and column are those of placed.
	placed, line, column int
}

// place gives the line and column of pos, both from 1.
func (s *splitter) place() (line, column int) {
	passed := s.text[s.placed:s.pos]
	if n := strings.Count(passed, "\n"); n > 0 {
		s.line, s.column = s.line+n, 1
		passed = passed[strings.LastIndexByte(passed, '\n')+1:]
	}
	s.column += utf8.RuneCountInString(passed)
	s.placed = s.pos
	return s.line, s.column
}

func (s *splitter) done() bool { return s.pos >= len(s.text) }

func (s *splitter) step() { s.pos++ }

func (s *splitter) skipBlank() {
	for !s.done() {
		switch c := s.text[s.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			s.step()
		case strings.HasPrefix(s.text[s.pos:], "//"):
			s.skipComment()
		default:
			return
		}
	}
}

func (s *splitter) skipComment() {
	if n := strings.IndexByte(s.text[s.pos:], '\n'); n >= 0 {
		s.pos += n
	} else {
		s.pos = len(s.text)
	}
}

// statement moves behind the semicolon that ends the statement at pos.
func (s *splitter) statement() (problem, fix string) {
	depth := 0
	for !s.done() {
		switch c := s.text[s.pos]; c {
		case '"':
			if !s.skipString() {
				return "a string is not closed", `end it with "`
			}
			continue
		case '/':
			if strings.HasPrefix(s.text[s.pos:], "//") {
				s.skipComment()
				continue
			}
		case '(', '[', '{':
			if depth++; depth > exeq.MaxPolicyNesting {
				return fmt.Sprintf("brackets nest deeper than %d", exeq.MaxPolicyNesting), "flatten the condition"
			}
		case ')', ']', '}':
			if depth--; depth < 0 {
				return fmt.Sprintf("%q closes nothing", c), "remove it"
			}
		case ';':
			if depth == 0 {
				s.step()
				return "", ""
			}
		}
		s.step()
	}
	if depth > 0 {
		return "a bracket is not closed", "close it before the next policy"
	}
	return "the policy does not end", "end it with ;"
}

func (s *splitter) skipString() bool {
	s.step()
	for !s.done() {
		switch s.text[s.pos] {
		case '\\':
			s.step()
			if s.done() {
				return false
			}
		case '"':
			s.step()
			return true
		}
		s.step()
	}
	return false
}
