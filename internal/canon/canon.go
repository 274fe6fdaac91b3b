// Package canon writes canonical JSON (RFC 8785, JCS) and decodes JSON
// strictly. The two belong together: what is signed or hashed must have one
// spelling, and what is read must not have meanings that the writer could not
// have had. Standard library only, since the root package and proof use it.
package canon

import (
	"crypto/sha256"
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
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	b, err := Append((*s)[:0], v)
	if err != nil {
		return nil, err
	}
	if cap(b) <= maxScratch {
		*s = b
	}
	return append(make([]byte, 0, len(b)), b...), nil
}

// Append appends what Marshal gives.
func Append(b []byte, v any) ([]byte, error) {
	return appendDynamic(b, reflect.ValueOf(v))
}

// Text is a string to write whose holder has it as bytes.
type Text []byte

// Written is a value that Append has written: it is copied unread, so it must
// never hold bytes from anywhere else.
type Written []byte

// Sum256 is SHA-256 over tag and what Marshal gives, with the latter's length.
func Sum256(tag string, v any) (sum [sha256.Size]byte, n int, err error) {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	b, err := Append(append((*s)[:0], tag...), v)
	if err != nil {
		return sum, 0, err
	}
	if cap(b) <= maxScratch {
		*s = b
	}
	return sha256.Sum256(b), len(b) - len(tag), nil
}

// scratch holds buffers to write into, so that a value costs one allocation of
// its own size and not one a doubling.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

const maxScratch = 64 << 10

// form is how the values of a type are written; it is found once a type, since
// asking a type for its methods costs more than writing most values.
type form struct {
	kind   reflect.Kind // Invalid: as one of the forms below
	raw    bool         // json.RawMessage
	bytes  bool         // Text
	as     bool         // Written
	number bool         // json.Number
	text   bool         // encoding.TextMarshaler
	append bool         // encoding.TextAppender, too
	elem   *form        // of a pointer, slice, array or map
	fields []field      // of a struct, in canonical order
	forms  []*form      // of the fields
}

var (
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	textAppender  = reflect.TypeFor[encoding.TextAppender]()
	rawMessage    = reflect.TypeFor[json.RawMessage]()
	textBytes     = reflect.TypeFor[Text]()
	written       = reflect.TypeFor[Written]()
	number        = reflect.TypeFor[json.Number]()

	forms sync.Map // reflect.Type → *form, complete
)

func formOf(t reflect.Type) *form {
	if f, ok := forms.Load(t); ok {
		return f.(*form)
	}
	made := map[reflect.Type]*form{}
	f := makeForm(t, made)
	for t, f := range made { // types may hold themselves: only now are all complete
		forms.Store(t, f)
	}
	return f
}

func makeForm(t reflect.Type, made map[reflect.Type]*form) *form {
	if f, ok := made[t]; ok {
		return f
	}
	f := &form{}
	made[t] = f
	switch {
	case t == rawMessage:
		f.raw = true
		return f
	case t == textBytes:
		f.bytes = true
		return f
	case t == written:
		f.as = true
		return f
	case t == number:
		f.number = true
		return f
	case t.Kind() != reflect.Pointer && t.Implements(textMarshaler):
		f.text, f.append = true, t.Implements(textAppender)
		return f
	}
	f.kind = t.Kind()
	switch f.kind {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		f.elem = makeForm(t.Elem(), made)
	case reflect.Struct:
		f.fields = fieldsOf(t)
		for i := range f.fields {
			f.forms = append(f.forms, makeForm(f.fields[i].typ, made))
		}
	}
	return f
}

// appendDynamic writes a value whose type is not known from what holds it.
func appendDynamic(b []byte, v reflect.Value) ([]byte, error) {
	if !v.IsValid() {
		return append(b, "null"...), nil
	}
	return appendValue(b, v, formOf(v.Type()))
}

func appendValue(b []byte, v reflect.Value, f *form) ([]byte, error) {
	switch f.kind {
	case reflect.Invalid:
		switch {
		case f.raw:
			return appendRaw(b, v.Bytes())
		case f.bytes:
			return AppendString(b, v.Bytes())
		case f.as:
			return append(b, v.Bytes()...), nil
		case f.number:
			return appendNumber(b, v.String())
		}
		return appendText(b, v, f)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...), nil
		}
		return appendValue(b, v.Elem(), f.elem)
	case reflect.Interface:
		if v.IsNil() {
			return append(b, "null"...), nil
		}
		return appendDynamic(b, v.Elem())
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
			if b, err = appendValue(b, v.Index(i), f.elem); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case reflect.Map:
		return appendMap(b, v, f)
	case reflect.Struct:
		return appendStruct(b, v, f)
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
	if plainLen(b[start+1:]) < len(b)-start-1 {
		return AppendString(b[:start], string(b[start+1:]))
	}
	return append(b, '"'), nil
}

