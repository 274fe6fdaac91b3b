//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// TestLookingBack: what a run makes or changes of repositories that are not
// kept is said, also where the directory of a hook stays as it is and where the
// workspace is full.
func TestLookingBack(t *testing.T) {
	put := func(t *testing.T, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	directories := func(n int) func(*testing.T, string) {
		return func(t *testing.T, ws string) {
			for i := range n {
				if err := os.Mkdir(fmt.Sprintf("%s/a%04d", ws, i), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, test := range []struct {
		name   string
		before func(t *testing.T, ws string)
		run    func(t *testing.T, ws string)
		says   string // empty: nothing
	}{
		{"nothing", nil, func(t *testing.T, ws string) { put(t, ws+"/file", "x") }, ""},
		{"a hook in place", nil, func(t *testing.T, ws string) {
			f, err := os.OpenFile(ws+"/sub/.git/hooks/pre-commit", os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("evil"); err != nil {
				t.Fatal(err)
			}
		}, "changed {ws}/sub/.git/hooks/pre-commit"},
		{"behind files", func(t *testing.T, ws string) {
			for i := range exeq.MaxDirectoriesBeside + 1 {
				put(t, fmt.Sprintf("%s/a%04d", ws, i), "")
			}
		}, func(t *testing.T, ws string) { put(t, ws+"/zz/.git/config", "x") }, "made {ws}/zz/.git"},
		{"as many directories as are looked into", directories(exeq.MaxDirectoriesBeside - 1), func(*testing.T, string) {}, ""},
		{"more directories", directories(exeq.MaxDirectoriesBeside), func(*testing.T, string) {}, "unseen: only"},
		{"more hooks", func(t *testing.T, ws string) {
			for i := range exeq.MaxGitHooks {
				put(t, fmt.Sprintf("%s/sub/.git/hooks/h%d", ws, i), "")
			}
		}, func(*testing.T, string) {}, "unseen: only"},
		{"an index that cannot be read", nil, func(t *testing.T, ws string) {
			put(t, ws+"/.git/index", "")
			if err := os.Truncate(ws+"/.git/index", exeq.MaxGitIndexBytes+1); err != nil {
				t.Fatal(err)
			}
		}, "unseen: {ws}/.git/index"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ws, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			put(t, ws+"/.git/config", "")
			put(t, ws+"/sub/.git/config", "")
			put(t, ws+"/sub/.git/hooks/pre-commit", "good")
			if test.before != nil {
				test.before(t, ws)
			}
			all := exeq.Access{Read: true, Write: true}
			r := &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}, {Path: exeq.EncodeBytes(ws), At: all, Under: all}}}
			e := &lookingBack{workspace: ws}
			e.look(&exeq.Launch{Rights: r.Fix(exeq.EncodeBytes(ws + "/.git/config"))})
			test.run(t, ws)
			var b bytes.Buffer
			e.tell(&b)
			want := strings.ReplaceAll(test.says, "{ws}", exeq.EncodeBytes(ws))
			if !strings.Contains(b.String(), want) || want == "" && b.Len() > 0 {
				t.Errorf("%q; want %q", b.String(), want)
			}
		})
	}
}
