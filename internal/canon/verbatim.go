package canon

import (
	"bytes"
	"unicode/utf8"
)

// verbatim reports whether text is exactly what Marshal would write for the
// value that it spells, so that it may be copied. It makes nothing and may say
// no to a text that is canonical all the same (member names with escapes or
// beyond ASCII, whose order is that of UTF-16); never yes to another.
func verbatim(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	end, ok := verbatimValue(text, 0, 512)
	return ok && end == len(text)
}

// verbatimValue gives the end of the value at i, in which arrays and objects
// are nested no deeper than depth.
func verbatimValue(b []byte, i, depth int) (int, bool) {
	if i >= len(b) {
		return i, false
	}
	switch c := b[i]; {
	case c == '"':
		i, _, ok := verbatimString(b, i)
		return i, ok
	case c == '-' || c >= '0' && c <= '9':
		return verbatimInteger(b, i)
	case c == 't':
		return literal(b, i, "true")
	case c == 'f':
		return literal(b, i, "false")
	case c == 'n':
		return literal(b, i, "null")
	case depth == 0:
		return i, false
	case c == '[':
		if i++; i < len(b) && b[i] == ']' {
			return i + 1, true
		}
		for {
			var ok bool
			if i, ok = verbatimValue(b, i, depth-1); !ok || i >= len(b) {
				return i, false
			}
			if b[i] == ']' {
				return i + 1, true
			}
			if b[i] != ',' {
				return i, false
			}
			i++
		}
	case c == '{':
		return verbatimObject(b, i+1, depth)
	}
	return i, false
}

func verbatimObject(b []byte, i, depth int) (int, bool) {
	if i < len(b) && b[i] == '}' {
		return i + 1, true
	}
	var last []byte
	first := true
	for {
		if i >= len(b) || b[i] != '"' {
			return i, false
		}
		end, plain, ok := verbatimString(b, i)
		if !ok || !plain {
			return i, false
		}
		name := b[i+1 : end-1]
		if !first && bytes.Compare(last, name) >= 0 {
			return i, false
		}
		last, first = name, false
		if end >= len(b) || b[end] != ':' {
			return i, false
		}
		if i, ok = verbatimValue(b, end+1, depth-1); !ok || i >= len(b) {
			return i, false
		}
		if b[i] == '}' {
			return i + 1, true
		}
		if b[i] != ',' {
			return i, false
		}
		i++
	}
}

// verbatimString gives the end of the string at i, behind its quote, and
// whether it has neither escapes nor runes beyond ASCII.
func verbatimString(b []byte, i int) (end int, plain, ok bool) {
	plain = true
	for i++; i < len(b); i++ {
		if i += plainLen(b[i:]); i == len(b) {
			break
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, plain, true
		case c < 0x20:
			return i, false, false
		case c >= utf8.RuneSelf:
			plain = false
		case c == '\\':
			plain = false
			if i++; i >= len(b) {
				return i, false, false
			}
			switch b[i] {
			case '"', '\\', 'b', 't', 'n', 'f', 'r':
			case 'u':
				if !controlEscape(b, i+1) {
					return i, false, false
				}
				i += 4
			default:
				return i, false, false
			}
		}
	}
	return i, false, false
}

// controlEscape accepts 00XX for the controls that have no shorter escape.
func controlEscape(b []byte, i int) bool {
	if i+4 > len(b) || b[i] != '0' || b[i+1] != '0' || b[i+2] != '0' && b[i+2] != '1' {
		return false
	}
	low := b[i+3]
	switch {
	case low >= '0' && low <= '9', low >= 'a' && low <= 'f':
	default:
		return false
	}
	if b[i+2] == '1' {
		return true
	}
	switch low {
	case '8', '9', 'a', 'c', 'd': // \b \t \n \f \r
		return false
	}
	return true
}

// verbatimInteger accepts integers of at most 15 digits, which are all within
// 2^53-1.
func verbatimInteger(b []byte, i int) (int, bool) {
	negative := b[i] == '-'
	if negative {
		i++
	}
	start := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	switch n := i - start; {
	case n == 0 || n > 15:
		return i, false
	case b[start] == '0' && (n > 1 || negative):
		return i, false
	}
	return i, i == len(b) || b[i] == ',' || b[i] == ']' || b[i] == '}'
}

func literal(b []byte, i int, word string) (int, bool) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return i, false
	}
	return i + len(word), true
}
