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
	// lived is a repository with a linked worktree and a submodule, whose
	// rebase waits, and with a worktree two levels down.
	lived := func(t *testing.T, ws string) {
		for name, at := range map[string]string{"wt3": "wt3", "deep": "a/b/deep"} {
			put(t, ws+"/"+at+"/.git", "gitdir: "+ws+"/.git/worktrees/"+name+"\n")
			put(t, ws+"/.git/worktrees/"+name+"/gitdir", ws+"/"+at+"/.git\n")
			put(t, ws+"/.git/worktrees/"+name+"/commondir", "../..\n")
		}
		put(t, ws+"/.git/modules/m/HEAD", "x")
		put(t, ws+"/.git/modules/m/rebase-merge/git-rebase-todo", "pick 1\n")
		put(t, ws+"/.git/worktrees/wt3/modules/m/HEAD", "x")
	}
	writes := func(name string) func(*testing.T, string) {
		return func(t *testing.T, ws string) { put(t, ws+name, "exec touch /tmp/x\n") }
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
		{"a rebase", nil, writes("/.git/rebase-merge/git-rebase-todo"), "made {ws}/.git/rebase-merge,"},
		{"a rebase in a beside repository", nil, writes("/sub/.git/rebase-merge/git-rebase-todo"), "made {ws}/sub/.git/rebase-merge,"},
		{"nothing in what lived", lived, func(t *testing.T, ws string) { put(t, ws+"/wt3/file", "x") }, ""},
		{"a rebase in a linked worktree", lived, writes("/.git/worktrees/wt3/rebase-merge/git-rebase-todo"), "made {ws}/.git/worktrees/wt3/rebase-merge,"},
		{"patches in a linked worktree", lived, writes("/.git/worktrees/wt3/rebase-apply/0001"), "made {ws}/.git/worktrees/wt3/rebase-apply,"},
		{"a sequence in a linked worktree two levels down", lived, writes("/.git/worktrees/deep/sequencer/opts"), "made {ws}/.git/worktrees/deep/sequencer,"},
		{"a bisection in a linked worktree", lived, writes("/.git/worktrees/wt3/BISECT_NAMES"), "made {ws}/.git/worktrees/wt3/BISECT_NAMES,"},
		{"a rebase in a submodule edited", lived, writes("/.git/modules/m/rebase-merge/git-rebase-todo"), "changed {ws}/.git/modules/m/rebase-merge,"},
		{"a rebase in the submodule of a worktree", lived, writes("/.git/worktrees/wt3/modules/m/rebase-merge/git-rebase-todo"), "made {ws}/.git/worktrees/wt3/modules/m/rebase-merge,"},
		{"the .git of a worktree two levels down", lived, writes("/a/b/deep/.git"), "changed {ws}/a/b/deep/.git,"},
		{"a worktree made two levels down", nil, lived, "made {ws}/a/b/deep/.git,"},
		{"a worktree made, with a rebase", nil, func(t *testing.T, ws string) {
			lived(t, ws)
			put(t, ws+"/.git/worktrees/deep/rebase-merge/git-rebase-todo", "exec touch /tmp/x")
		}, "made {ws}/.git/worktrees/deep/rebase-merge,"},
		{"a submodule made, with a rebase", nil, lived, "made {ws}/.git/modules/m/rebase-merge,"},
		{"a rebase behind a link", func(t *testing.T, ws string) {
			put(t, ws+"/r/git-rebase-todo", "pick 1\n")
			if err := os.Symlink("../r", ws+"/.git/rebase-merge"); err != nil {
				t.Fatal(err)
			}
		}, writes("/r/git-rebase-todo"), "changed {ws}/.git/rebase-merge,"},
		{"a rebase of too many files", nil, func(t *testing.T, ws string) {
			for i := range exeq.MaxGitHooks + 1 {
				put(t, fmt.Sprintf("%s/.git/rebase-apply/%d", ws, i), "")
			}
		}, "unseen: only"},
		{"a skill", func(t *testing.T, ws string) { put(t, ws+"/.claude/skills/s/SKILL.md", "") }, writes("/.claude/skills/s/SKILL.md"), "changed {ws}/.claude/skills,"},
		{"a command", nil, writes("/.claude/commands/c.md"), "made {ws}/.claude/commands,"},
		{"hooks of pre-commit", nil, writes("/.pre-commit-config.yaml"), "made {ws}/.pre-commit-config.yaml,"},
		{"a workspace of an editor", nil, writes("/x.code-workspace"), "made {ws}/x.code-workspace,"},
		{"what tools read and do not run", nil, writes("/.claude/CLAUDE.md"), ""},
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
