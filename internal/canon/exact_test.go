package canon

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// hexed has one spelling by its methods, as the digests of artifacts have.
type hexed [2]byte

func (h hexed) MarshalText() ([]byte, error)        { return []byte(hex.EncodeToString(h[:])), nil }
func (h hexed) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, h[:]), nil }
func (h *hexed) UnmarshalText(b []byte) error {
	_, err := hex.Decode(h[:], b[:min(len(b), 4)])
	return err
}

// lax reads several spellings; only the one it writes is canonical.
type lax struct{ s string }

func (l lax) MarshalText() ([]byte, error) { return []byte(strings.ToLower(l.s)), nil }
func (l *lax) UnmarshalText(b []byte) error {
	if len(b) > 5 {
		return errors.New("long")
	}
	l.s = string(b)
	return nil
}

// jsoned is read through UnmarshalJSON, as the times of artifacts are.
type jsoned string

func (j jsoned) MarshalText() ([]byte, error) { return []byte(strings.TrimSuffix(string(j), "!")), nil }
func (j *jsoned) UnmarshalJSON(b []byte) error {
	*j = jsoned(strings.Trim(string(b), "'\"") + "!")
	return nil
}

// shapes has a member of every kind that is read in one pass, and of some
// that are not.
type shapes struct {
	String  string             `json:"s"`
	Bool    bool               `json:"b,omitempty"`
	Int     int8               `json:"i"`
	Long    int64              `json:"long,omitempty"`
	Uint    uint16             `json:"u,omitempty"`
	List    []string           `json:"list,omitempty"`
	Items   []*item            `json:"items,omitempty"`
	Map     map[string]int     `json:"m,omitempty"`
	Deep    map[string][]hexed `json:"deep,omitempty"`
	Pointer *item              `json:"p,omitempty"`
	Null    *bool              `json:"null"`
	Hex     hexed              `json:"hex,omitzero"`
	Lax     lax                `json:"lax,omitzero"`
	JSON    jsoned             `json:"json,omitempty"`
	Raw     json.RawMessage    `json:"raw,omitempty"`
	Bytes   []byte             `json:"bytes,omitempty"`
	Any     any                `json:"any,omitempty"`
	Pair    [2]int             `json:"pair,omitzero"`
	Hidden  string             `json:"-"`
	_       int
}

type item struct {
	Zero  int    `json:"zero"`
	Name  string `json:"name,omitempty"`
	Again *item  `json:"again,omitempty"`
}

func full() *shapes {
	yes := true
	return &shapes{String: "é\u2028\x01\"\\\n/<", Bool: true, Int: -128, Long: 1<<49 - 1, Uint: 65535, List: []string{"", "x"},
		Items: []*item{{}, nil, {Zero: 1, Name: "n", Again: &item{}}}, Map: map[string]int{"a": 1, "b\n": 2, "": 3, "é": 4},
		Deep: map[string][]hexed{"k": {{1, 2}, {}}}, Pointer: &item{Name: "p"}, Null: &yes, Hex: hexed{0xab},
		Lax: lax{"low"}, JSON: "j", Raw: json.RawMessage(`{"a":[1,{"b":null}],"c":"\n"}`)}
}

var limits = Limits{Bytes: 1 << 16, Depth: 8}

// slowly is what DecodeCanonical says without its fast way.
func slowly(data []byte, v any) (bool, error) {
	if err := decode(data, v, limits); err != nil {
		return false, err
	}
	again, err := Marshal(v)
	return err == nil && bytes.Equal(again, data), err
}

func compareWays(t *testing.T, in []byte) (quick bool) {
	t.Helper()
	for _, typ := range []reflect.Type{reflect.TypeFor[shapes](), reflect.TypeFor[sample](), reflect.TypeFor[[]item](), reflect.TypeFor[map[string]lax]()} {
		got, want := reflect.New(typ), reflect.New(typ)
		quick = fast(in, got.Interface(), limits)
		if !quick {
			if !got.Elem().IsZero() {
				t.Fatalf("%q: refused, and yet it left %+v", in, got.Elem())
			}
			continue
		}
		canonical, err := slowly(in, want.Interface())
		if err != nil || !canonical {
			t.Fatalf("%q as %v is taken in one pass; else: canonical %v, %v", in, typ, canonical, err)
		}
		if !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Fatalf("%q as %v: in one pass %+v, else %+v", in, typ, got.Elem(), want.Elem())
		}
		return true
	}
	return false
}

// FuzzExact: what is read in one pass is accepted by the passes of Decode, is
// canonical, and means the same.
func FuzzExact(f *testing.F) {
	b, err := Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, c := range exactCases {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) { compareWays(t, in) })
}

