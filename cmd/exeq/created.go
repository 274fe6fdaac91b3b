//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/guard"
)

// lookingBack is an enforcer that notes which protected paths did not exist
// before the launch. Nothing can cover what is not there; what the run made of
// it is said at the end, before somebody's tools run it.
type lookingBack struct {
	exeq.Enforcer
	absent []string
	// workspace is where else is looked; empty: nowhere.
	workspace string
	before    *guard.Sight      // of the workspace; nil: look anew
	beside    map[string]string // what lay beside, and what identified it
	unseen    []string          // why that may not be all
	rights    *exeq.Rights
	// live, where set, gets what was launched.
	live func(*exeq.Launch, exeq.Running)
}

// Stage implements exeq.Stager: from then on paths may be made.
func (e *lookingBack) Stage(ctx context.Context, l *exeq.Launch) {
	e.look(l)
	if s, ok := e.Enforcer.(exeq.Stager); ok {
		s.Stage(ctx, l)
	}
}

// Launch implements exeq.Enforcer.
func (e *lookingBack) Launch(ctx context.Context, l *exeq.Launch) (exeq.Running, error) {
	r, err := e.Enforcer.Launch(ctx, l)
	if err == nil && e.live != nil {
		e.live(l, r)
	}
	return r, err
}

func (e *lookingBack) look(l *exeq.Launch) {
	e.rights = l.Rights
	e.absent = nil
	if e.before == nil {
		e.before = guard.Look(guard.Place{Workspace: e.workspace})
	}
	e.beside = e.watched(e.before)
	for _, c := range l.Rights.Cells {
		raw, err := exeq.DecodeBytes(c.Path)
		if err != nil || c.At.Write || !l.Rights.Lookup(path.Join(path.Dir(c.Path), "\x00")).Write {
			continue
		}
		if _, err := os.Lstat(raw); errors.Is(err, fs.ErrNotExist) {
			e.absent = append(e.absent, raw)
		}
	}
}

// tell says what of it is there now.
func (e *lookingBack) tell(w io.Writer) {
	var made []string
	say := func(verb, p, why string) {
		if slices.ContainsFunc(made, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") }) {
			return
		}
		made = append(made, p)
		fmt.Fprintf(w, "exeq: the run %s %s, which %s: look at it before they do\n", verb, exeq.Readable(exeq.EncodeBytes(p)), why)
	}
	slices.Sort(e.absent)
	for _, p := range e.absent {
		if _, err := os.Lstat(p); err == nil {
			say("made", p, "policy protects and other tools may act on")
		}
	}
	if e.rights == nil {
		return // nothing was launched
	}
	now := e.watched(guard.Look(guard.Place{Workspace: e.workspace}))
	for _, p := range slices.Sorted(maps.Keys(now)) {
		switch was, there := e.beside[p]; {
		case !there:
			say("made", p, "git and other tools may act on")
		case was != now[p]:
			say("changed", p, "git and other tools may act on")
		}
	}
	for _, why := range e.unseen {
		fmt.Fprintf(w, "exeq: repositories in %s may have been made or changed unseen: %s\n", exeq.Readable(exeq.EncodeBytes(e.workspace)), why)
	}
}

// watched are the repositories beside the workspace's own, which policy does
// not name and the run may write to: the embedded ones, in which git starts
// git, those in directories of the workspace, the workspace itself as a bare
// one, and a rebase that waits to be continued.
func (e *lookingBack) watched(seen *guard.Sight) map[string]string {
	out := map[string]string{}
	e.unseen = nil
	if e.workspace == "" || e.rights == nil {
		return out
	}
	git := path.Join(e.workspace, ".git")
	if e.rights.Lookup(exeq.EncodeBytes(path.Join(git, "config"))).Write || !e.rights.Lookup(exeq.EncodeBytes(path.Join(e.workspace, "\x00"))).Write {
		return out // policy lets git be configured, or nothing be written
	}
	note := func(p string) bool {
		info, err := os.Lstat(p)
		if err != nil {
			return false
		}
		if e.rights.Lookup(exeq.EncodeBytes(p)).Write {
			out[p] = identity(info)
		}
		return true
	}
	entry := func(p string) {
		info, err := os.Lstat(p)
		if err != nil {
			return
		}
		if !info.IsDir() {
			note(p)
			return
		}
		if e.rights.Lookup(exeq.EncodeBytes(p)).Write {
			out[p] = "a directory"
		}
		for _, name := range []string{"config", "config.worktree", "commondir"} {
			note(path.Join(p, name))
		}
		hooks := path.Join(p, "hooks")
		if !note(hooks) {
			return
		}
		// A file that is written in place leaves its directory as it is.
		files, _ := os.ReadDir(hooks)
		if len(files) > exeq.MaxGitHooks {
			e.unseen = append(e.unseen, fmt.Sprintf("only %d files of %s are looked at", exeq.MaxGitHooks, exeq.EncodeBytes(hooks)))
			files = files[:exeq.MaxGitHooks]
		}
		for _, f := range files {
			note(path.Join(hooks, f.Name()))
		}
	}
	embedded, err := seen.Embedded()
	if err != nil {
		e.unseen = append(e.unseen, err.Error())
	}
	for _, p := range embedded {
		entry(p)
	}
	entries, err := os.ReadDir(e.workspace)
	if err != nil {
		e.unseen = append(e.unseen, err.Error())
	}
	directories := 0
	for _, d := range entries {
		if !d.IsDir() || d.Name() == ".git" {
			continue
		}
		if directories++; directories > exeq.MaxDirectoriesBeside {
			e.unseen = append(e.unseen, fmt.Sprintf("only %d directories of it are looked into", exeq.MaxDirectoriesBeside))
			break
		}
		entry(path.Join(e.workspace, d.Name(), ".git"))
	}
	bare := map[string]bool{}
	for _, name := range []string{"HEAD", "objects", "refs", "config"} {
		_, err := os.Lstat(path.Join(e.workspace, name))
		bare[name] = err == nil
	}
	if bare["HEAD"] && bare["objects"] && bare["refs"] {
		note(path.Join(e.workspace, "config"))
		out[path.Join(e.workspace, "HEAD")] = "a bare repository"
	}
	note(path.Join(git, "rebase-merge", "git-rebase-todo"))
	return out
}

// identity changes whenever a file or a directory's entries do.
func identity(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
	}
	return fmt.Sprint(st.Ino, st.Mode, st.Size, st.Mtim, st.Ctim)
}
