package exeq

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// TestWithout: each path keeps what it had less what the losses name, and
// losses taken together are those taken one after the other.
func TestWithout(t *testing.T) {
	var paths []string
	for _, a := range []string{"/a", "/a-b", "/a!", "/b"} {
		paths = append(paths, a, a+"/c", a+"/c/d", a+"/c-", a+"/e")
	}
	access := func() Access {
		return Access{Read: rand.IntN(2) == 0, Write: rand.IntN(2) == 0, Exec: ExecAsk}
	}
	some := func() string { return paths[rand.IntN(len(paths))] }
	unchanged := 0
	for round := range 2000 {
		r := &Rights{Version: 1, Cells: []Cell{{"/", access(), access()}}}
		for range rand.IntN(6) {
			if i, ok := r.search(some()); !ok {
				p := some()
				if i, ok = r.search(p); !ok {
					r.Cells = append(r.Cells[:i:i], append([]Cell{{p, access(), access()}}, r.Cells[i:]...)...)
				}
			}
		}
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		before := fmt.Sprint(r)
		var losses []Loss
		for range rand.IntN(4) {
			losses = append(losses, Loss{some(), access(), access()})
		}
		if rand.IntN(20) == 0 {
			losses = append(losses, Loss{"/", access(), access()})
		}
		got := r.Without(losses...)
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(r) != before {
			t.Fatalf("round %d: the rights that were narrowed changed", round)
		}
		one := r
		for _, l := range losses {
			one = one.Without(l)
		}
		if !reflect.DeepEqual(got, one) {
			t.Fatalf("round %d: together %v, one by one %v", round, got, one)
		}
		if got == r {
			unchanged++
		}
		for _, p := range append(paths, "/", "/z", "/a/c/d/z", "/b/z") {
			want := r.Lookup(p)
			for _, l := range losses {
				lose := Access{}
				switch {
				case p == l.Path:
					lose = l.At
				case strings.HasPrefix(p, strings.TrimSuffix(l.Path, "/")+"/"):
					lose = l.Under
				}
				want.Read, want.Write = want.Read && !lose.Read, want.Write && !lose.Write
			}
			if have := got.Lookup(p); !reflect.DeepEqual(have, want) {
				t.Fatalf("round %d: %s: %+v, want %+v\nrights %v\nlosses %v", round, p, have, want, r, losses)
			}
		}
	}
	if unchanged == 0 {
		t.Error("no losses of nothing were tried")
	}
}
