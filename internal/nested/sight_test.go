package nested

import (
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// tree gives processes from pid → parent; all began at their pid.
func tree(parents map[int]int) (all []Process, byPID map[int]Process) {
	byPID = map[int]Process{}
	for pid, up := range parents {
		p := Process{PID: pid, Parent: up, Began: uint64(pid)}
		all, byPID[pid] = append(all, p), p
	}
	return all, byPID
}

// TestKin: whose a process is, with and without doubt. 10 is the session, 20
// the client around, 30 the client, 40 what was there before beside it.
func TestKin(t *testing.T) {
	k := &kin{
		client: []key{{30, 30}}, takes: map[key]bool{{20, 20}: true}, seen: map[key]bool{{60, 60}: true},
		before: map[key]bool{{10, 10}: true, {20, 20}: true, {25, 25}: true, {30, 30}: true, {40, 40}: true},
	}
	_, byPID := tree(map[int]int{10: 1, 20: 10, 25: 20, 30: 25, 40: 10,
		50: 30, 51: 50, 52: 40, 53: 1, 54: 53, 55: 20, 56: 10, 60: 10, 61: 60, 70: 71, 71: 70})
	for pid, want := range map[int][2]bool{ // certain, in doubt
		10: {false, false}, 20: {false, false}, 25: {false, false}, 40: {false, false},
		30: {true, true},
		51: {true, true},   // below the client
		52: {false, false}, // of one that was there before
		53: {false, true},  // an orphan
		54: {false, true},  // of an orphan
		55: {false, true},  // taken in by the client around
		56: {false, false}, // the session's own
		60: {true, true},   // was seen below the client, and has another parent now
		61: {true, true},
		70: {false, true}, // a loop in a table that changed
	} {
		if got := [2]bool{k.has(byPID[pid], byPID, true), k.has(byPID[pid], byPID, false)}; got != want {
			t.Errorf("process %d: %v, want %v", pid, got, want)
		}
	}
	if reused := (Process{PID: 30, Parent: 10, Began: 99}); k.has(reused, byPID, false) {
		t.Error("a later process of the client's number is taken for it")
	}
}

// TestBound: the run around is the one that is seen, and the rights those of
// every run that may be around.
func TestBound(t *testing.T) {
	rights := func(write ...string) *exeq.Rights {
		r := &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}}}
		for _, p := range write {
			r.Cells = append(r.Cells, exeq.Cell{Path: p, Under: exeq.Access{Write: true}})
		}
		return r
	}
	before := map[key]bool{{10, 10}: true, {20, 20}: true, {30, 30}: true}
	run := func(client int, within string, r *exeq.Rights) *inside {
		return &inside{within: within, launch: &exeq.Launch{Rights: r},
			kin: &kin{client: []key{{client, uint64(client)}}, before: before}}
	}
	p := &Parent{ID: "p", Rights: rights("/a", "/b", "/c"), live: map[string]*inside{
		"x": run(20, "p", rights("/a", "/b")), "y": run(30, "x", rights("/a"))}}
	all, byPID := tree(map[int]int{10: 1, 20: 10, 25: 20, 30: 25, 35: 30, 50: 10, 60: 1})
	for _, c := range []struct {
		pid          int
		within, fail string
		writes       string
	}{
		{50, "p", "", "/a/b/c"},
		{50, "x", "does not stand", ""},
		{25, "x", "", "/a/b"},
		{25, "p", "does not stand", ""},
		{35, "y", "", "/a"},
		{35, "x", "inside", ""},
		{35, "p", "does not stand", ""},
		{35, "z", "does not stand", ""},
		{60, "p", "does not stand", ""}, // an orphan: of either, perhaps
		{60, "y", "", "/a"},
	} {
		r, err := p.bound(c.within, []Process{byPID[c.pid]}, all)
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%d within %s: %v, want %q", c.pid, c.within, err, c.fail)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d within %s: %v", c.pid, c.within, err)
			continue
		}
		got := ""
		for _, w := range []string{"/a", "/b", "/c"} {
			if r.Lookup(w + "/f").Write {
				got += w
			}
		}
		if got != c.writes {
			t.Errorf("%d within %s writes %s, want %s", c.pid, c.within, got, c.writes)
		}
	}
}
