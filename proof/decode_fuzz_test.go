package proof

import (
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
)

// FuzzReceipt: a receipt that is read has this one spelling.
func FuzzReceipt(f *testing.F) {
	f.Add("c2sp.org/tlog-proof@v1\nindex 0\n\nx\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— x AAAA\n")
	f.Add("c2sp.org/tlog-proof@v1\nextra AAAA\nindex 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n")
	f.Add("c2sp.org/tlog-proof@v1\nindex 03\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseReceipt(text)
		if err != nil {
			return
		}
		path := make([]exeq.Digest, len(r.path))
		for i, h := range r.path {
			path[i] = exeq.Digest(h)
		}
		if again := FormatReceipt(r.index, path, []byte(r.note)); again != text {
			t.Fatalf("%q is also spelled %q", again, text)
		}
	})
}

// FuzzWitnessPolicy: a policy that is read can be met by all of its witnesses
// and, where it has a quorum, by none of them never.
func FuzzWitnessPolicy(f *testing.F) {
	const key = "witness a w.example/1+1fb3a6cf+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
	f.Add(key + "group g any a\nquorum g\n")
	if q, err := parseWitnessPolicy(key + "quorum a\n"); err != nil || q.none() {
		f.Fatal("the seed is not a policy: ", err)
	}
	f.Add("log x\nquorum none\n# words\n")
	f.Add("group g 1 g\nquorum g\n")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseWitnessPolicy(text)
		if err != nil || q.none() {
			return
		}
		var all []note.Signature
		for _, v := range q.verifiers {
			all = append(all, note.Signature{Name: v.Name(), Hash: v.KeyHash()})
		}
		if !q.root.met(all) || q.root.met(nil) {
			t.Fatalf("%q", text)
		}
	})
}

// FuzzPromise: no text of a promise brings its reader down, and none is good
// without the promise key.
func FuzzPromise(f *testing.F) {
	_, vkey, err := note.GenerateKey(nil, "x/promise")
	if err != nil {
		f.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		f.Fatal(err)
	}
	a := &Anchors{promise: v}
	f.Add("x/promise\n1\nAAAA\ntime 0\n\n— x/promise AAAA\n", 0)
	f.Fuzz(func(t *testing.T, text string, index int) {
		if _, err := a.OpenPromise(&exeq.Promise{Note: text, Index: index}, exeq.Digest{}); err == nil {
			t.Fatalf("%q", text)
		}
	})
}
