package canon

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// Limits bound one decode.
type Limits struct {
	Bytes int // size of the whole input
	Depth int // nesting of objects and arrays
}

// Decode reads exactly one JSON value into the pointer v. Beyond what
// encoding/json refuses, it refuses input over the limits, invalid UTF-8, lone
// surrogates, duplicate members, members that the target does not have (names
// are case-sensitive), null where the target is not a pointer, and anything
// behind the value. Errors name the member, as in "predicate.nonce: …"; beside
// one, what v points to is zero.
func Decode(data []byte, v any, lim Limits) error {
	if fast(data, v, lim) {
		return nil
	}
	err := decode(data, v, lim)
	if err != nil {
		reflect.ValueOf(v).Elem().SetZero()
	}
	return err
}

func decode(data []byte, v any, lim Limits) error {
	if len(data) > lim.Bytes {
		return fmt.Errorf("input of %d bytes is over the limit of %d", len(data), lim.Bytes)
	}
	if !utf8.Valid(data) {
		return errors.New("input is not valid UTF-8")
	}
	if err := checkSurrogates(data); err != nil {
		return err
	}
	// Reading first checks the syntax, which the walker then relies on.
	err := unmarshal(data, v)
	if te := (*json.UnmarshalTypeError)(nil); err != nil && !errors.As(err, &te) {
		if bad := syntax(data); bad != nil {
			return bad
		}
	}
	w := walker{data: data}
	if strict := w.value(reflect.TypeOf(v).Elem(), nil, lim.Depth); strict != nil {
		return strict
	}
	return readable(err)
}

// readable turns encoding/json's type errors into ones that name the member
// and not Go's types.
func readable(err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		return fmt.Errorf("%s: a JSON %s does not fit here", orRoot(te.Field), te.Value)
	}
	return err
}

