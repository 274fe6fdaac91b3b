package guard

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// gitWorkspace is a workspace with a repository, and rights that open all of it
// but the configuration.
func gitWorkspace(t *testing.T) (ws string, r *exeq.Rights) {
	t.Helper()
	ws, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put(t, ws+"/.git/HEAD", "ref: refs/heads/main\n")
	put(t, ws+"/.git/config", "[core]\n")
	all := exeq.Access{Read: true, Write: true}
	r = &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}, {Path: exeq.EncodeBytes(ws), At: all, Under: all}}}
	return ws, r.Fix(exeq.EncodeBytes(ws + "/.git/config"))
}

// narrowed are rights less what repositories lose.
func narrowed(r *exeq.Rights, ws string) (*exeq.Rights, error) {
	out, err := Look(Place{Workspace: ws}).repositoryLosses(r)
	return r.Without(out...), err
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// putIndex writes an index that embeds repositories.
func putIndex(t *testing.T, ws string, links ...string) {
	t.Helper()
	b := binary.BigEndian.AppendUint32([]byte("DIRC\x00\x00\x00\x02"), uint32(len(links)))
	for _, name := range links {
		e := make([]byte, 62)
		binary.BigEndian.PutUint32(e[24:], 0o160000)
		e = append(e, name...)
		b = append(b, append(e, make([]byte, 8-len(e)%8)...)...)
	}
	put(t, ws+"/.git/index", string(b))
}

// TestGitlinksOfNothing: an agent fills an index with places where nothing is,
// so that the one that follows them goes unkept.
func TestGitlinksOfNothing(t *testing.T) {
	ws, r := gitWorkspace(t)
	var links []string
	for i := range exeq.MaxRepositories + 1 {
		links = append(links, fmt.Sprintf("aa%03d", i))
	}
	putIndex(t, ws, append(links, "zz")...)
	put(t, ws+"/zz/.git/HEAD", "x")
	put(t, ws+"/zz/.git/config", "")
	got, err := narrowed(r, ws)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/zz/.git", "/zz/.git/config", "/zz/.git/hooks/x", "/aa000/.git"} {
		if got.Lookup(exeq.EncodeBytes(ws + p)).Write {
			t.Errorf("%s can be written", p)
		}
	}
	if !got.Lookup(exeq.EncodeBytes(ws + "/zz/file")).Write {
		t.Error("the work in it cannot be written")
	}
}

