package policy

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// Whatever text comes in, Check answers without running away; what it accepts
// decides like the linear scan, never errs, and compiles to rights that agree.
func FuzzPolicyText(f *testing.F) {
	for name, text := range Starter().Files {
		if strings.HasSuffix(name, cedarSuffix) {
			f.Add(text)
		}
	}
	for seed := range 30 {
		g := newGenerator(uint64(seed))
		f.Add(g.rule(1, "") + g.rule(2, ""))
	}
	for _, text := range []string{
		"", ";", "@id(\"x\") permit(principal,action,resource);", "@id(\"x\")permit(principal,action,resource)when{\"\\u{202e}\"==\"\"};",
		`@id("x") forbid(principal,action,resource) when { if true then false else context has x };`, strings.Repeat("(", 200), "//", "\"", "@@", "\x00",
		`@id("x") permit(principal, action == Exeq::Action::"read", resource) when { resource in [Exeq::Path::"/a\u{0}"] };`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		src := cedarSource(text)
		problems := Check(src)
		if !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) {
			t.Fatalf("problems out of order: %v", problems)
		}
		s, err := Load(src)
		if (err == nil) == slices.ContainsFunc(problems, Problem.refuses) {
			t.Fatalf("Check finds %v, Load says %v", problems, err)
		}
		if err != nil {
			return
		}
		g := newGenerator(uint64(len(text)))
		in := g.inputs()
		for range 8 {
			r := g.request()
			d, err := s.Decide(context.Background(), r, in)
			if err != nil {
				t.Fatal(err)
			}
			o := linear(t, s, r, in)
			want, why := o.verdict(in.Approved, in.Present)
			if !sameDecision(d, want) {
				t.Fatalf("%s %s: %+v, linear %+v", r.Action, r.Resource.ID, d, want)
			}
			if why == byError {
				t.Fatalf("a set that passes its check errs: %v", ids(o.errors))
			}
		}
		r := testRequest(exeq.ActionRun, "/bin/sh")
		rights, err := s.Compile(context.Background(), r, in, exeq.Decision{Verdict: exeq.Allow, PolicySet: s.digest})
		if err != nil {
			return // a place beyond PATH_MAX, say: no rights at all
		}
		for _, p := range g.randomPaths(s, &r.Context, 6) {
			q := *r
			q.Action, q.Resource = exeq.ActionWrite, exeq.Resource{Type: "Path", ID: p}
			if d := decide(t, s, &q, in); d.Verdict.Permits() != rights.Lookup(p).Write {
				t.Fatalf("write %s: %s, rights %+v", p, d.Verdict, rights.Lookup(p))
			}
		}
	})
}

func FuzzEntities(f *testing.F) {
	f.Add(testEntities)
	f.Add(`[{"uid":{"type":"Exeq::Team","id":"a"},"parents":[{"type":"Exeq::Team","id":"a"}]}]`)
	f.Add(`[null]`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := decodeEntities(text)
		if err != nil {
			return
		}
		for uid, p := range d.known {
			if p.ancestors[0] != uid || len(slices.Compact(slices.Clone(p.ancestors))) != len(p.ancestors) {
				t.Fatalf("%s is in %v", uid, p.ancestors)
			}
			for _, a := range p.ancestors {
				if d.known[a] == nil {
					t.Fatalf("%s is in %s, which is not known", uid, a)
				}
			}
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add(Starter().Files[SettingsFile])
	f.Add(`{"environment":["*"],"quotas":{"execs":1},"tierFloor":"kernel"}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := decodeSettings(text)
		if err != nil {
			return
		}
		if !slices.IsSorted(s.Environment) || s.floor < exeq.TierNested || s.Quotas.Execs < 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func FuzzCases(f *testing.F) {
	f.Add(`{"cases":[{"name":"a","action":"read","resource":"./x","expect":{"verdict":"allow","policies":[]}}]}`)
	f.Add(`{"cases":[{"name":"a","action":"run","resource":"~/x","args":["%"],"sha256":"` + exeq.Digest{1}.String() + `","expect":{"verdict":"deny"}}]}`)
	set, err := Load(Starter())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		results, err := set.Test("f.json", []byte(text))
		if err != nil && !strings.HasPrefix(err.Error(), "f.json: ") {
			t.Fatalf("the error does not name the file: %v", err)
		}
		if err != nil && results != nil {
			t.Fatal("results beside an error")
		}
	})
}

func FuzzSource(f *testing.F) {
	b, err := Starter().Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"files":{"a.cedar":""},"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSource(b)
		if err != nil {
			return
		}
		c, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeSource(c)
		if err != nil {
			t.Fatal(err)
		}
		d1, _ := s.Digest()
		d2, _ := again.Digest()
		if d1 != d2 {
			t.Fatal("the canonical form has another digest")
		}
	})
}

// An endpoint has one spelling, and a set that permits everything still knows
// only that one.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"a.org:443", "[::1]:80", "127.0.0.1:1", "A.org:1", "a:b:1", "[a]:1", "127.1:1", "::1:80", "a.:1", ":1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		host, port, err := splitEndpoint(id)
		if err != nil {
			return
		}
		e := exeq.Endpoint{Host: host, Port: port}
		if host != strings.ToLower(host) || port < 1 || port > 65535 {
			t.Fatalf("%q is %+v", id, e)
		}
		want := host
		if strings.Contains(host, ":") {
			want = "[" + host + "]"
		}
		if rest, ok := strings.CutPrefix(id, want+":"); !ok || strings.HasPrefix(rest, "0") {
			t.Fatalf("%q has a second spelling", id)
		}
	})
}
