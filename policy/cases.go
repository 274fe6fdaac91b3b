package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// caseFile is a file of test cases beside a policy: tests.json or
// NAME.cases.json.
type caseFile struct {
	Cases []testCase `json:"cases"`
}

// testCase is one request and what is expected of it. What is left out has
// the value of a plain agent at the start of an execution in /home/user/project.
type testCase struct {
	Name    string       `json:"name"`
	Subject *exeq.Entity `json:"subject,omitempty"` // Agent "agent"
	Action  string       `json:"action"`
	// Resource is a path ("./x" in the workspace, "~/x" in the home
	// directory), host:port, or server/tool.
	Resource string      `json:"resource"`
	SHA256   exeq.Digest `json:"sha256,omitzero"`
	// Args are the arguments behind the program's name.
	Args      []string          `json:"args,omitempty"`
	Workspace string            `json:"workspace,omitempty"`
	Home      string            `json:"home,omitempty"`
	Tmp       string            `json:"tmp,omitempty"`
	Command   string            `json:"command,omitempty"`
	Claimed   map[string]string `json:"claimed,omitempty"`
	Tier      string            `json:"tier,omitempty"` // rootless
	Risk      int               `json:"risk,omitempty"`
	Session   exeq.Session      `json:"session,omitzero"`
	Approved  []string          `json:"approved,omitempty"`
	Present   []string          `json:"present,omitempty"`
	Expect    expectation       `json:"expect"`
}

// expectation: a list that is left out is not compared, an empty one is.
type expectation struct {
	Verdict     exeq.Verdict `json:"verdict"`
	Policies    *[]string    `json:"policies,omitempty"`
	Needs       *[]string    `json:"needs,omitempty"`
	Obligations *[]string    `json:"obligations,omitempty"`
	Labels      *[]string    `json:"labels,omitempty"`
}

// CaseResult is the outcome of one test case.
type CaseResult struct {
	File string `json:"file"`
	Name string `json:"name"`
	// Failure says what differs from what the case expects; empty: passed.
	Failure string `json:"failure,omitempty"`
}

// TestDir loads the set at path (a directory or a .cedar file) and runs every
// case file beside it. The error is about input that cannot be read; a failing
// case is a result. A set without a case is an error: nothing was tested.
func TestDir(path string) ([]CaseResult, error) {
	s, err := LoadDir(path)
	if err != nil {
		return nil, err
	}
	dir := path
	if strings.HasSuffix(path, cedarSuffix) {
		dir = filepath.Dir(path)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var out []CaseResult
	for _, e := range entries {
		if e.Name() != testsFile && !strings.HasSuffix(e.Name(), caseSuffix) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		results, err := s.Test(e.Name(), b)
		if err != nil {
			return nil, err
		}
		out = append(out, results...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("policy: %s holds no test case: write %s or NAME%s", dir, testsFile, caseSuffix)
	}
	return out, nil
}

// Test runs the cases of one file; name is for the results.
func (s *Set) Test(name string, data []byte) ([]CaseResult, error) {
	var f caseFile
	if err := canon.Decode(data, &f, canon.Limits{Bytes: exeq.MaxConfigBytes, Depth: exeq.MaxDepth}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	out := make([]CaseResult, 0, len(f.Cases))
	seen := map[string]bool{}
	for i, c := range f.Cases {
		if c.Name == "" || seen[c.Name] {
			return nil, fmt.Errorf("%s: cases[%d].name: %q is empty or used twice", name, i, c.Name)
		}
		seen[c.Name] = true
		failure, err := s.runCase(&c)
		if err != nil {
			return nil, fmt.Errorf("%s: case %q: %w", name, c.Name, err)
		}
		out = append(out, CaseResult{File: name, Name: c.Name, Failure: failure})
	}
	return out, nil
}

func (s *Set) runCase(c *testCase) (failure string, err error) {
	switch c.Expect.Verdict {
	case exeq.Allow, exeq.Modify, exeq.Deny, exeq.StepUp, exeq.Defer:
	default:
		return "", fmt.Errorf("expect.verdict: %q is not allow, modify, deny, step_up or defer", c.Expect.Verdict)
	}
	r, in, err := c.request()
	if err != nil {
		return "", err
	}
	d, err := s.Decide(context.Background(), r, in)
	if err != nil {
		return "", err
	}
	var diffs []string
	if d.Verdict != c.Expect.Verdict {
		diffs = append(diffs, fmt.Sprintf("verdict %s, want %s", d.Verdict, c.Expect.Verdict))
	}
	for _, l := range []struct {
		name string
		got  []string
		want *[]string
	}{
		{"policies", d.Policies, c.Expect.Policies}, {"needs", d.Needs, c.Expect.Needs},
		{"obligations", d.Obligations, c.Expect.Obligations}, {"labels", d.Labels, c.Expect.Labels},
	} {
		if l.want != nil && !slices.Equal(l.got, distinct(slices.Clone(*l.want))) {
			diffs = append(diffs, fmt.Sprintf("%s %q, want %q", l.name, l.got, *l.want))
		}
	}
	if len(diffs) > 0 {
		return strings.Join(diffs, "; ") + " (" + d.Reason + ")", nil
	}
	return "", nil
}

// request fills in what the case leaves out.
func (c *testCase) request() (*exeq.Request, *exeq.Inputs, error) {
	r := &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "agent"},
		Action:  c.Action,
		Context: exeq.Context{
			Workspace: orElse(c.Workspace, "/home/user/project"), Home: orElse(c.Home, "/home/user"),
			Tmp: orElse(c.Tmp, "/tmp/exeq"), Command: c.Command, Claimed: c.Claimed,
		},
	}
	if c.Subject != nil {
		r.Subject = *c.Subject
	}
	name := c.Action
	if name == exeq.ActionMap {
		name = exeq.ActionExec
	}
	a, ok := vocabulary().actions[name]
	if !ok {
		return nil, nil, fmt.Errorf("action: unknown action %q", c.Action)
	}
	r.Resource = exeq.Resource{Type: string(a.resource[len(namespace):]), ID: c.Resource, SHA256: c.SHA256}
	if rest, ok := strings.CutPrefix(c.Resource, "./"); ok {
		r.Resource.ID = join(r.Context.Workspace, rest)
	} else if rest, ok := strings.CutPrefix(c.Resource, "~/"); ok {
		r.Resource.ID = join(r.Context.Home, rest)
	}
	if a.class == classProgram {
		if r.Resource.SHA256.IsZero() {
			r.Resource.SHA256 = exeq.Digest{31: 1}
		}
		r.Argv = append([]string{r.Resource.ID}, c.Args...)
		if c.Command == "" {
			r.Context.Command = exeq.CommandLine(r.Argv)
		}
	}
	in := &exeq.Inputs{Tier: exeq.TierRootless, Risk: c.Risk, Session: c.Session, Approved: c.Approved, Present: c.Present}
	if c.Tier != "" {
		tier, err := exeq.ParseTier(c.Tier)
		if err != nil {
			return nil, nil, fmt.Errorf("tier: %w", err)
		}
		in.Tier = tier
	}
	return r, in, nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
