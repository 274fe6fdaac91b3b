package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
)

// why explains the decision of an execution or denial under the policy set
// that made it or, of an activity inside it, what that set says: a file that
// the kernel refused to open says nothing by itself.
func why(ctx context.Context, c *call) int {
	in, fs, asJSON, status := c.query(ctx, nil)
	if in == nil {
		return status
	}
	defer in.Close()
	if n := fs.NArg(); n != 1 && n != 3 {
		return c.misuse("want one execution, or one and what it asks for")
	}
	leaves, err := in.Store.Leaves(ctx, fs.Arg(0))
	if err == nil && len(leaves) == 0 {
		err = fmt.Errorf("there is no execution %s; exeq ps --all lists them", fs.Arg(0))
	}
	if err != nil {
		return c.fail(err)
	}
	d, err := standalone.DecisionOf(leaves)
	if err != nil {
		return c.fail(err)
	}
	set, err := in.SetOf(ctx, d.Decision.PolicySet)
	if err != nil {
		return c.fail(err)
	}
	e := explained{Request: d.Request, Inputs: d.Inputs}
	if fs.NArg() == 3 {
		if e.Request, err = activityRequest(d.Request, fs.Arg(1), fs.Arg(2)); err != nil {
			return c.fail(err)
		}
	} else {
		entries, err := standalone.ActivitiesOf(leaves)
		if err != nil {
			return c.fail(err)
		}
		e.Denied = standalone.Denied(entries)
	}
	if e.Why, err = set.Explain(ctx, e.Request, e.Inputs); e.Why == nil {
		return c.fail(err)
	}
	if asJSON {
		printJSON(c.stdout, e)
	} else {
		e.text(c.stdout)
	}
	return 0
}

// explained is the stable schema of why.
type explained struct {
	Request *exeq.Request        `json:"request"`
	Inputs  *exeq.Inputs         `json:"inputs"`
	Why     *policy.Explanation  `json:"why"`
	Denied  []exeq.ActivityEntry `json:"deniedActivities,omitempty"`
}

func (e *explained) text(w io.Writer) {
	r, d := e.Request, &e.Why.Decision
	fmt.Fprintf(w, "%s  %s\n", d.Verdict, e.Why.Reason)
	fmt.Fprintf(w, "\nrequest  %s by %s %q\n", r.Action, r.Subject.Type, r.Subject.ID)
	for _, l := range [][2]string{
		{strings.ToLower(r.Resource.Type), exeq.Readable(r.Resource.ID)}, {"command", exeq.Readable(r.Context.Command)}, {"workspace", exeq.Readable(r.Context.Workspace)},
		{"tier", e.Inputs.Tier.String()}, {"policy set", d.PolicySet.String()},
	} {
		fmt.Fprintf(w, "  %-10s %s\n", l[0], l[1])
	}
	if r.Resource.SHA256 != (exeq.Digest{}) {
		fmt.Fprintf(w, "  %-10s %s\n", "sha256", r.Resource.SHA256)
	}
	for _, rule := range e.Why.Rules {
		if rule.Determining {
			fmt.Fprintf(w, "\ndecided by %s (%s:%d)\n%s\n", rule.ID, rule.File, rule.Line, rule.Text)
		}
	}
	if len(e.Why.Changes) > 0 {
		fmt.Fprintln(w, "\nwhat would change it")
		for _, line := range e.Why.Changes {
			fmt.Fprintln(w, "  "+line)
		}
	}
	if len(e.Denied) > 0 {
		fmt.Fprintln(w, "\ndenied while it ran")
		for _, a := range e.Denied {
			fmt.Fprintf(w, "  %s %s %s  by %v\n", a.Time, a.Activity.Action, exeq.Readable(a.Activity.Resource.ID), a.Policies)
		}
	}
}

// activityRequest is what an activity inside an execution asks for. A path is
// resolved here and now, as the kernel does where it decides.
func activityRequest(run *exeq.Request, action, resource string) (*exeq.Request, error) {
	r := &exeq.Request{Subject: run.Subject, OnBehalfOf: run.OnBehalfOf, Action: action, Dir: run.Dir, Context: run.Context}
	switch action {
	case exeq.ActionConnect:
		r.Resource = exeq.Resource{Type: "Endpoint", ID: resource}
		return r, nil
	case exeq.ActionRead, exeq.ActionWrite, exeq.ActionExec:
	default:
		return nil, fmt.Errorf("%q is no activity: read, write, exec or connect", action)
	}
	path, err := resolved(resource)
	if err != nil {
		return nil, err
	}
	r.Resource = exeq.Resource{Type: "Path", ID: exeq.EncodeBytes(path)}
	if action == exeq.ActionExec {
		r.Resource.Type, r.Argv = "Program", []string{resource}
		r.Context.Command = exeq.CommandLine(r.Argv)
		if r.Resource.SHA256, err = digestOf(path); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// resolved follows links as far as the path exists.
func resolved(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil || path == "/" || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return real, err
	}
	dir, err := resolved(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

func digestOf(path string) (d exeq.Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.Size() > exeq.MaxProgramBytes {
		err = fmt.Errorf("%s: %d bytes, and no program of more than %d is executed", exeq.EncodeBytes(path), st.Size(), int64(exeq.MaxProgramBytes))
	}
	if err != nil {
		return d, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return d, err
	}
	return exeq.Digest(h.Sum(nil)), nil
}
