package policy

import "testing"

// BenchmarkLoad shows what stands in the way of every start and every proof.
func BenchmarkLoad(b *testing.B) {
	src := Starter()
	vocabulary() // once a process
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(src); err != nil {
			b.Fatal(err)
		}
	}
}
