//go:build linux

package bpf

import "testing"

// TestMarked counts processes in more marks than one call of the kernel gives.
func TestMarked(t *testing.T) {
	g := newGate(t)
	dir, c := governed(t, g, real(t, "sh"))
	count := func(want int) {
		t.Helper()
		if n, err := g.Marked(c); err != nil || n != want {
			t.Errorf("%d are marked, %v, want %d", n, err, want)
		}
	}
	count(0)
	_, answers := sleeper(t, dir)
	count(1)
	m := g.maps[gateMapMarks]
	const others = 10000
	for i := range uint64(others) { // no addresses of the kernel's
		k := gateMark{Id: [4]uint64{1, 2, 3}}
		if i%2 == 0 {
			k.Id[3] = uint64(c)
		}
		if err := m.Put(i+1, k); err != nil {
			t.Fatal(err)
		}
	}
	count(1 + others/2)
	if !answers() {
		t.Error("it is dead")
	}
}
