//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/exeq/exeq"
)

// lookingBack is an enforcer that notes which protected paths did not exist
// before the launch. Nothing can cover what is not there; what the run made of
// it is said at the end, before somebody's tools run it.
type lookingBack struct {
	exeq.Enforcer
	absent []string
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
	for _, c := range l.Rights.Cells {
		raw, err := exeq.DecodeBytes(c.Path)
		if err != nil || c.At.Write || !l.Rights.Lookup(path.Dir(c.Path)).Write {
			continue
		}
		if _, err := os.Lstat(raw); errors.Is(err, fs.ErrNotExist) {
			e.absent = append(e.absent, raw)
		}
	}
}

// tell says what of it is there now.
func (e *lookingBack) tell(w io.Writer) {
	for _, p := range e.absent {
		if _, err := os.Lstat(p); err == nil {
			fmt.Fprintf(w, "exeq: the run made %s, which policy protects and other tools may act on: look at it before they do\n", exeq.EncodeBytes(p))
		}
	}
}
