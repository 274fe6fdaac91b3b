package proof_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// TestParseRefuses: what is read has one meaning; an error names the member
// and stays short, whatever it is given.
func TestParseRefuses(t *testing.T) {
	b, err := prooftest.New(t).Proof().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	top := func(with string) string { return strings.TrimSuffix(good, "\"v\":1}\n") + with + "}\n" } // v is the last member
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "ends early"},
		{"null", "null\n", "proof"},
		{"array", "[]\n", "array does not fit"},
		{"no newline", strings.TrimSuffix(good, "\n"), "canonical"},
		{"two newlines", good + "\n", "canonical"},
		{"white space", top(`"v": 1`), "canonical"},
		{"unknown member", top(`"trust":{},"v":1`), "trust: unknown member"},
		{"duplicate member", top(`"v":1,"v":1`), "v: duplicate member"},
		{"another spelling", strings.Replace(good, `"execution"`, `"\u0065xecution"`, 1), "canonical"},
		{"a later version", top(`"v":2`), "version 2"},
		{"deep", `{"v":1,"source":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + "}\n", "proof"},
		{"deep disclosure", strings.Replace(good, `"value":`, `"value":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,"was":`, 1), "nested too deeply"},
		{"a float", top(`"v":1.0`), "v"},
		{"half a surrogate", strings.Replace(good, `"execution":"`, `"execution":"\ud800`, 1), "surrogate"},
		{"not UTF-8", strings.Replace(good, `"execution":"`, "\"execution\":\"\xff", 1), "UTF-8"},
		{"something behind", good + "{}", "more behind"},
	} {
		_, err := proof.Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want …%s…", c.name, err, c.want)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("%s: an error of %d bytes", c.name, len(err.Error()))
		}
	}
	if _, err := proof.Parse([]byte(top(`"v":2`))); !errors.Is(err, exeq.ErrCannotTell) {
		t.Errorf("a later version: %v", err)
	}
	if _, err := proof.Parse(make([]byte, exeq.MaxProofBytes+1)); err == nil || !strings.Contains(err.Error(), "over the limit") {
		t.Errorf("huge: %v", err)
	}
}

// TestVerifyTakesAnything: a proof that was put together by hand is judged and
// never brings the verifier down.
func TestVerifyTakesAnything(t *testing.T) {
	tr := prooftest.New(t).Trust()
	for _, p := range []*proof.Proof{
		{}, {Leaves: []string{"", "{}", "null"}}, {Receipts: []exeq.Receipt{{}}}, {Disclosures: []exeq.Disclosure{{}}},
		{Activities: []proof.Activity{{}}}, {Context: []string{`{"kind":"key","v":1}`}}, {Source: []byte("{")}, {Promise: exeq.Promise{Index: -1}},
	} {
		r, err := proof.Verify(p, tr, proof.Options{Replay: prooftest.Replay})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict == proof.Valid {
			t.Errorf("%+v is valid", p)
		}
		if _, err := r.JSON(); err != nil || r.Text() == "" {
			t.Errorf("no report: %v", err)
		}
	}
}