// unmarshal keeps numbers as they are spelled where the target takes anything;
// elsewhere the plain way, which reads the text once less, gives the same.
func unmarshal(data []byte, v any) error {
	if !takesAnything(reflect.TypeOf(v)) {
		return json.Unmarshal(data, v)
	}
	if err := syntax(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

var anythings sync.Map // reflect.Type → bool

// takesAnything reports whether an interface is anywhere in a type.
func takesAnything(t reflect.Type) bool {
	if known, ok := anythings.Load(t); ok {
		return known.(bool)
	}
	found := findInterface(t, map[reflect.Type]bool{})
	anythings.Store(t, found)
	return found
}

func findInterface(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return findInterface(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if findInterface(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
)

// syntax refuses what is not exactly one JSON value.
func syntax(data []byte) error {
	if json.Valid(data) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	var any json.RawMessage
	err := d.Decode(&any)
	switch {
	case err == nil:
		return errors.New("there is more behind the JSON value")
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("document: the JSON ends early")
	}
	return fmt.Errorf("document: %w at byte %d", err, d.InputOffset())
}

// walker compares the shape of one valid JSON text with a Go type.
type walker struct {
	data []byte
	pos  int
}

// at is a member or element within its parents, spelled out only in an error.
type at struct {
	in    *at
	key   string
	index int // where key is empty and in an array
	array bool
}

func (a *at) String() string {
	if a == nil {
		return ""
	}
	in := a.in.String()
	switch {
	case a.array:
		return in + "[" + strconv.Itoa(a.index) + "]"
	case in == "":
		return a.key
	}
	return in + "." + a.key
}

func (a *at) refuse(why string) error { return fmt.Errorf("%s: %s", orRoot(a.String()), why) }

// next skips white space and gives the byte at which a token begins.
func (w *walker) next() byte {
	for {
		switch c := w.data[w.pos]; c {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return c
		}
	}
}

// value reads one value; t is nil where the target takes anything.
func (w *walker) value(t reflect.Type, path *at, depth int) error {
	c := w.next()
	if c == 'n' {
		w.pos += len("null")
		if t != nil && t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && t != rawMessage {
			return path.refuse("null is not allowed here")
		}
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && (t.Kind() == reflect.Interface || t == rawMessage) {
		t = nil
	}
	if c != '[' && c != '{' { // a scalar: encoding/json compares its type
		w.scalar(c)
		return nil
	}
	if depth == 0 {
		return path.refuse("nested too deeply")
	}
	if t != nil && (reflect.PointerTo(t).Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(jsonUnmarshaler)) {
		return path.refuse("want a string, found an object or array")
	}
	w.pos++
	if c == '[' {
		return w.array(t, path, depth)
	}
	return w.object(t, path, depth)
}

// scalar skips a string, number, true or false.
func (w *walker) scalar(c byte) {
	if c == '"' {
		w.string()
		return
	}
	for w.pos < len(w.data) {
		switch w.data[w.pos] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return
		}
		w.pos++
	}
}

// string reads a string with its quotes and tells whether it has escapes.
func (w *walker) string() (raw []byte, escaped bool) {
	start := w.pos
	for w.pos++; ; w.pos++ {
		switch w.data[w.pos] {
		case '\\':
			escaped = true
			w.pos++
		case '"':
			w.pos++
			return w.data[start:w.pos], escaped
		}
	}
}

func (w *walker) array(t reflect.Type, path *at, depth int) error {
	var elem reflect.Type
	if t != nil {
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			return path.refuse("an array does not fit here")
		}
		elem = t.Elem()
	}
	here := at{in: path, array: true}
	for ; ; here.index++ {
		switch w.next() {
		case ']':
			w.pos++
			return nil
		case ',':
			w.pos++
		}
		if err := w.value(elem, &here, depth-1); err != nil {
			return err
		}
	}
}

func (w *walker) object(t reflect.Type, path *at, depth int) error {
	var members []field
	var elem reflect.Type
	known := false
	if t != nil {
		switch t.Kind() {
		case reflect.Struct:
			members, known = fieldsOf(t), true
		case reflect.Map:
			elem = t.Elem()
		default:
			return path.refuse("an object does not fit here")
		}
	}
	var seen names
	for {
		switch w.next() {
		case '}':
			w.pos++
			return nil
		case ',':
			w.pos++
			w.next()
		}
		key, err := w.key()
		if err != nil {
			return path.refuse(err.Error())
		}
		here := at{in: path, key: key}
		if !seen.add(key) {
			return here.refuse("duplicate member")
		}
		sub := elem
		if known {
			i := slices.IndexFunc(members, func(f field) bool { return f.name == key })
			if i < 0 {
				return here.refuse("unknown member")
			}
			sub = members[i].typ
		}
		w.next()
		w.pos++ // the colon
		if err := w.value(sub, &here, depth-1); err != nil {
			return err
		}
	}
}

func (w *walker) key() (string, error) {
	raw, escaped := w.string()
	if !escaped {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// names are the members of one object that were seen.
type names struct {
	few  [16]string
	n    int
	many map[string]bool
}

// add reports whether the name is new.
func (s *names) add(name string) bool {
	if s.many != nil {
		if s.many[name] {
			return false
		}
		s.many[name] = true
		return true
	}
	if slices.Contains(s.few[:s.n], name) {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	s.many = map[string]bool{name: true}
	for _, have := range s.few {
		s.many[have] = true
	}
	return true
}

func orRoot(path string) string {
	if path == "" {
		return "document"
	}
	return short(path)
}

// short keeps an attacker's huge member name out of an error.
func short(path string) string {
	if len(path) > 200 {
		return strconv.Quote(path[:200]) + "…"
	}
	return path
}

// checkSurrogates refuses \u escapes that are half a surrogate pair:
// encoding/json would turn them into U+FFFD and two inputs into one value.
func checkSurrogates(data []byte) error {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if i >= len(data) || data[i] != 'u' {
			continue
		}
		r, ok := hex4(data, i+1)
		if !ok {
			continue // encoding/json reports it
		}
		i += 4
		if r < 0xD800 || r > 0xDFFF {
			continue
		}
		low, ok := uint16(0), false
		if i+2 < len(data) && data[i+1] == '\\' && data[i+2] == 'u' {
			low, ok = hex4(data, i+3)
		}
		if r > 0xDBFF || !ok || low < 0xDC00 || low > 0xDFFF {
			return errors.New("a \\u escape is half of a surrogate pair")
		}
		i += 6
	}
	return nil
}

func hex4(data []byte, i int) (uint16, bool) {
	if i+4 > len(data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(data[i:i+4]), 16, 16)
	return uint16(n), err == nil
}
