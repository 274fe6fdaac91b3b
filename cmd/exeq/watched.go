//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/guard"
)

// gitPending are the names in a git directory of what git goes on with when
// somebody continues it: the todo list of a rebase has exec lines, and the
// strategy that it or a sequence of picks names is a program; beside patches
// lies an author-script, which older git ran; and the names of a bisection
// older git gave to the shell. Ordinary work writes all of them, so that they
// are not kept but said.
var gitPending = []string{"rebase-merge", "rebase-apply", "sequencer", "BISECT_NAMES"}

// pending reports whether p is such a name.
func pending(p string) bool { return slices.Contains(gitPending, path.Base(p)) }

// laterTools are files of a workspace from which a tool runs something later,
// and which agents write so often on somebody's behalf that the starter does
// not keep them: what the run made of them is said.
var laterTools = []string{
	".claude/commands", // Claude Code: lines that begin with !, by their own allowed-tools
	".claude/skills",   // Claude Code: the same, and hooks
	".claude/agents",   // Claude Code: hooks and the permission mode of an agent
	".pre-commit-config.yaml",
	"lefthook.yml", "lefthook.yaml", ".lefthook.yml", "lefthook-local.yml",
}

// watcher collects what identified each path that is looked at.
type watcher struct {
	rights *exeq.Rights
	found  map[string]string
	leads  map[string]string // git directories, and the .git file that leads there
	unseen []string          // why that may not be all
}

// watched are what git and other tools may act on, which policy does not name
// and the run may write to: what belongs to the repository of the workspace,
// the embedded repositories, in which git starts git, those in directories of
// the workspace, the workspace itself as a bare one, what waits in any of them
// to be continued, and the files of other tools.
func (e *lookingBack) watched(seen *guard.Sight) map[string]string {
	w := &watcher{rights: e.rights, found: map[string]string{}, leads: map[string]string{}}
	defer func() { e.unseen, e.leads = w.unseen, w.leads }()
	if e.workspace == "" || e.rights == nil || !w.writable(path.Join(e.workspace, "\x00")) {
		return w.found
	}
	entries, err := os.ReadDir(e.workspace)
	if err != nil {
		w.unseen = append(w.unseen, err.Error())
	}
	there := make(map[string]bool, len(entries))
	for _, d := range entries {
		there[d.Name()] = true
		// Its tasks and settings are those of .vscode.
		if strings.HasSuffix(d.Name(), ".code-workspace") {
			w.whole(path.Join(e.workspace, d.Name()))
		}
	}
	for _, name := range laterTools {
		if first, _, _ := strings.Cut(name, "/"); there[first] {
			w.whole(path.Join(e.workspace, name))
		}
	}
	if w.writable(path.Join(e.workspace, ".git", "config")) {
		return w.found // policy lets git be configured
	}
	dirs, own, err := seen.Repositories()
	if err != nil {
		w.unseen = append(w.unseen, err.Error())
	}
	known := map[string]bool{}
	for _, p := range dirs {
		known[p] = true
		w.gitDir(p)
	}
	for _, p := range own {
		w.entry(p, known)
	}
	directories := 0
	for _, d := range entries {
		if !d.IsDir() || d.Name() == ".git" {
			continue
		}
		if directories++; directories > exeq.MaxDirectoriesBeside {
			w.unseen = append(w.unseen, fmt.Sprintf("only %d directories of it are looked into", exeq.MaxDirectoriesBeside))
			break
		}
		w.entry(path.Join(e.workspace, d.Name(), ".git"), known)
	}
	if there["HEAD"] && there["objects"] && there["refs"] {
		w.note(path.Join(e.workspace, "config"))
		w.found[path.Join(e.workspace, "HEAD")] = "a bare repository"
		w.pending(e.workspace)
	}
	return w.found
}

func (w *watcher) writable(p string) bool { return w.rights.Lookup(exeq.EncodeBytes(p)).Write }

