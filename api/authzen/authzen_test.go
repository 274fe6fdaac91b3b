package authzen

import (
	"encoding/json"
	"reflect"
	"testing"
)

var limits = Limits{Bytes: 1 << 16, Depth: 16, Items: 100}

// FuzzEvaluation: whatever is read has what an evaluation needs, and reads the
// same once it is written.
func FuzzEvaluation(f *testing.F) {
	for _, seed := range []string{
		`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"1"}}`,
		`{"subject":{"type":"user","id":"a","properties":{"n":1.5e3,"l":[null,true,{"x":"y"}]}},"action":{"name":"r","properties":{}},"resource":{"type":"t","id":"1"},"context":{"time":"now"},"more":[1]}`,
		`{"subject":{"type":"user","id":"a","id":"b"}}`, `[]`, `{"action":{"name":1}}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := DecodeEvaluation(body, limits)
		if err != nil {
			return
		}
		if e.Subject.Type == "" || e.Subject.ID == "" || e.Action.Name == "" || e.Resource.Type == "" || e.Resource.ID == "" {
			t.Fatalf("%s: read without what an evaluation needs", body)
		}
		written, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		wide := limits
		wide.Bytes *= 8 // escapes
		again, err := DecodeEvaluation(written, wide)
		if err != nil {
			t.Fatalf("%s: written as %s, which does not read: %v", body, written, err)
		}
		if twice, _ := json.Marshal(again); string(twice) != string(written) {
			t.Fatalf("%s: written as %s, read again as %s", body, written, twice)
		}
	})
}

// FuzzEvaluations: an item that stands without an error is one that would be
// read alone, and no message gives more items than it has.
func FuzzEvaluations(f *testing.F) {
	for _, seed := range []string{
		`{"subject":{"type":"u","id":"a"},"action":{"name":"r"},"evaluations":[{"resource":{"type":"t","id":"1"}},{},7]}`,
		`{"options":{"evaluations_semantic":"deny_on_first_deny"},"evaluations":[{}]}`, `{"evaluations":[]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := DecodeEvaluations(body, limits)
		if err != nil {
			return
		}
		if e.Semantic == "" || len(e.Items) > limits.Items {
			t.Fatalf("%s: semantic %q, %d items", body, e.Semantic, len(e.Items))
		}
		for _, item := range e.Items {
			if item.Err != nil {
				continue
			}
			b, err := json.Marshal(item.Evaluation)
			if err != nil {
				t.Fatal(err)
			}
			wide := limits
			wide.Bytes *= 8
			alone, err := DecodeEvaluation(b, wide)
			if err != nil {
				t.Fatalf("%s: an item that does not stand alone: %v", body, err)
			}
			if x, _ := json.Marshal(alone); string(x) != string(b) {
				t.Fatalf("%s: an item %s that reads alone as %s", body, b, x)
			}
		}
	})
}

// FuzzSearch: what is searched for has no id, and all else one.
func FuzzSearch(f *testing.F) {
	f.Add([]byte(`{"subject":{"type":"u","id":"a"},"action":{"name":"r"},"resource":{"type":"t","id":"1"},"page":{"token":"x","limit":3}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, k := range []Kind{Subjects, Resources, Actions} {
			s, err := DecodeSearch(body, k, limits)
			if err != nil {
				continue
			}
			if (s.Subject.ID == "") != (k == Subjects) || (s.Resource.ID == "") != (k == Resources) || (s.Action == nil) != (k == Actions) || s.Page.Limit < 0 {
				t.Fatalf("%s: search %d gives %+v", body, k, s)
			}
		}
	})
}

// TestDefaults: an item takes a default whole, or not at all.
func TestDefaults(t *testing.T) {
	e, err := DecodeEvaluations([]byte(`{"subject":{"type":"u","id":"a","properties":{"p":1}},"action":{"name":"r"},"resource":{"type":"t","id":"1","properties":{"q":2}},
		"context":{"c":1},"evaluations":[{},{"subject":{"type":"u","id":"b"},"context":{"d":2}},{"resource":{"type":"t"}}]}`), limits)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(e.Items[0].Evaluation, e.Default) {
		t.Errorf("an empty item is %+v, not the default", e.Items[0])
	}
	if s := e.Items[1]; s.Subject.ID != "b" || s.Subject.Properties != nil || s.Context["c"] != nil || s.Resource != e.Default.Resource {
		t.Errorf("a default was mixed into %+v", s)
	}
	if err := e.Items[2].Err; err == nil || err.Error() != "resource.id: is missing" {
		t.Errorf("a resource without id: %v", err)
	}
}
