package standalone

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A change of any file shows in the stamp, whatever the directory is called and
// however much of the file it leaves as it was.
func TestStampOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "st[1]*?", "policy")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a.cedar")
	then := time.Unix(1_000_000_000, 0)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, then, then); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, file} {
		stamp := func() string {
			t.Helper()
			s, err := stampOf(path)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		// The change time moves with the kernel's tick: how fast is its affair.
		differs := func(what, from string, change func()) {
			t.Helper()
			for until := time.Now().Add(10 * time.Second); stamp() == from; change() {
				if time.Now().After(until) {
					t.Fatalf("%s: %s: the stamp stays %q", path, what, from)
				}
			}
		}
		write("one")
		first := stamp()
		if again := stamp(); again != first {
			t.Errorf("%s: no change, %q became %q", path, first, again)
		}
		differs("same size and time", first, func() { write("two") })
		if path == dir {
			before := stamp()
			if err := os.WriteFile(filepath.Join(dir, "b.cedar"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if stamp() == before {
				t.Error("a new file does not show")
			}
		}
	}
}
