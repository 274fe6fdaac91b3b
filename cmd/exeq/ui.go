package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/exeq/exeq"
)

// stateFlag resolves --state, $EXEQ_STATE, $XDG_STATE_HOME/exeq and the home
// directory, in that order, to an absolute path.
func stateDir(flag string) (string, error) {
	for _, dir := range []string{flag, os.Getenv("EXEQ_STATE")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if x := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "exeq"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for state: set --state or $EXEQ_STATE (%w)", err)
	}
	return filepath.Abs(filepath.Join(home, ".local", "state", "exeq"))
}

// exitOf maps a run's error to its exit status.
func exitOf(out *exeq.Outcome, err error) int {
	var noProof *unproved
	switch {
	case err == nil:
		return out.Exit.Code
	case errors.Is(err, exeq.ErrDenied):
		return exitDenied
	case errors.As(err, &noProof):
		return exitFailed
	case errors.Is(err, exeq.ErrUnsealed) && !errors.Is(err, exeq.ErrRevoked) && !errors.Is(err, exeq.ErrLapsed):
		return exitFailed
	case out != nil && (out.State == exeq.Sealed || out.State == exeq.Ending):
		return exitKilled
	default:
		return exitExeqFailed
	}
}

// unproved is a command that ran to its end and whose proof could not be
// written where it was wanted.
type unproved struct{ err error }

func (u *unproved) Error() string {
	return "the command ran to its end and is on record, but its proof was not written: " + u.err.Error()
}
func (u *unproved) Unwrap() error { return u.err }

// output is standard output. It keeps its first error, so that no command need
// ask; see delivered.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.to.Write(b)
	o.err = err
	return n, err
}

// delivered is the exit status of a command that came to status: nobody may take
// for its result what did not arrive. (A reader that goes away ends us by
// SIGPIPE, as it ends others.)
func (c *call) delivered(status int) int {
	if c.stdout.err == nil || status != 0 {
		return status
	}
	status = c.fail(fmt.Errorf("the output is not complete: %w", c.stdout.err))
	if c.name == "verify" || c.name == "monitor" {
		return exitUsage // cannot tell
	}
	return status
}

// printJSON writes v as one indented document.
func printJSON(w io.Writer, v any) {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	e.Encode(v)
}

// report is what verify and monitor come to.
type report interface {
	JSON() ([]byte, error)
	Text() string
}

func (c *call) printReport(r report, asJSON bool) error {
	if !asJSON {
		fmt.Fprint(c.stdout, r.Text())
		return nil
	}
	b, err := r.JSON()
	if err == nil {
		c.stdout.Write(b)
	}
	return err
}

// log passes warnings on to the person at the terminal.
func (c *call) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(spoken{c.stderr}, &slog.HandlerOptions{Level: slog.LevelWarn,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		}}))
}

// spoken says of each line who speaks.
type spoken struct{ io.Writer }

func (s spoken) Write(b []byte) (int, error) {
	if _, err := fmt.Fprintf(s.Writer, "exeq: warning: %s", b); err != nil {
		return 0, err
	}
	return len(b), nil
}
