package canon

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
)

type sample struct {
	B    string            `json:"b"`
	A    int               `json:"a"`
	M    map[string]string `json:"m,omitempty"`
	L    []sample          `json:"l,omitempty"`
	P    *sample           `json:"p,omitempty"`
	Raw  json.RawMessage   `json:"raw,omitempty"`
	Skip string            `json:"-"`
}

func TestMarshalIsJCS(t *testing.T) {
	v := sample{B: "z\u20ac\"\\\n\x01<>&", A: 1 << 50, M: map[string]string{"\u20ac": "1", "\U0001F600": "2", "\ufb33": "3", "a": "4"},
		L: []sample{{}, {A: -7}}, P: &sample{B: "p"}, Raw: json.RawMessage(`{"z":[1, 2],"a":null}`)}
	got, err := Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want, err := jcs.Transform(plain)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, v := range map[string]any{
		"large integer": map[string]any{"n": int64(1) << 53},
		"float":         1.5,
		"bad UTF-8":     "\xff",
		"raw float":     json.RawMessage(`1.5`),
		"raw duplicate": json.RawMessage(`{"a":1,"a":2}`),
		"integer key":   map[int]string{1: "x"},
	} {
		if b, err := Marshal(v); err == nil {
			t.Errorf("%s: got %s, want an error", name, b)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	lim := Limits{Bytes: 200, Depth: 4}
	for _, c := range []struct{ in, want string }{
		{`{"b":"x","b":"y"}`, "b: duplicate member"},
		{`{"B":"x"}`, "B: unknown member"},
		{`{"p":{"c":1}}`, "p.c: unknown member"},
		{`{"l":[{"a":"x"}]}`, "does not fit"},
		{`{"m":{"a":"1","a":"2"}}`, "m.a: duplicate member"},
		{`{"raw":{"a":1,"a":2}}`, "raw.a: duplicate member"},
		{`{"b":null}`, "b: null is not allowed"},
		{`{"b":{}}`, "b: an object does not fit"},
		{`{"b":"\ud800"}`, "surrogate"},
		{`{"b":"\udc00\ud800"}`, "surrogate"},
		{`{"b":"x"} {}`, "more behind"},
		{`{"b":"x"`, "ends early"},
		{`{"raw":[[[[[1]]]]]}`, "nested too deeply"},
		{`{"b":"` + strings.Repeat("x", 300) + `"}`, "over the limit"},
		{"{\"b\":\"\xff\"}", "UTF-8"},
		{``, "ends early"},
	} {
		var v sample
		err := Decode([]byte(c.in), &v, lim)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.in, err, c.want)
		}
		if !reflect.ValueOf(v).IsZero() {
			t.Errorf("%s: refused, and yet it left %+v", c.in, v)
		}
	}
	var v sample
	if err := Decode([]byte(`{"a":3,"b":"\ud83d\ude00","p":null,"l":[{"b":"q"}]}`), &v, lim); err != nil || v.A != 3 || v.L[0].B != "q" {
		t.Errorf("a good document: %v %+v", err, v)
	}
}

// FuzzCanonical compares with an independent implementation of RFC 8785 on
// whatever both accept, and checks that the canonical form is a fixed point.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":[1,true,null,"\u00e9"],"a":{"\u20ac":"x"}}`))
	f.Add([]byte(`"\u2028\u0000\/"`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var v any
		if err := Decode(in, &v, Limits{Bytes: 1 << 16, Depth: 16}); err != nil {
			if verbatim(in) && !strings.Contains(err.Error(), "nested") && len(in) <= 1<<16 {
				t.Fatalf("%q is copied verbatim though it is refused: %v", in, err)
			}
			return
		}
		got, err := Marshal(v)
		if err != nil {
			if verbatim(in) {
				t.Fatalf("%q is copied verbatim though it has no canonical form: %v", in, err)
			}
			return // numbers that no artifact carries
		}
		if verbatim(in) && string(got) != string(in) {
			t.Fatalf("%q is copied verbatim, its canonical form is %s", in, got)
		}
		want, err := jcs.Transform(in)
		if err != nil {
			return // jcs takes objects and arrays only
		}
		if string(got) != string(want) {
			t.Fatalf("%q: got %s, want %s", in, got, want)
		}
		var again any
		if err := Decode(got, &again, Limits{Bytes: 1 << 17, Depth: 16}); err != nil {
			t.Fatalf("canonical form refused: %v", err)
		}
		if b, _ := Marshal(again); string(b) != string(got) {
			t.Fatalf("not a fixed point: %s, %s", got, b)
		}
	})
}

