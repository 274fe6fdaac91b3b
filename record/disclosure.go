package record

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// encodeDisclosures stores what opens one leaf: JSON triples of field, salt and
// value. The values are canonical JSON already and go in as they are.
func encodeDisclosures(ds []exeq.Disclosure) []byte {
	n := 2
	for i := range ds {
		n += len(ds[i].Field) + len(ds[i].Value) + 48
	}
	return appendDisclosures(make([]byte, 0, n), ds)
}

func appendDisclosures(b []byte, ds []exeq.Disclosure) []byte {
	b = append(b, '[')
	for i := range ds {
		if i > 0 {
			b = append(b, ',')
		}
		named, err := canon.AppendString(append(b, '['), ds[i].Field)
		if err != nil { // not UTF-8: let it be replaced
			name, err := json.Marshal(ds[i].Field)
			if err != nil {
				panic("record: " + err.Error()) // a string always has a JSON form
			}
			named = append(append(b, '['), name...)
		}
		b = named
		b = append(append(append(b, `,"`...), ds[i].Salt...), `",`...)
		b = append(append(b, ds[i].Value...), ']')
	}
	return append(b, ']')
}

// opened is one stored disclosure, its value not yet read.
type opened struct {
	field, salt string
	value       []byte
}

var errDisclosures = errors.New("what opens its commitments is not as it was stored")

// splitDisclosures takes what encodeDisclosures wrote apart without decoding
// the values, most of which most readers skip.
func splitDisclosures(b []byte) ([]opened, error) {
	if b == nil {
		return nil, nil
	}
	at := 0
	eat := func(s string) bool {
		if !bytes.HasPrefix(b[at:], []byte(s)) {
			return false
		}
		at += len(s)
		return true
	}
	value := func() ([]byte, bool) {
		n := valueLen(b[at:])
		at += n
		return b[at-n : at], n > 0
	}
	if !eat("[") {
		return nil, errDisclosures
	}
	var out []opened
	for !eat("]") {
		if len(out) > 0 && !eat(",") || !eat("[") {
			return nil, errDisclosures
		}
		var o opened
		field, ok1 := value()
		ok1 = ok1 && eat(",")
		salt, ok2 := value()
		ok2 = ok2 && eat(",")
		v, ok3 := value()
		if !ok1 || !ok2 || !ok3 || !eat("]") || json.Unmarshal(field, &o.field) != nil || json.Unmarshal(salt, &o.salt) != nil {
			return nil, errDisclosures
		}
		o.value = v
		out = append(out, o)
	}
	if at != len(b) {
		return nil, errDisclosures
	}
	return out, nil
}

// valueLen is the length of the JSON value at the beginning of b, 0 where there
// is none. It looks at strings and brackets only.
func valueLen(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if i >= len(b) {
				return 0
			}
			if depth == 0 {
				return i + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth < 0 {
				return i // a number or a word ended before it
			}
			if depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return 0
}

// decodeDisclosures is the inverse of encodeDisclosures.
func decodeDisclosures(leaf string, b []byte) ([]exeq.Disclosure, error) {
	parts, err := splitDisclosures(b)
	if err != nil || parts == nil {
		return nil, err
	}
	out := make([]exeq.Disclosure, len(parts))
	for i, p := range parts {
		out[i] = exeq.Disclosure{Leaf: leaf, Field: p.field, Salt: p.salt, Value: p.value}
	}
	return out, nil
}