var exactCases = []struct {
	in   string
	fast bool
}{
	{`{"i":0,"null":null,"s":""}`, true},
	{`{"i":0,"null":true,"s":""}`, true},
	{`{"i":0,"null":null,"s":"\u001f\t\\"}`, true},
	{`{"b":true,"i":0,"null":null,"s":""}`, true},
	{`{"b":false,"i":0,"null":null,"s":""}`, false}, // would be left out
	{`{"i":0,"s":""}`, false},                       // must be there
	{`{"i":0,"null":null,"s":"","s":""}`, false},
	{`{"i":0,"null":null,"s":"","x":1}`, false},
	{`{"null":null,"i":0,"s":""}`, false},
	{`{"i":128,"null":null,"s":""}`, false},
	{`{"i":-0,"null":null,"s":""}`, false},
	{`{"i":00,"null":null,"s":""}`, false},
	{`{"i":0,"null":null,"s":"","u":-1}`, false},
	{`{"i":0,"list":[],"null":null,"s":""}`, false},
	{`{"i":0,"list":null,"null":null,"s":""}`, false},
	{`{"i":0,"list":["a",],"null":null,"s":""}`, false},
	{`{"i":0,"items":[{"zero":0},null],"null":null,"s":""}`, true},
	{`{"i":0,"m":{"a":1,"b":2},"null":null,"s":""}`, true},
	{`{"i":0,"m":{"b":1,"a":2},"null":null,"s":""}`, false},
	{`{"i":0,"m":{"a":1,"a":2},"null":null,"s":""}`, false},
	{`{"hex":"0a0b","i":0,"null":null,"s":""}`, true},
	{`{"hex":"0A0b","i":0,"null":null,"s":""}`, false},
	{`{"hex":"0a0b0c","i":0,"null":null,"s":""}`, false},
	{`{"hex":"0000","i":0,"null":null,"s":""}`, false},
	{`{"i":0,"lax":"a","null":null,"s":""}`, true},
	{`{"i":0,"lax":"A","null":null,"s":""}`, false},
	{`{"i":0,"json":"a","null":null,"s":""}`, true},
	{`{"i":0,"json":"a'","null":null,"s":""}`, false},
	{`{"i":0,"null":null,"raw":{"a":1,"b":[]},"s":""}`, true},
	{`{"i":0,"null":null,"raw":{"b":1,"a":[]},"s":""}`, false},
	{`{"i":0,"null":null,"raw":[[[[[[[]]]]]]],"s":""}`, true},    // as deep as may be
	{`{"i":0,"null":null,"raw":[[[[[[[[]]]]]]]],"s":""}`, false}, // and deeper
	{`{"i":0,"null":null,"raw":[[[[[[[1]]]]]]],"s":""}`, true},
	{`{"i":0,"null":null,"raw":null,"s":""}`, true},
	{`{"any":1,"i":0,"null":null,"s":""}`, false},
	{`{"bytes":"AAA=","i":0,"null":null,"s":""}`, false},
	{`{"i":0,"null":null,"s":"\u000a"}`, false},
	{`{"i":0,"null":null,"s":"\/"}`, false},
	{"{\"i\":0,\"null\":null,\"s\":\"\xff\"}", false},
	{`{"i":0,"null":null,"s":""} `, false},
	{` {"i":0,"null":null,"s":""}`, false},
	{`{"i":0,"null":null,"s":""`, false},
	{`{"i":0,"null":null,"s":"`, false},
	{`{"i":`, false}, {`{`, false}, {``, false}, {`[`, false}, {`[{"zero":1},`, false}, {`{"a":`, false},
	{`[{"zero":1},{"again":{"zero":0},"zero":2}]`, true},
	{`{"a":"x","b":"y"}`, true},
}

// TestExact says which texts are read in one pass, and compares both ways on
// each and on its neighbours.
func TestExact(t *testing.T) {
	b, err := Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	cases := append(exactCases[:len(exactCases):len(exactCases)], struct {
		in   string
		fast bool
	}{string(b), true})
	for _, c := range cases {
		if got := compareWays(t, []byte(c.in)); got != c.fast {
			t.Errorf("%s: in one pass: %v, want %v", c.in, got, c.fast)
		}
		for i := range len(c.in) {
			compareWays(t, []byte(c.in[:i]))
			compareWays(t, []byte(c.in[:i]+c.in[i+1:]))
			for _, with := range []string{" ", "\"", ",", "}", "]", "0", "\\", "n", "\x00"} {
				compareWays(t, []byte(c.in[:i]+with+c.in[i:]))
				compareWays(t, []byte(c.in[:i]+with+c.in[i+1:]))
			}
		}
	}
}

// TestDecodeCanonical: the answer is the same whichever way gives it.
func TestDecodeCanonical(t *testing.T) {
	for _, c := range exactCases {
		for _, prefix := range []string{"", " "} {
			var got, want shapes
			in := []byte(prefix + c.in)
			a, err := DecodeCanonical(in, &got, limits)
			b, err2 := slowly(in, &want)
			if a != b || fmt.Sprint(err) != fmt.Sprint(err2) || err == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v %v %+v, slowly %v %v %+v", in, a, err, got, b, err2, want)
			}
		}
	}
	// What was in the target before is gone or kept as Decode does it.
	old := shapes{List: []string{"old"}, Int: 3}
	if ok, err := DecodeCanonical([]byte(`{"i":0,"null":null,"s":""}`), &old, limits); err != nil || ok {
		t.Errorf("a target that is not zero: %v %v", ok, err)
	}
	if _, err := DecodeCanonical([]byte(`{"i":0,"null":null,"s":""}`), &shapes{}, Limits{Bytes: 5, Depth: 8}); err == nil {
		t.Error("over the limit of bytes and taken")
	}
	if _, err := DecodeCanonical([]byte(`{"i":0,"null":null,"s":""}`), &shapes{}, Limits{Bytes: 500}); err == nil {
		t.Error("over the limit of depth and taken")
	}
	var long shapes
	text, err := Marshal(shapes{String: strings.Repeat("x", shared+1)})
	if err != nil {
		t.Fatal(err)
	}
	if !fast(text, &long, Limits{Bytes: 1 << 20, Depth: 8}) || len(long.String) != shared+1 {
		t.Error("a long text is not read in one pass")
	}
}