// note looks at one name, if the run may write there.
func (w *watcher) note(p string) {
	if !w.writable(p) {
		return
	}
	if info, err := os.Lstat(p); err == nil {
		w.found[p] = identity(info)
	}
}

// entry looks at a .git and, unless that is known, at the git directory to
// which it leads.
func (w *watcher) entry(p string, known map[string]bool) {
	info, err := os.Lstat(p)
	if err != nil {
		return
	}
	if !info.IsDir() && w.writable(p) {
		w.found[p] = identity(info)
	}
	dir := guard.GitDir(p)
	if dir == "" {
		return
	}
	if !info.IsDir() {
		w.leads[dir] = p
	}
	if !known[dir] {
		known[dir] = true
		w.gitDir(dir)
	}
}

// gitDir looks at a git directory.
func (w *watcher) gitDir(dir string) {
	if w.found[dir] == "" && w.writable(dir) {
		w.found[dir] = "a directory"
	}
	for _, name := range []string{"config", "config.worktree", "commondir", "hooks"} {
		w.note(path.Join(dir, name))
	}
	w.pending(dir)
	hooks := path.Join(dir, "hooks")
	if !w.writable(hooks) && !w.writable(hooks+"/\x00") {
		return
	}
	// A file that is written in place leaves its directory as it is.
	files, _ := os.ReadDir(hooks)
	if len(files) > exeq.MaxGitHooks {
		w.unseen = append(w.unseen, fmt.Sprintf("only %d files of %s are looked at", exeq.MaxGitHooks, exeq.EncodeBytes(hooks)))
		files = files[:exeq.MaxGitHooks]
	}
	for _, f := range files {
		w.note(path.Join(hooks, f.Name()))
	}
}

// pending looks at what waits in a git directory.
func (w *watcher) pending(dir string) {
	for _, name := range gitPending {
		w.whole(path.Join(dir, name))
	}
}

// whole looks at a file or directory with all that is in it, through the links
// that whoever acts on it follows.
func (w *watcher) whole(p string) {
	info, err := os.Lstat(p)
	if err != nil {
		return
	}
	to := p
	if info.Mode().Type() == fs.ModeSymlink {
		if to, err = filepath.EvalSymlinks(p); err != nil {
			to = p // leads nowhere: the link itself is looked at
		}
	}
	if !w.writable(p) && !w.writable(to) && !w.writable(to+"/\x00") {
		return
	}
	sum, left := sha256.New(), exeq.MaxGitHooks
	var look func(p string, info fs.FileInfo)
	look = func(p string, info fs.FileInfo) {
		fmt.Fprintf(sum, "%q %s\n", p, identity(info))
		if !info.IsDir() {
			return
		}
		files, err := os.ReadDir(p)
		if err != nil {
			w.unseen = append(w.unseen, err.Error())
		}
		for _, f := range files {
			if left--; left == 0 {
				w.unseen = append(w.unseen, fmt.Sprintf("only %d files of %s are looked at", exeq.MaxGitHooks, exeq.EncodeBytes(to)))
			}
			if left <= 0 {
				return
			}
			info, err := os.Lstat(path.Join(p, f.Name()))
			if err != nil {
				w.unseen = append(w.unseen, err.Error())
				continue
			}
			look(path.Join(p, f.Name()), info)
			if f.Type() == fs.ModeSymlink { // a file of it may be a link, too
				if info, err := os.Stat(path.Join(p, f.Name())); err == nil {
					fmt.Fprintln(sum, identity(info))
				}
			}
		}
	}
	look(p, info)
	if to != p {
		if info, err := os.Lstat(to); err == nil {
			look(to, info)
		}
	}
	w.found[p] = string(sum.Sum(nil))
}

// identity changes whenever a file or a directory's entries do.
func identity(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
	}
	return fmt.Sprint(st.Ino, st.Mode, st.Size, st.Mtim, st.Ctim)
}