// What Marshal writes is copied; anything that it would write otherwise is not.
func TestVerbatim(t *testing.T) {
	for text, want := range map[string]bool{
		`{"a":[1,-2,true,false,null,"x"],"b":{}}`: true, `[]`: true, `0`: true, `"é"`: true,
		`"\u001f\n\"\\"`: true, `{"a":1,"b":{"a":1}}`: true, `999999999999999`: true,
		`{"b":1,"a":1}`: false, `{"a":1,"a":1}`: false, `{"a": 1}`: false, `[1,]`: false, `[1`: false, `{"a"}`: false,
		`-0`: false, `01`: false, `1.5`: false, `1e3`: false, `9007199254740993`: false, `"\/"`: false, `"\u000a"`: false,
		`"\u001F"`: false, `"\u0041"`: false, "\"\n\"": false, "\"\xff\"": false, `tru`: false, `1 `: false, ``: false, `{"a":1}}`: false,
		`{"é":1}`: false, // canonical, and left to the slow way
	} {
		if got := verbatim([]byte(text)); got != want {
			t.Errorf("verbatim(%q) = %v, want %v", text, got, want)
		}
	}
}

// Strings are looked at eight bytes at a time: every byte, at every place.
func TestAppendStringEveryByte(t *testing.T) {
	slow := func(s string) string {
		out := `"`
		for _, r := range s {
			switch short := strings.IndexRune("\b\t\n\f\r\"\\", r); {
			case short >= 0:
				out += `\` + `btnfr"\`[short:short+1]
			case r < 0x20:
				out += fmt.Sprintf(`\u%04x`, r)
			default:
				out += string(r)
			}
		}
		return out + `"`
	}
	for n := range 20 {
		for at := range n {
			for c := range 0x100 {
				s := strings.Repeat("a", at) + string(rune(c)) + strings.Repeat("~", n-at-1)
				got, err := AppendString([]byte("x"), s)
				if err != nil || string(got) != "x"+slow(s) {
					t.Fatalf("%q: got %s (%v), want %s", s, got, err, slow(s))
				}
				bad := strings.Repeat("a", at) + string([]byte{byte(c) | 0x80}) + strings.Repeat(`"`, n-at-1)
				if got, err := AppendString(nil, bad); err == nil {
					t.Fatalf("%q is not UTF-8: got %s", bad, got)
				}
			}
		}
	}
}

type stamp struct{ n int }

func (s stamp) MarshalText() ([]byte, error)        { return s.AppendText(nil) }
func (s stamp) AppendText(b []byte) ([]byte, error) { return fmt.Appendf(b, "n\t%d", s.n), nil }

// The ways to the same bytes: by value, by pointer, inside of maps and
// interfaces, appended, and summed.
func TestAppendAndSum(t *testing.T) {
	type all struct {
		S stamp            `json:"s"`
		Z stamp            `json:"z,omitzero"`
		M map[string]stamp `json:"m"`
		A any              `json:"a"`
		L [2]stamp         `json:"l"`
		N *all             `json:"n,omitempty"`
	}
	v := all{S: stamp{1}, M: map[string]stamp{"b": {2}, "a": {3}, "é": {4}, "\U0001F600": {5}, "\ufb33": {6}}, A: map[string]any{"y": stamp{7}, "x": &stamp{8}}}
	v.N = &all{A: v.S}
	const want = `{"a":{"x":"n\t8","y":"n\t7"},"l":["n\t0","n\t0"],"m":{"a":"n\t3","b":"n\t2","é":"n\t4","` + "\U0001F600" + `":"n\t5","` + "\ufb33" + `":"n\t6"},` +
		`"n":{"a":"n\t1","l":["n\t0","n\t0"],"m":{},"s":"n\t0"},"s":"n\t1"}`
	for range 2 { // and again from the buffer that the first left
		for _, v := range []any{v, &v} {
			got, err := Marshal(v)
			if err != nil || string(got) != want {
				t.Errorf("got  %s (%v)\nwant %s", got, err, want)
			}
			sum, n, err := Sum256("tag\x00", v)
			if err != nil || sum != sha256.Sum256([]byte("tag\x00"+want)) || n != len(want) {
				t.Errorf("Sum256: %x of %d bytes, %v", sum, n, err)
			}
		}
	}
	if b, err := Append([]byte("x"), &v); err != nil || string(b) != "x"+want {
		t.Errorf("Append: %s (%v)", b, err)
	}
	if _, _, err := Sum256("", 1.5); err == nil {
		t.Error("Sum256 takes a float")
	}
}

// TestTextIsAString: what is held as bytes is written as the string of the same
// bytes would be.
func TestTextIsAString(t *testing.T) {
	for _, s := range []string{"", "plain", `{"payload":"x"}` + "\n\x01", "\u20ac\U0001F600"} {
		want, err := Marshal(map[string]any{"a": s})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Marshal(map[string]any{"a": Text(s)})
		if err != nil || string(got) != string(want) {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	if b, err := Marshal(Text("a\xff")); err == nil {
		t.Errorf("text that is not UTF-8 was written: %q", b)
	}
}

// TestWrittenIsCopied: what was written stands wherever the value would.
func TestWrittenIsCopied(t *testing.T) {
	inner := sample{B: "z\u20ac\"", L: []sample{{A: 1}}}
	b, err := Marshal(inner)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Marshal(map[string]any{"a": inner, "b": []any{inner}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Marshal(map[string]any{"a": Written(b), "b": []Written{b}})
	if err != nil || string(got) != string(want) {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
