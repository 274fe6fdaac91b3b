package canon

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// DecodeCanonical decodes as [Decode] does, and reports whether data is,
// byte for byte, what [Marshal] writes for the value that was read.
func DecodeCanonical(data []byte, v any, lim Limits) (canonical bool, err error) {
	if fast(data, v, lim) {
		return true, nil
	}
	if err := Decode(data, v, lim); err != nil {
		return false, err
	}
	again, err := Marshal(v)
	return err == nil && bytes.Equal(again, data), err
}

// fast reads data in one pass if it is the canonical form of a value of v's
// type: then it has no second member of a name, none that is unknown, nothing
// behind it, and whatever else [decode] looks for in passes of its own. It may
// say no to a text that is canonical all the same, and the slow way decides;
// never yes to another. v is zero where it says no.
func fast(data []byte, v any, lim Limits) bool {
	to := reflect.ValueOf(v)
	if to.Kind() != reflect.Pointer || to.IsNil() || !to.Elem().IsZero() {
		return false
	}
	to = to.Elem()
	p := planOf(to.Type())
	if p.how == unsupported || len(data) > lim.Bytes || !utf8.Valid(data) {
		return false
	}
	x := exact{data: data}
	if len(data) <= shared {
		x.text = string(data)
	}
	if !x.value(p, to, lim.Depth) || x.pos != len(data) {
		to.SetZero()
		return false
	}
	return true
}

// shared is up to which size the strings read share one copy of the input.
const shared = 64 << 10

// plan is how the values of a type are read; it is found once a type.
type plan struct {
	how    how
	typ    reflect.Type
	form   *form
	json   bool  // text: through UnmarshalJSON
	elem   *plan // pointer, slice, map
	fields []planned
}

// planned is one member of a struct.
type planned struct {
	*field
	plan *plan
}

type how uint8

const (
	unsupported how = iota // left to the slow way
	rawText
	text
	aString
	aBool
	anInt
	aUint
	aPointer
	aSlice
	aMap
	aStruct
)

var plans sync.Map // reflect.Type → *plan

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p := makePlan(t, map[reflect.Type]*plan{})
	plans.Store(t, p)
	return p
}

// makePlan follows what encoding/json reads and Marshal writes; where the two
// could be of different minds it gives up. made holds the plans of this call,
// since types may contain themselves.
func makePlan(t reflect.Type, made map[reflect.Type]*plan) *plan {
	if p, ok := made[t]; ok {
		return p
	}
	f := formOf(t)
	p := &plan{typ: t, form: f}
	made[t] = p
	to := reflect.PointerTo(t)
	switch {
	case f.raw:
		p.how = rawText
		return p
	case f.text && t.Kind() != reflect.Interface && (to.Implements(textUnmarshaler) || to.Implements(jsonUnmarshaler)):
		p.how, p.json = text, to.Implements(jsonUnmarshaler)
		return p
	case f.text || f.number || t.Implements(textUnmarshaler) || t.Implements(jsonUnmarshaler) || to.Implements(textUnmarshaler) || to.Implements(jsonUnmarshaler):
		return p
	}
	switch t.Kind() {
	case reflect.String:
		p.how = aString
	case reflect.Bool:
		p.how = aBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.how = anInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		p.how = aUint
	case reflect.Pointer:
		if p.elem = makePlan(t.Elem(), made); p.elem.how != aPointer && p.elem.how != rawText {
			p.how = aPointer
		}
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 { // encoding/json reads base64
			p.how, p.elem = aSlice, makePlan(t.Elem(), made)
		}
	case reflect.Map:
		k := t.Key()
		if k.Kind() == reflect.String && !k.Implements(textMarshaler) && !reflect.PointerTo(k).Implements(textUnmarshaler) {
			p.how, p.elem = aMap, makePlan(t.Elem(), made)
		}
	case reflect.Struct:
		if !plainStruct(t) {
			return p
		}
		p.how = aStruct
		for i := range f.fields {
			p.fields = append(p.fields, planned{&f.fields[i], makePlan(f.fields[i].typ, made)})
		}
	}
	return p
}

// plainStruct accepts structs of whose members encoding/json and fieldsOf have
// one idea: none embedded, none quoted, each name given once and of letters.
func plainStruct(t reflect.Type) bool {
	names := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			return false
		}
		if !f.IsExported() {
			continue
		}
		tag := f.Tag.Get("json")
		if tag == "-" {
			continue
		}
		name, opts, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		for _, c := range name {
			if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
				return false
			}
		}
		if names[name] || strings.Contains(opts, "string") {
			return false
		}
		names[name] = true
	}
	return true
}

// exact reads one canonical text. Each method reports whether what stands at
// pos is what Marshal would have written there, and reads over it.
type exact struct {
	data []byte
	text string // a copy of data of which strings are parts; "" where it is long
	pos  int
	room []byte
}

// is reads one byte.
func (x *exact) is(c byte) bool {
	if x.pos >= len(x.data) || x.data[x.pos] != c {
		return false
	}
	x.pos++
	return true
}

// word reads a fixed text.
func (x *exact) word(w string) bool {
	end, ok := literal(x.data, x.pos, w)
	if ok {
		x.pos = end
	}
	return ok
}

