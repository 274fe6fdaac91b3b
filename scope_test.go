package exeq

import (
	"errors"
	"testing"
)

// TestScopeBody: what a node must not hold is refused before anybody signs it.
func TestScopeBody(t *testing.T) {
	good := func() *ScopeBody {
		return &ScopeBody{Version: 1, ID: "i", Scope: Scope{ScopeUID, "1000"}, Mode: ScopeEnforce, Serial: 1, Node: "n",
			Programs:   []ScopeProgram{{"/bin/a", Digest{1}}, {"/bin/b", Digest{1}}},
			Trees:      []string{"/lib", "/usr"},
			BreakGlass: &BreakGlass{UIDs: []int{0, 1001}, MaxMillis: 1000}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, bend := range map[string]func(*ScopeBody){
		"no mode":                      func(b *ScopeBody) { b.Mode = "" },
		"no serial":                    func(b *ScopeBody) { b.Serial = 0 },
		"no node":                      func(b *ScopeBody) { b.Node = "" },
		"another kind":                 func(b *ScopeBody) { b.Scope.Kind = "gid" },
		"a uid in another spelling":    func(b *ScopeBody) { b.Scope.Subject = "01000" },
		"a uid that is none":           func(b *ScopeBody) { b.Scope.Subject = "4294967295" },
		"a negative uid":               func(b *ScopeBody) { b.Scope.Subject = "-1" },
		"a host with a name":           func(b *ScopeBody) { b.Scope = Scope{ScopeHost, "x"} },
		"the root cgroup":              func(b *ScopeBody) { b.Scope = Scope{ScopeCgroup, "/"} },
		"a cgroup that climbs":         func(b *ScopeBody) { b.Scope = Scope{ScopeCgroup, "/a/../b"} },
		"programs not sorted":          func(b *ScopeBody) { b.Programs[0], b.Programs[1] = b.Programs[1], b.Programs[0] },
		"a program twice":              func(b *ScopeBody) { b.Programs[1].Path = "/bin/a" },
		"a program without a digest":   func(b *ScopeBody) { b.Programs[0].SHA256 = Digest{} },
		"a relative program":           func(b *ScopeBody) { b.Programs[0].Path = "a" },
		"a tree twice":                 func(b *ScopeBody) { b.Trees[1] = "/lib" },
		"an unclean tree":              func(b *ScopeBody) { b.Trees[1] = "/usr/" },
		"many programs":                func(b *ScopeBody) { b.Programs = make([]ScopeProgram, MaxScopePrograms+1) },
		"many trees":                   func(b *ScopeBody) { b.Trees = make([]string, MaxScopeTrees+1) },
		"opened by the governed user":  func(b *ScopeBody) { b.BreakGlass.UIDs = []int{1000} },
		"opened by nobody":             func(b *ScopeBody) { b.BreakGlass.UIDs = nil },
		"opened by a negative user":    func(b *ScopeBody) { b.BreakGlass.UIDs = []int{-1} },
		"opened by many":               func(b *ScopeBody) { b.BreakGlass.UIDs = make([]int, MaxScopePeople+1) },
		"opened for ever":              func(b *ScopeBody) { b.BreakGlass.MaxMillis = MaxBreakGlass.Milliseconds() + 1 },
		"opened for no time":           func(b *ScopeBody) { b.BreakGlass.MaxMillis = 0 },
		"with and without a rehearsal": func(b *ScopeBody) { b.WithoutRehearsal, b.RehearsalMillis = true, 1 },
		"a rehearsal of less than none": func(b *ScopeBody) {
			b.RehearsalMillis = -1
		},
		"lifted, with programs": func(b *ScopeBody) { b.Mode = ScopeLift },
	} {
		b := good()
		bend(b)
		if b.Validate() == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, s := range []Scope{{ScopeHost, ""}, {ScopeUID, "0"}, {ScopeUID, "4294967294"}, {ScopeCgroup, "/a/b"}} {
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	more, less := good(), good()
	less.Programs = less.Programs[:1]
	if !more.Covers(less) || less.Covers(more) || !less.Covers(less) {
		t.Error("what covers what")
	}
	less = good()
	less.Trees = less.Trees[1:]
	if !more.Covers(less) || less.Covers(more) {
		t.Error("what covers what, by trees")
	}
	if _, _, _, err := ParseScope([]byte(`{}`)); !errors.Is(err, ErrPermit) {
		t.Error(err)
	}
}