func appendMap(b []byte, v reflect.Value, f *form) ([]byte, error) {
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		return nil, fmt.Errorf("canon: map key %s is not a string", t.Key())
	}
	// Members are written as they come and then put in order.
	b = append(b, '{')
	start := len(b)
	key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem() // addressable, see appendText
	members := make([]member, 0, 16)
	plain := true
	for it := v.MapRange(); it.Next(); {
		key.SetIterKey(it)
		value.SetIterValue(it)
		m := member{name: key.String(), from: len(b)}
		plain = plain && ascii(m.name)
		var err error
		if b, err = AppendString(b, m.name); err != nil {
			return nil, err
		}
		if b, err = appendValue(append(b, ':'), value, f.elem); err != nil {
			return nil, err
		}
		m.to = len(b)
		members = append(members, m)
	}
	compare := compareKeys
	if plain {
		compare = strings.Compare
	}
	slices.SortFunc(members, func(x, y member) int { return compare(x.name, y.name) })
	end := len(b)
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, b[m.from:m.to]...)
	}
	return append(append(b[:start], b[end:]...), '}'), nil
}

// member is where a map's member was written.
type member struct {
	name     string
	from, to int
}

func appendStruct(b []byte, v reflect.Value, of *form) ([]byte, error) {
	b = append(b, '{')
	first := true
	for i := range of.fields {
		f := &of.fields[i]
		fv := v.Field(f.index)
		if f.omitEmpty && empty(fv, of.forms[i]) || f.omitZero && fv.IsZero() {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, f.quoted...)
		var err error
		if b, err = appendValue(b, fv, of.forms[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return append(b, '}'), nil
}

// empty is isEmpty of a value whose form is known, for the common kinds without
// asking it again.
func empty(v reflect.Value, f *form) bool {
	switch f.kind {
	case reflect.String, reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Int, reflect.Int64:
		return v.Int() == 0
	}
	return isEmpty(v)
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
	if ascii(x) && ascii(y) {
		return strings.Compare(x, y)
	}
	return slices.Compare(utf16.Encode([]rune(x)), utf16.Encode([]rune(y)))
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func appendRaw(b []byte, raw []byte) ([]byte, error) {
	if verbatim(raw) {
		return append(b, raw...), nil
	}
	var v any
	if err := Decode(raw, &v, Limits{Bytes: len(raw), Depth: 512}); err != nil {
		return nil, err
	}
	return appendDynamic(b, reflect.ValueOf(v))
}

func appendNumber(b []byte, s string) ([]byte, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > maxInt || n < -maxInt || strconv.FormatInt(n, 10) != s {
		return nil, fmt.Errorf("canon: number %q is not a plain integer within 2^53-1", s)
	}
	return append(b, s...), nil
}

// AppendString appends s as a canonical JSON string (RFC 8785, 3.2.2.2).
func AppendString[T string | []byte](b []byte, s T) ([]byte, error) {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start, checked := 0, false
	for i := plainLen(s); i < len(s); i += plainLen(s[i:]) {
		c := s[i]
		i++
		if c >= utf8.RuneSelf {
			if !checked && !utf8.ValidString(string(s[i-1:])) {
				return nil, errors.New("canon: string is not valid UTF-8")
			}
			checked = true
			continue
		}
		b = append(b, s[start:i-1]...)
		start = i
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

// plainLen is the length of the part at the beginning of s that stands in a
// JSON string as it is and is ASCII.
func plainLen[T string | []byte](s T) int {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		const ones, high = 0x0101010101010101, 0x8080808080808080
		w := word(s[i : i+8])
		quote, slash := w^ones*'"', w^ones*'\\'
		// The high bit of a byte is set where the byte is beyond ASCII, below
		// 0x20, or one of the two; at times of the byte above such a one, too.
		if (w|(w-ones*0x20)|(quote-ones)&^quote|(slash-ones)&^slash)&high != 0 {
			break
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return i
}

// word is eight bytes; the one index that is checked is the last.
func word[T string | []byte](s T) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}
