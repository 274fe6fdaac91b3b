//go:build linux

package record

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/exeq/exeq"
)

func TestDisclosuresRoundTrip(t *testing.T) {
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPermit}, map[string]any{
		"string": "a\"]},[\\\u2028é", "empty": "", "object": map[string]any{"a": []int{1, 2}, "]": "}"}, "number": 12,
		"true": true, "array": []string{}, "quote\"in,name": []any{"x", []any{}}, "null": (*int)(nil),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeDisclosures(e.Leaf.ID, encodeDisclosures(e.Disclosures))
	if err != nil {
		t.Fatal(err)
	}
	equal := func(a, b exeq.Disclosure) bool {
		return a.Leaf == b.Leaf && a.Field == b.Field && a.Salt == b.Salt && string(a.Value) == string(b.Value)
	}
	if !slices.EqualFunc(got, e.Disclosures, equal) {
		t.Errorf("got  %s\nwant %s", got, e.Disclosures)
	}
}

// FuzzDisclosures: whatever is in the store, taking it apart ends, and what it
// gives is what encoding/json sees in it.
func FuzzDisclosures(f *testing.F) {
	f.Add([]byte(`[["a","00",{"b":[1,"]"]}],["c","11",2]]`))
	f.Add([]byte(`[["a","00",]]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeDisclosures("leaf", b)
		var want [][]json.RawMessage
		if json.Unmarshal(b, &want) != nil || err != nil {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%d of %d disclosures in %q", len(got), len(want), b)
		}
		for i := range got {
			if len(want[i]) != 3 || string(got[i].Value) != string(want[i][2]) {
				t.Errorf("disclosure %d of %q is %s", i, b, got[i].Value)
			}
		}
	})
}
