package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// FuzzWalker compares the walker over bytes with one over encoding/json's
// tokens, for a target with a shape and one that takes anything.
func FuzzWalker(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":"x\"\\","p":{"a":2},"l":[{"a":1},{}],"m":{"k":"v"},"raw":[1,{"z":null}]}`, `[[],{},"",0]`, ` {"a" : 1 , "l" : [ ] } `,
		`{"a":1,"a":2}`, `{"\u0061":1,"a":2}`, `{"m":null}`, `{"l":{}}`, `{"p":[]}`, `nul`, `{"a"}`, `"`, `[1,]`, `{} {}`,
		`{"m":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":"","a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","1":""}}`,
		strings.Repeat("[", 40), strings.Repeat("[", 40) + strings.Repeat("]", 40),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, typ := range []reflect.Type{reflect.TypeFor[sample](), reflect.TypeFor[any]()} {
			d := json.NewDecoder(bytes.NewReader(in))
			d.UseNumber()
			want := walk(d, typ, "", 16)
			if want == nil {
				if _, err := d.Token(); err != io.EOF {
					want = errors.New("more")
				}
			}
			got := syntax(in)
			if got == nil {
				w := walker{data: in}
				if got = w.value(typ, nil, 16); got == nil && len(bytes.TrimSpace(in[w.pos:])) > 0 {
					t.Fatalf("%q: the walker stopped at byte %d", in, w.pos)
				}
			}
			if (got == nil) != (want == nil) {
				t.Fatalf("%q as %v: got %v, want %v", in, typ, got, want)
			}
		}
	})
}

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
