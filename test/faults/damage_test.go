//go:build linux

package faults

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite"
)

// expected is what damage to a state file must lead to.
type expected struct {
	pattern string // of the path in the state; the first that matches counts
	flip    outcome
	half    outcome
	empty   outcome
	because string // where anything is harmless
}

type outcome int

const (
	refused  outcome = iota // nothing runs, with a clear error
	harmless                // it runs
	either                  // it is not Exeq's to judge
	rows                    // refused if any row of the store reads differently, else harmless
	present                 // refused if it belongs to the log as it is, else harmless
)

var expectations = []expected{
	{"keys/actor.salt", refused, harmless, refused, "the first half is the salt, and the second its sum, which is made again"},
	{"keys/*", refused, refused, refused, ""},
	{"log/checkpoint", refused, refused, refused, ""},
	{"log/.state/*", refused, refused, refused, ""},
	{"log/tile/*", present, present, present, "nobody reads a part of a tile or bundle of a log that has grown since"},
	{"store.db", rows, refused, refused, "a page has free room, with remains in it, that no row uses; numbers in the header that only tell caches apart"},
	{"store.lock", harmless, harmless, harmless, "whoever has the state for himself writes it anew; it matters to those who join him"},
	{"store.clean", harmless, harmless, harmless, "a stamp that does not match only has everything checked"},
	{"programs/programs/digests", harmless, harmless, harmless, "a cache under its own sum: one that is damaged is forgotten"},
	{"programs/props/canary", harmless, harmless, harmless, "an execution that finds other bytes makes a canary of its own"},
	{"policy/*", either, either, either, "it is the person's to edit: it decides as it reads now, and what it decided is on record"},
}

func expectationOf(t *testing.T, name string) expected {
	t.Helper()
	for _, e := range expectations {
		if dir, ok := strings.CutSuffix(e.pattern, "*"); ok && strings.HasPrefix(name, dir) || name == e.pattern {
			return e
		}
	}
	t.Errorf("%s: nobody said what its damage leads to", name)
	return expected{flip: either, half: either, empty: either}
}

// TestDamagedState flips one bit, or cuts off a half or all, of each state file
// in turn: what must be refused is, and what is not is harmless for a reason.
// What was refused is accepted when the bytes are back.
func TestDamagedState(t *testing.T) {
	h := newHouse(t)
	h.must("run", "--proof", filepath.Join(h.work, "p.json"), "--", "true")
	h.close()
	whole := t.TempDir()
	copyTree(t, h.state, whole)
	wantRows, err := rowsOf(t, filepath.Join(whole, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	size := logSize(t, whole)
	base := t.TempDir()
	h.state = whole
	count := map[string]int{}
	for _, file := range h.files() {
		name, err := filepath.Rel(whole, file)
		if err != nil {
			t.Fatal(err)
		}
		e := expectationOf(t, name)
		for damage, want := range map[string]outcome{"flip": e.flip, "half": e.half, "empty": e.empty} {
			n := rounds(1)
			if damage == "flip" && want != either {
				n = rounds(3)
			}
			if want == rows {
				n = rounds(25)
			}
			for range n {
				count["all"]++
				// A directory of its own: a drainer may still be in the last one.
				h.state = filepath.Join(base, strconv.Itoa(count["all"]))
				if err := os.Mkdir(h.state, 0o700); err != nil {
					t.Fatal(err)
				}
				copyTree(t, whole, h.state)
				file := filepath.Join(h.state, name)
				was, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				b, at := bytes.Clone(was), rand.IntN(len(was))
				switch damage {
				case "flip":
					if want == rows { // most of the file is room
						for b[at] == 0 {
							at = rand.IntN(len(b))
						}
					}
					b[at] ^= 1 << rand.IntN(8)
				case "half":
					b = b[:len(b)/2]
				case "empty":
					b = nil
				}
				overwrite(t, file, b)
				want := want
				switch want {
				case rows:
					want = refused
					if now, err := rowsOf(t, file); err == nil && now == wantRows {
						want = harmless
					}
				case present:
					want = refused
					if !inLog(name, size) {
						want = harmless
					}
				}
				what := fmt.Sprintf("%s of %s at %d", damage, name, at)
				got := h.probe(what) > 0
				switch {
				case want == refused && !got:
					t.Errorf("%s: nobody noticed", what)
				case want == harmless && got:
					t.Errorf("%s: refused, and should be harmless: %s", what, e.because)
				case got:
					count["refused"]++
					overwrite(t, file, was)
					if out, err := h.exeq("run", "--", "true").CombinedOutput(); err != nil {
						t.Errorf("%s: put back, and still: %v\n%s", what, err, out)
					}
				}
			}
		}
	}
	t.Logf("%d damages, %d refused", count["all"], count["refused"])
}

// close waits until nobody has the state open, and has SQLite put its own log
// away: a run leaves that to its drainer, which cannot while the run still ends.
func (h *house) close() {
	h.t.Helper()
	lock, err := os.Open(filepath.Join(h.state, "store.lock"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		h.t.Fatal(err)
	}
	lock.Close()
	h.must("ps")
	if _, err := os.Stat(filepath.Join(h.state, "store.db-wal")); !os.IsNotExist(err) {
		h.t.Fatalf("nobody has the state open, and still there is a log of SQLite's: %v", err)
	}
}

func overwrite(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func logSize(t *testing.T, state string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(state, "log/checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.Atoi(strings.Split(string(b), "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// inLog reports whether a tile or bundle, of a log of less than 256 entries, is
// that of its present size.
func inLog(name string, size int) bool {
	return filepath.Base(name) == strconv.Itoa(size)
}

// rowsOf is all that a store holds, read by SQLite alone.
func rowsOf(t *testing.T, file string) (string, error) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	apart := filepath.Join(t.TempDir(), "store.db") // it makes files beside it
	overwrite(t, apart, b)
	db, err := sql.Open("sqlite", apart)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var out strings.Builder
	for _, q := range []string{"PRAGMA integrity_check", "PRAGMA user_version", "SELECT type, name, tbl_name, sql FROM sqlite_schema",
		"SELECT * FROM state", "SELECT * FROM batch", "SELECT * FROM leaf", "SELECT * FROM placed", "SELECT * FROM burn", "SELECT * FROM owner", "SELECT * FROM blob"} {
		rows, err := db.Query(q)
		if err != nil {
			return "", err
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil {
			return "", err
		}
		for rows.Next() {
			values := make([]any, len(names))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				return "", err
			}
			for _, v := range values {
				v := *v.(*any)
				if text, ok := v.(string); ok && strings.HasPrefix(text, "CREATE") {
					v = uncommented(text)
				}
				fmt.Fprintf(&out, "%T %v\n", v, v)
			}
		}
		if err := rows.Err(); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// uncommented leaves out what SQLite does not read of a schema.
func uncommented(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "--")
		out = append(out, strings.Fields(line)...)
	}
	return strings.Join(out, " ")
}
