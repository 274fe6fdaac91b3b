package exeq

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/exeq/exeq/internal/canon"
)

func FuzzEncodeBytes(f *testing.F) {
	for _, s := range []string{"", "plain", "a b", "100%", "\xff\x00", "é\u202e", "%41", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := EncodeBytes(s)
		back, err := DecodeBytes(e)
		if err != nil || back != s {
			t.Fatalf("%q → %q → %q, %v", s, e, back, err)
		}
		// Whatever decodes has exactly one spelling.
		if raw, err := DecodeBytes(s); err == nil && EncodeBytes(raw) != s {
			t.Fatalf("%q decodes to %q, which is spelled %q", s, raw, EncodeBytes(raw))
		}
	})
}

func FuzzParseLeaf(f *testing.F) {
	e, err := NewEntry(Leaf{Kind: KindPermit, Execution: NewID(), Body: LeafBody{Verdict: Allow, Policies: []string{"p"}}},
		map[string]any{"permit": "x"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Bytes)
	f.Add([]byte(`{"body":{"policies":["\",\"sig\":\"AA==\""]},"commitments":{"sig":"` + Digest{}.String() + `"},"id":"x","kind":"end","seq":0,"sig":"AA==","time":"2026-01-02T03:04:05.678Z","v":1}`))
	f.Add([]byte(`{"actor":"\",\"sig\":\"q\"","body":{},"id":"x","kind":"end","seq":0,"sig":"q\"","time":"2026-01-02T03:04:05.678Z","v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLeaf(b)
		if err != nil {
			return
		}
		want, err := l.Signable()
		if got, err2 := l.SignableOf(b); err != nil || err2 != nil || string(got) != string(want) {
			t.Fatalf("the signature covers %q, of the bytes it covers %q (%v, %v)", want, got, err, err2)
		}
		again, err := canon.Marshal(l)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%q was accepted and is spelled %q (%v)", b, again, err)
		}
	})
}

func FuzzParsePermit(f *testing.F) {
	f.Add([]byte(`{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"k","sig":"c2ln"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePermit(b); err != nil {
			if !errors.Is(err, ErrPermit) {
				t.Fatalf("%v does not wrap ErrPermit", err)
			}
		} else if p.Body.MaxUses != 1 || p.Body.Version != 1 {
			t.Fatalf("accepted %+v", p.Body)
		}
	})
}

func FuzzDecodeRights(f *testing.F) {
	f.Add([]byte(`{"v":1,"cells":[{"path":"/","at":{},"under":{"r":true}}],"quotas":{},"tierFloor":20}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRights(b)
		if err != nil {
			return
		}
		r.Lookup("/a/b") // must find a cell whatever they are
		if _, err := r.Digest(); err != nil {
			t.Fatalf("accepted and without a digest: %v", err)
		}
		if at, ok := r.Within(r); !ok {
			t.Fatalf("not within itself at %s", at)
		}
	})
}

func TestLeafRefusals(t *testing.T) {
	e, err := NewEntry(Leaf{Kind: KindEnd, Execution: "x"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	good := string(e.Bytes)
	for _, c := range []struct {
		name, in, want string
		cannotTell     bool
	}{
		{"unknown kind", strings.Replace(good, `"end"`, `"later"`, 1), "later", true},
		{"unknown version", strings.Replace(good, `"v":1`, `"v":2`, 1), "version 2", true},
		{"unknown member", strings.Replace(good, `"seq"`, `"sea":1,"seq"`, 1), "sea: unknown member", false},
		{"duplicate", strings.Replace(good, `"seq":0`, `"seq":0,"seq":0`, 1), "seq: duplicate member", false},
		{"other spelling", strings.Replace(good, `"seq":0`, `"seq": 0`, 1), "canonical", false},
		{"too large", good + strings.Repeat(" ", MaxLeafBytes), "limit", false},
		{"deep", strings.Replace(good, `"body":{`, `"body":{"counts":`+strings.Repeat(`{"a":`, 20)+"1"+strings.Repeat("}", 20)+`,`, 1), "", false},
	} {
		_, err := ParseLeaf([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrCannotTell) != c.cannotTell {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := ParseLeaf(e.Bytes); err != nil {
		t.Error(err)
	}
}

// TestWithinAgreesWithLookup compares Within with a naive walk over paths.
func TestWithinAgreesWithLookup(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/d", "/d/e"}
	access := func() Access {
		return Access{Read: rng.IntN(2) == 0, Write: rng.IntN(2) == 0, Exec: []ExecMode{ExecNo, ExecAsk, ExecAll}[rng.IntN(3)]}
	}
	random := func() *Rights {
		r := &Rights{Version: 1}
		for i, p := range paths {
			if i == 0 || rng.IntN(2) == 0 {
				r.Cells = append(r.Cells, Cell{p, access(), access()})
			}
		}
		return r
	}
	var probes []string
	for _, p := range paths {
		p = strings.TrimSuffix(p, "/")
		probes = append(probes, p+"/x", p+"/x/y", p)
	}
	probes[2] = "/"
	agree := 0
	for range 20000 {
		r, outer := random(), random()
		naive := true
		for _, p := range probes {
			naive = naive && r.Lookup(p).within(outer.Lookup(p))
		}
		at, ok := r.Within(outer)
		if ok != naive {
			t.Fatalf("Within says %v at %q, naive %v\n%+v\n%+v", ok, at, naive, r.Cells, outer.Cells)
		}
		if ok {
			agree++
		}
	}
	if agree == 0 {
		t.Error("no pair was within: the test shows nothing")
	}
}

// The short way of CheckPath accepts nothing that the long way would refuse.
func FuzzPlainPath(f *testing.F) {
	for _, s := range []string{"/", "/a", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/.x", "/a b", "/%41", "/é", "a", "", "/a\x00", "/a\x7f", "/" + strings.Repeat("x", MaxPathBytes)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !plainPath(s) {
			return
		}
		raw, err := DecodeBytes(s)
		if err != nil || raw != s || path.Clean(s) != s || !path.IsAbs(s) || len(s) > MaxPathBytes {
			t.Fatalf("plainPath(%q), which decodes to %q (%v) and is clean as %q", s, raw, err, path.Clean(s))
		}
	})
}

// Paths are looked at eight bytes at a time: every byte, and every pair, at
// every place.
func TestPlainPathEveryByte(t *testing.T) {
	slow := func(p string) bool {
		for i := 1; i < len(p); i++ {
			c := p[i]
			if c < 0x20 || c >= 0x7f || c == '%' || (c == '/' || c == '.') && p[i-1] == '/' {
				return false
			}
		}
		return p == "/" || p[len(p)-1] != '/'
	}
	try := func(b []byte) {
		if p := string(b); plainPath(p) != slow(p) {
			t.Fatalf("plainPath(%q) = %v", p, !slow(p))
		}
	}
	for n := 1; n <= 26; n++ {
		for at := 1; at < n; at++ {
			b := []byte("/" + strings.Repeat("a", n-1))
			for c := range 0x100 {
				b[at] = byte(c)
				try(b)
				if at+1 < n {
					for _, next := range []byte("/.%a\x00\x1f\x7f\x80\xaf\xff") {
						b[at+1] = next
						try(b)
					}
					b[at+1] = 'a'
				}
			}
		}
	}
	for _, p := range []string{"", "a", "a/bcdefgh/i", ".", "//", "/."} {
		if plainPath(p) {
			t.Errorf("plainPath(%q)", p)
		}
	}
}

// FuzzParseScope: what is taken is canonical, valid and says one thing.
func FuzzParseScope(f *testing.F) {
	body := ScopeBody{Version: 1, ID: "i", Scope: Scope{Kind: ScopeUID, Subject: "1000"}, Mode: ScopeEnforce, Serial: 1, Node: "n",
		Programs: []ScopeProgram{{Path: "/bin/a", SHA256: Digest{1}}}, Trees: []string{"/usr"}, BreakGlass: &BreakGlass{UIDs: []int{1, 2}, MaxMillis: 1000}, Policies: []string{}}
	for _, mode := range []ScopeMode{ScopeEnforce, ScopeRehearse, ScopeLift, "x"} {
		body.Mode = mode
		s, err := NewScopeStatement(&body)
		if err != nil {
			f.Fatal(err)
		}
		payload, err := canon.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseScope(b)
		e, err := canon.Marshal(Envelope{PayloadType: StatementPayload, Payload: base64.StdEncoding.EncodeToString(b), Signatures: []EnvelopeSignature{{"k", "AA=="}}})
		if err != nil {
			t.Fatal(err)
		}
		body, payload, _, err := ParseScope(e)
		if err != nil {
			if !errors.Is(err, ErrPermit) {
				t.Errorf("an error of its own: %v", err)
			}
			return
		}
		s, err := NewScopeStatement(body)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := canon.Marshal(s); err != nil || !bytes.Equal(again, payload) {
			t.Errorf("%s is read as %s", payload, again)
		}
		if body.Mode == ScopeLift && len(body.Programs) > 0 || body.Scope.Validate() != nil || len(body.Trees) > MaxScopeTrees {
			t.Errorf("taken: %s", payload)
		}
	})
}
