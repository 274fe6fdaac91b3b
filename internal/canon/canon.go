// Package canon writes canonical JSON (RFC 8785, JCS) and decodes JSON
// strictly. The two belong together: what is signed or hashed must have one
// spelling, and what is read must not have meanings that the writer could not
// have had. Standard library only, since the root package and proof use it.
package canon

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// maxInt is the largest integer that every JSON reader keeps exactly.
const maxInt = 1<<53 - 1

// Marshal gives v in the form of RFC 8785. It supports what artifacts use:
// structs with json tags (omitempty, omitzero), maps with string keys, slices,
// strings, booleans, integers up to 2^53-1, text marshalers, json.RawMessage
// and pointers to these. Floats are refused: no artifact has one.
func Marshal(v any) ([]byte, error) {
	return appendValue(make([]byte, 0, 512), reflect.ValueOf(v))
}

// form is how the values of a type are written; it is found once a type, since
// asking a type for its methods costs more than writing most values.
type form struct {
	kind   reflect.Kind // Invalid: as one of the forms below
	raw    bool         // json.RawMessage
	number bool         // json.Number
	text   bool         // encoding.TextMarshaler
	append bool         // encoding.TextAppender, too
	fields []field      // of a struct, in canonical order
}

var (
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	textAppender  = reflect.TypeFor[encoding.TextAppender]()
	rawMessage    = reflect.TypeFor[json.RawMessage]()
	number        = reflect.TypeFor[json.Number]()

	forms sync.Map // reflect.Type → *form
)

func formOf(t reflect.Type) *form {
	if f, ok := forms.Load(t); ok {
		return f.(*form)
	}
	f := &form{}
	switch {
	case t == rawMessage:
		f.raw = true
	case t == number:
		f.number = true
	case t.Kind() != reflect.Pointer && t.Implements(textMarshaler):
		f.text, f.append = true, t.Implements(textAppender)
	default:
		if f.kind = t.Kind(); f.kind == reflect.Struct {
			f.fields = fieldsOf(t)
		}
	}
	forms.Store(t, f)
	return f
}

func appendValue(b []byte, v reflect.Value) ([]byte, error) {
	if !v.IsValid() {
		return append(b, "null"...), nil
	}
	f := formOf(v.Type())
	switch {
	case f.raw:
		return appendRaw(b, v.Bytes())
	case f.number:
		return appendNumber(b, v.String())
	case f.text:
		return appendText(b, v, f)
	}
	switch f.kind {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(b, "null"...), nil
		}
		return appendValue(b, v.Elem())
	case reflect.String:
		return AppendString(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n := v.Int(); n > maxInt || n < -maxInt {
			return nil, fmt.Errorf("canon: integer %d is beyond 2^53-1: encode it as a string", n)
		}
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > maxInt {
			return nil, fmt.Errorf("canon: integer %d is beyond 2^53-1: encode it as a string", v.Uint())
		}
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.Slice, reflect.Array:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendValue(b, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Struct:
		return appendStruct(b, v, f.fields)
	}
	return nil, fmt.Errorf("canon: no canonical form for %s", v.Type())
}

// appendText writes what a value says of itself as a string.
func appendText(b []byte, v reflect.Value, f *form) ([]byte, error) {
	if v.CanAddr() {
		v = v.Addr() // a pointer needs no copy of the value
	}
	if !f.append {
		s, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return nil, err
		}
		return AppendString(b, string(s))
	}
	start := len(b)
	b, err := v.Interface().(encoding.TextAppender).AppendText(append(b, '"'))
	if err != nil {
		return nil, err
	}
	for _, c := range b[start+1:] {
		if c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return AppendString(b[:start], string(b[start+1:]))
		}
	}
	return append(b, '"'), nil
}

func appendMap(b []byte, v reflect.Value) ([]byte, error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("canon: map key %s is not a string", v.Type().Key())
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return compareKeys(x.String(), y.String()) })
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = AppendString(b, k.String()); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendValue(b, v.MapIndex(k)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendStruct(b []byte, v reflect.Value, fields []field) ([]byte, error) {
	b = append(b, '{')
	first := true
	for i := range fields {
		f := &fields[i]
		fv := v.Field(f.index)
		if f.omitEmpty && isEmpty(fv) || f.omitZero && fv.IsZero() {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, f.quoted...)
		var err error
		if b, err = appendValue(b, fv); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return append(b, '}'), nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// field is one member of a struct, ready to write.
type field struct {
	name                string
	quoted              string // `"name":`
	index               int
	typ                 reflect.Type
	omitEmpty, omitZero bool
}

var fieldCache sync.Map // reflect.Type → []field, in canonical order

func fieldsOf(t reflect.Type) []field {
	if f, ok := fieldCache.Load(t); ok {
		return f.([]field)
	}
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, opts, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if !sf.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = sf.Name
		}
		out = append(out, field{
			name: tag, quoted: strconv.Quote(tag) + ":", index: i, typ: sf.Type,
			omitEmpty: strings.Contains(opts, "omitempty"),
			omitZero:  strings.Contains(opts, "omitzero"),
		})
	}
	slices.SortFunc(out, func(x, y field) int { return compareKeys(x.name, y.name) })
	fieldCache.Store(t, out)
	return out
}

// compareKeys orders by UTF-16 code units, as RFC 8785 section 3.2.3 asks.
func compareKeys(x, y string) int {
	ascii := func(s string) bool {
		for i := range len(s) {
			if s[i] >= utf8.RuneSelf {
				return false
			}
		}
		return true
	}
	if ascii(x) && ascii(y) {
		return strings.Compare(x, y)
	}
	return slices.Compare(utf16.Encode([]rune(x)), utf16.Encode([]rune(y)))
}

func appendRaw(b []byte, raw []byte) ([]byte, error) {
	if verbatim(raw) {
		return append(b, raw...), nil
	}
	var v any
	if err := Decode(raw, &v, Limits{Bytes: len(raw), Depth: 512}); err != nil {
		return nil, err
	}
	return appendValue(b, reflect.ValueOf(v))
}

func appendNumber(b []byte, s string) ([]byte, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > maxInt || n < -maxInt || strconv.FormatInt(n, 10) != s {
		return nil, fmt.Errorf("canon: number %q is not a plain integer within 2^53-1", s)
	}
	return append(b, s...), nil
}

// AppendString appends s as a canonical JSON string (RFC 8785, 3.2.2.2).
func AppendString(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("canon: string is not valid UTF-8")
	}
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\f':
			b = append(b, '\\', 'f')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(append(b, s[start:]...), '"'), nil
}