// TestRepositoriesBeyondLimits: whatever is too much refuses the run.
func TestRepositoriesBeyondLimits(t *testing.T) {
	for _, test := range []struct {
		name, says string
		make       func(t *testing.T, ws string)
	}{
		{"embedded repositories", "embed", func(t *testing.T, ws string) {
			var links []string
			for i := range exeq.MaxRepositories + 1 {
				links = append(links, fmt.Sprintf("a%d", i))
				put(t, fmt.Sprintf("%s/a%d/.git", ws, i), "nothing")
			}
			putIndex(t, ws, links...)
		}},
		{"modules", "git directories", func(t *testing.T, ws string) {
			for i := range exeq.MaxRepositories + 1 {
				put(t, fmt.Sprintf("%s/.git/modules/m%d/HEAD", ws, i), "")
			}
		}},
		{"worktrees", "git directories", func(t *testing.T, ws string) {
			for i := range exeq.MaxRepositories + 1 {
				put(t, fmt.Sprintf("%s/.git/worktrees/m%d/HEAD", ws, i), "")
			}
		}},
		{"directories that are no modules", "directories to search", func(t *testing.T, ws string) {
			for i := range exeq.MaxGitDirectories + 1 {
				if err := os.MkdirAll(fmt.Sprintf("%s/.git/modules/m%d", ws, i), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"depth", "deep", func(t *testing.T, ws string) {
			put(t, ws+"/.git/modules/"+strings.Repeat("d/", maxModuleDepth+2)+"HEAD", "")
		}},
		{"index", "no more than", func(t *testing.T, ws string) {
			put(t, ws+"/.git/index", "DIRC")
			if err := os.Truncate(ws+"/.git/index", exeq.MaxGitIndexBytes+1); err != nil {
				t.Fatal(err)
			}
		}},
		{"a .git file", "no more than", func(t *testing.T, ws string) {
			putIndex(t, ws, "m")
			put(t, ws+"/m/.git", "gitdir: ../g\n"+strings.Repeat("\n", exeq.MaxGitPointerBytes))
		}},
		{"configuration", "no more than", func(t *testing.T, ws string) {
			put(t, ws+"/.git/config", strings.Repeat("\n", exeq.MaxGitConfigBytes)+"[core] hooksPath = h")
		}},
		{"hooks in the worktree itself", "hooksPath", func(t *testing.T, ws string) { put(t, ws+"/.git/config", "[core] hooksPath = .") }},
		{"hooks in a submodule itself", "hooksPath", func(t *testing.T, ws string) {
			putIndex(t, ws, "m/n")
			put(t, ws+"/m/n/.git/config", "[core] hooksPath = ..")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ws, r := gitWorkspace(t)
			if _, err := narrowed(r, ws); err != nil {
				t.Fatalf("before: %v", err)
			}
			test.make(t, ws)
			if _, err := narrowed(r, ws); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v; want %q", err, test.says)
			}
		})
	}
}

// TestConfiguredPaths: what a configuration names is kept, however it is
// written and wherever it leads; what only looks so is not.
func TestConfiguredPaths(t *testing.T) {
	for _, test := range []struct {
		name, config string
		kept, open   string
	}{
		{"on the section's line", "[core] hooksPath = tools/h\n", "tools/h/pre-commit", "tools/x"},
		{"continued", "[Core]\n HOOKSPATH = \"tools\\\n/h\" # x\n", "tools/h/pre-commit", "tools/x"},
		{"commented", "[core]\n; hooksPath = tools/h\n", ".git/config", "tools/h/x"},
		{"included on the section's line", "[include] path = ../inc\n", "inc", "incl"},
		{"included if", "[includeIf \"gitdir:x]\"] path = ../inc\n", "inc", "incl"},
		{"hooks of an included file", "[include] path = ../inc\n", "ihooks/pre-commit", "x"},
		{"included by an included file", "[include] path = ../inc\n", "inc2", "x"},
		{"by a link", "[core] hooksPath = link\n", "target/pre-commit", "x"},
		{"the link", "[core] hooksPath = link\n", "link", "x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ws, r := gitWorkspace(t)
			put(t, ws+"/inc", "[core] hooksPath = ihooks\n[include] path = inc2\n")
			put(t, ws+"/inc2", "[include] path = inc\n")
			put(t, ws+"/target/x", "")
			if err := os.Symlink("target", ws+"/link"); err != nil {
				t.Fatal(err)
			}
			put(t, ws+"/.git/config", test.config)
			got, err := narrowed(r, ws)
			if err != nil {
				t.Fatal(err)
			}
			if got.Lookup(exeq.EncodeBytes(ws + "/" + test.kept)).Write {
				t.Errorf("%s can be written", test.kept)
			}
			if !got.Lookup(exeq.EncodeBytes(ws + "/" + test.open)).Write {
				t.Errorf("%s cannot be written", test.open)
			}
		})
	}
	ws, r := gitWorkspace(t)
	put(t, ws+"/.git/config", "[core] hooksPath = /dev/null\n[include] path = /dev/null\n")
	all := exeq.Access{Read: true, Write: true}
	r.Cells[0].Under = all
	if got, err := narrowed(r, ws); err != nil || !got.Lookup("/dev/null").Write {
		t.Errorf("/dev/null cannot be written any more: %v", err)
	}
}

// TestModuleOfALink: a submodule's git directory is met twice, without its
// worktree and with it; its own embedded repositories count.
func TestModuleOfALink(t *testing.T) {
	ws, r := gitWorkspace(t)
	putIndex(t, ws, "m")
	put(t, ws+"/m/.git", "gitdir: ../.git/modules/m\x00junk")
	put(t, ws+"/.git/modules/m/HEAD", "x")
	put(t, ws+"/.git/modules/m/config", "[core] hooksPath = h\n")
	got, err := narrowed(r, ws)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/m/.git", "/m/h/pre-commit", "/.git/modules/m/config"} {
		if got.Lookup(exeq.EncodeBytes(ws + p)).Write {
			t.Errorf("%s can be written", p)
		}
	}
}