func (x *exact) value(p *plan, v reflect.Value, depth int) bool {
	switch p.how {
	case rawText:
		end, ok := verbatimValue(x.data, x.pos, depth)
		if ok {
			v.SetBytes(bytes.Clone(x.data[x.pos:end]))
			x.pos = end
		}
		return ok
	case text:
		return x.marshaled(p, v)
	case aString:
		s, ok := x.string()
		v.SetString(s)
		return ok
	case aBool:
		if x.word("true") {
			v.SetBool(true)
			return true
		}
		return x.word("false")
	case anInt, aUint:
		return x.integer(p, v)
	case aPointer:
		if x.word("null") {
			return true
		}
		v.Set(reflect.New(p.elem.typ))
		return x.value(p.elem, v.Elem(), depth)
	case aSlice, aMap, aStruct:
		if depth == 0 {
			return false
		}
	}
	switch p.how {
	case aSlice:
		return x.slice(p, v, depth-1)
	case aMap:
		return x.mapping(p, v, depth-1)
	case aStruct:
		return x.structure(p, v, depth-1)
	}
	return false
}

// marshaled reads a string through the type's own method, and insists that
// the value writes itself as it was spelled.
func (x *exact) marshaled(p *plan, v reflect.Value) bool {
	if x.pos >= len(x.data) || x.data[x.pos] != '"' {
		return false
	}
	end, plain, ok := verbatimString(x.data, x.pos)
	if !ok || !plain {
		return false
	}
	raw := x.data[x.pos:end]
	x.pos = end
	to := v.Addr().Interface()
	var err error
	if p.json {
		err = to.(json.Unmarshaler).UnmarshalJSON(raw)
	} else {
		err = to.(encoding.TextUnmarshaler).UnmarshalText(raw[1 : len(raw)-1])
	}
	if err != nil {
		return false
	}
	again, err := appendText(x.room[:0], v, p.form)
	x.room = again
	return err == nil && bytes.Equal(again, raw)
}

func (x *exact) integer(p *plan, v reflect.Value) bool {
	if x.pos >= len(x.data) {
		return false
	}
	if c := x.data[x.pos]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	end, ok := verbatimInteger(x.data, x.pos)
	if !ok {
		return false
	}
	n, err := strconv.ParseInt(string(x.data[x.pos:end]), 10, 64)
	x.pos = end
	if err != nil {
		return false
	}
	if p.how == anInt {
		if v.OverflowInt(n) {
			return false
		}
		v.SetInt(n)
		return true
	}
	if n < 0 || v.OverflowUint(uint64(n)) {
		return false
	}
	v.SetUint(uint64(n))
	return true
}

// string reads a string and what it says.
func (x *exact) string() (string, bool) {
	if x.pos >= len(x.data) || x.data[x.pos] != '"' {
		return "", false
	}
	start := x.pos + 1
	end, plain, ok := verbatimString(x.data, x.pos)
	if !ok {
		return "", false
	}
	x.pos = end
	raw := x.data[start : end-1]
	switch {
	case !plain && bytes.IndexByte(raw, '\\') >= 0:
		return unescape(raw), true
	case x.text != "":
		return x.text[start : end-1], true
	}
	return string(raw), true
}

// unescape gives what a string that verbatimString accepts says.
func unescape(raw []byte) string {
	var b strings.Builder
	b.Grow(len(raw))
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			b.Write(raw)
			return b.String()
		}
		b.Write(raw[:i])
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 't':
			c = '\t'
		case 'n':
			c = '\n'
		case 'f':
			c = '\f'
		case 'r':
			c = '\r'
		case 'u': // 00XX
			n, _ := hex4(raw, 0)
			c, raw = byte(n), raw[4:]
		}
		b.WriteByte(c)
	}
}

func (x *exact) slice(p *plan, v reflect.Value, depth int) bool {
	if !x.is('[') {
		return false
	}
	if x.is(']') {
		v.Set(reflect.MakeSlice(p.typ, 0, 0))
		return true
	}
	for n := 0; ; n++ {
		if n == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(n + 1)
		if !x.value(p.elem, v.Index(n), depth) {
			return false
		}
		if x.is(']') {
			return true
		}
		if !x.is(',') {
			return false
		}
	}
}

func (x *exact) mapping(p *plan, v reflect.Value, depth int) bool {
	if !x.is('{') {
		return false
	}
	v.Set(reflect.MakeMap(p.typ))
	if x.is('}') {
		return true
	}
	key, elem := reflect.New(p.typ.Key()).Elem(), reflect.New(p.elem.typ).Elem()
	last := ""
	for n := 0; ; n++ {
		k, ok := x.string()
		if !ok || n > 0 && compareKeys(last, k) >= 0 || !x.is(':') {
			return false
		}
		last = k
		key.SetString(k)
		elem.SetZero()
		if !x.value(p.elem, elem, depth) {
			return false
		}
		v.SetMapIndex(key, elem)
		if x.is('}') {
			return true
		}
		if !x.is(',') {
			return false
		}
	}
}

// structure reads the members in the order in which they must stand, each
// there exactly where Marshal would have written it.
func (x *exact) structure(p *plan, v reflect.Value, depth int) bool {
	if !x.is('{') {
		return false
	}
	first := true
	for i := range p.fields {
		f := &p.fields[i]
		at := x.pos
		if (first || x.is(',')) && x.word(f.quoted) {
			first = false
			fv := v.Field(f.index)
			if !x.value(f.plan, fv, depth) || f.omitEmpty && isEmpty(fv) || f.omitZero && fv.IsZero() {
				return false
			}
			continue
		}
		x.pos = at
		if !f.omitEmpty && !f.omitZero {
			return false
		}
	}
	return x.is('}')
}
