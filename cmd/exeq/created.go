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
	leads     map[string]string // git directories, and the .git file that leads there
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
		// What was made is looked at whole; what waits in it to be run is named.
		if slices.ContainsFunc(made, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") && !pending(p) }) {
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
	isNew := func(p string) bool { return e.beside[p] == "" && now[p] != "" }
	// One line for a repository that was made and the .git that leads there.
	led := func(p string) bool {
		for dir, entry := range e.leads {
			if isNew(entry) && (p == dir || strings.HasPrefix(p, dir+"/")) {
				return !pending(p)
			}
		}
		return false
	}
	for _, p := range slices.Sorted(maps.Keys(now)) {
		switch was := e.beside[p]; {
		case isNew(p) && led(p):
		case isNew(p):
			say("made", p, "git and other tools may act on")
		case was != now[p]:
			say("changed", p, "git and other tools may act on")
		}
	}
	for _, why := range e.unseen {
		fmt.Fprintf(w, "exeq: repositories in %s may have been made or changed unseen: %s\n", exeq.Readable(exeq.EncodeBytes(e.workspace)), why)
	}
}
