package canon

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
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
// behind the value. Errors name the member, as in "predicate.nonce: …".
func Decode(data []byte, v any, lim Limits) error {
	if len(data) > lim.Bytes {
		return fmt.Errorf("input of %d bytes is over the limit of %d", len(data), lim.Bytes)
	}
	if !utf8.Valid(data) {
		return errors.New("input is not valid UTF-8")
	}
	if err := checkSurrogates(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, reflect.TypeOf(v).Elem(), "", lim.Depth); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more behind the JSON value")
	}
	u := json.NewDecoder(bytes.NewReader(data))
	u.UseNumber()
	if err := u.Decode(v); err != nil {
		return readable(err)
	}
	return nil
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

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
)

// walk reads one value by tokens and compares its shape with t; t is nil where
// the target takes anything.
func walk(d *json.Decoder, t reflect.Type, path string, depth int) error {
	tok, err := d.Token()
	if err != nil {
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the JSON ends early")
		}
		return fmt.Errorf("%s: %w", orRoot(path), err)
	}
	if tok == nil {
		if t != nil && t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && t != rawMessage {
			return fmt.Errorf("%s: null is not allowed here", orRoot(path))
		}
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && (t.Kind() == reflect.Interface || t == rawMessage) {
		t = nil
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil // a scalar: encoding/json compares its type
	}
	if depth == 0 {
		return fmt.Errorf("%s: nested too deeply", orRoot(path))
	}
	if t != nil && (reflect.PointerTo(t).Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(jsonUnmarshaler)) {
		return fmt.Errorf("%s: want a string, found an object or array", orRoot(path))
	}
	if delim == '[' {
		return walkArray(d, t, path, depth)
	}
	return walkObject(d, t, path, depth)
}

func walkArray(d *json.Decoder, t reflect.Type, path string, depth int) error {
	var elem reflect.Type
	if t != nil {
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			return fmt.Errorf("%s: an array does not fit here", orRoot(path))
		}
		elem = t.Elem()
	}
	for i := 0; d.More(); i++ {
		if err := walk(d, elem, path+"["+strconv.Itoa(i)+"]", depth-1); err != nil {
			return err
		}
	}
	return closing(d, path)
}

func walkObject(d *json.Decoder, t reflect.Type, path string, depth int) error {
	var members map[string]reflect.Type
	var elem reflect.Type
	if t != nil {
		switch t.Kind() {
		case reflect.Struct:
			fs := fieldsOf(t)
			members = make(map[string]reflect.Type, len(fs))
			for _, f := range fs {
				members[f.name] = f.typ
			}
		case reflect.Map:
			elem = t.Elem()
		default:
			return fmt.Errorf("%s: an object does not fit here", orRoot(path))
		}
	}
	seen := make(map[string]bool)
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return fmt.Errorf("%s: %w", orRoot(path), err)
		}
		key, ok := k.(string)
		if !ok {
			return fmt.Errorf("%s: a member name is not a string", orRoot(path))
		}
		at := key
		if path != "" {
			at = path + "." + key
		}
		if seen[key] {
			return fmt.Errorf("%s: duplicate member", short(at))
		}
		seen[key] = true
		sub := elem
		if members != nil {
			if sub, ok = members[key]; !ok {
				return fmt.Errorf("%s: unknown member", short(at))
			}
		}
		if err := walk(d, sub, at, depth-1); err != nil {
			return err
		}
	}
	return closing(d, path)
}

func closing(d *json.Decoder, path string) error {
	if _, err := d.Token(); err != nil {
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the JSON ends early")
		}
		return fmt.Errorf("%s: %w", orRoot(path), err)
	}
	return nil
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
