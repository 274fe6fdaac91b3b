package exeq

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/exeq/exeq/internal/canon"
)

// Entity names one thing in AuthZEN's manner. Types in use: User, Team, Agent,
// Node, Program, Path, Endpoint, Tool.
type Entity struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// Actions of the core; adapters add theirs.
const (
	ActionRun     = "run"     // start an execution; resource Program
	ActionExec    = "exec"    // replace a process image inside one; resource Program
	ActionRead    = "read"    // open for reading; resource Path
	ActionWrite   = "write"   // open for writing, create, remove, rename; resource Path
	ActionConnect = "connect" // reach a host and port; resource Endpoint
	ActionMap     = "map"     // map a file executable; decided as exec; resource Program
)

// Resource is what an action is done to.
type Resource struct {
	// Type is Program, Path, Endpoint or Tool.
	Type string `json:"type"`
	// ID: Program and Path: the resolved absolute path (EncodeBytes);
	// Endpoint: host:port, the host lower case or a canonical IP address;
	// Tool: server/name.
	ID string `json:"id"`
	// SHA256 is the digest of a program's bytes; zero for anything else.
	SHA256 Digest `json:"sha256,omitzero"`
}

// Context is the enumerated context of a request: known at its start, stated
// by Exeq and not by the caller, but for Claimed.
type Context struct {
	// Workspace, Home, Tmp are resolved absolute paths (EncodeBytes), fixed
	// when the execution starts.
	Workspace string `json:"workspace"`
	Home      string `json:"home"`
	Tmp       string `json:"tmp"`
	// Command is the command line that started the execution, arguments
	// joined by one space (EncodeBytes); for run and exec that of the request
	// itself.
	Command string `json:"command"`
	// Claimed is what the caller says of itself ("intent", …). It may narrow
	// and never lifts a forbid.
	Claimed map[string]string `json:"claimed,omitempty"`
}

// Request describes exactly what is about to happen.
type Request struct {
	Subject Entity `json:"subject"`
	// OnBehalfOf is the delegation chain, nearest first.
	OnBehalfOf []Entity `json:"onBehalfOf,omitempty"`
	Action     string   `json:"action"`
	Resource   Resource `json:"resource"`
	// Argv is the argument vector, argv[0] included (EncodeBytes each).
	Argv []string `json:"argv,omitempty"`
	// Dir is the working directory (EncodeBytes).
	Dir     string  `json:"cwd,omitempty"`
	Context Context `json:"context"`
}

// actionV1 lists, in one place, the members that an ActionDigest covers.
type actionV1 struct {
	Version    int      `json:"v"`
	Subject    Entity   `json:"subject"`
	OnBehalfOf []Entity `json:"onBehalfOf,omitempty"`
	Action     string   `json:"action"`
	Resource   Resource `json:"resource"`
	Argv       []string `json:"argv,omitempty"`
	Dir        string   `json:"cwd,omitempty"`
	Context    Context  `json:"context"`
}

// ActionDigest is SHA-256("exeq.dev/action/v1" NUL ‖ JCS(actionV1)). Risk,
// session, approvals and time are not in it: they are volatile inputs and are
// bound by the permit's inputsDigest.
func (r *Request) ActionDigest() (Digest, error) {
	d, n, err := canon.Sum256(tagAction, r.actionV1())
	return d, actionErr(n, err)
}

func (r *Request) actionV1() *actionV1 {
	return &actionV1{1, r.Subject, r.OnBehalfOf, r.Action, r.Resource, r.Argv, r.Dir, r.Context}
}

// actionErr says what is wrong with an action that was written in n bytes.
func actionErr(n int, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("request: %w", err)
	case n > MaxRequestBytes:
		return fmt.Errorf("request: %d bytes are over the limit of %d", n, MaxRequestBytes)
	}
	return nil
}

// Validate refuses a request whose parts could be read in two ways: relative
// or unclean paths, spellings that EncodeBytes would not write, a program
// without a digest.
func (r *Request) Validate() error {
	if r.Subject.Type == "" || r.Subject.ID == "" {
		return errors.New("request: subject is missing")
	}
	if r.Action == "" {
		return errors.New("request: action is missing")
	}
	switch r.Resource.Type {
	case "Program", "Path":
		if err := CheckPath(r.Resource.ID); err != nil {
			return fmt.Errorf("request: resource: %w", err)
		}
	case "Endpoint", "Tool":
		if r.Resource.ID == "" {
			return errors.New("request: resource has no id")
		}
	default:
		return fmt.Errorf("request: unknown resource type %q", r.Resource.Type)
	}
	if r.Resource.Type == "Program" && r.Resource.SHA256.IsZero() {
		return errors.New("request: a program needs the digest of its bytes")
	}
	c := &r.Context
	if !plainPath(c.Workspace) || !plainPath(c.Home) || !plainPath(c.Tmp) {
		for _, at := range [...][2]string{{"workspace", c.Workspace}, {"home", c.Home}, {"tmp", c.Tmp}} {
			if err := CheckPath(at[1]); err != nil {
				return fmt.Errorf("request: context.%s: %w", at[0], err)
			}
		}
	}
	for i, a := range r.Argv {
		if _, err := DecodeBytes(a); err != nil {
			return fmt.Errorf("request: argv[%d]: %w", i, err)
		}
	}
	return nil
}

// CheckPath accepts an absolute, clean, canonically encoded path.
func CheckPath(p string) error {
	if plainPath(p) {
		return nil
	}
	if !strings.HasPrefix(p, "/") {
		return fmt.Errorf("path %q is not absolute", p)
	}
	raw, err := DecodeBytes(p)
	if err != nil {
		return err
	}
	if path.Clean(raw) != raw {
		return fmt.Errorf("path %q is not clean (want %q)", p, EncodeBytes(path.Clean(raw)))
	}
	if len(raw) > MaxPathBytes || strings.IndexByte(raw, 0) >= 0 {
		return fmt.Errorf("path is longer than %d bytes or holds a NUL", MaxPathBytes)
	}
	return nil
}

// plainPath accepts most good paths in one pass: absolute, of printable ASCII
// without '%', no element empty or beginning with a dot.
func plainPath(p string) bool {
	if len(p) == 0 || len(p) > MaxPathBytes || p[0] != '/' {
		return false
	}
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i, slash := 0, uint64(0) // slash: the byte before was one
	for ; i+8 <= len(p); i += 8 {
		w := uint64(p[i]) | uint64(p[i+1])<<8 | uint64(p[i+2])<<16 | uint64(p[i+3])<<24 |
			uint64(p[i+4])<<32 | uint64(p[i+5])<<40 | uint64(p[i+6])<<48 | uint64(p[i+7])<<56
		percent := w ^ ones*'%'
		// The high bit of a byte is set where the byte is beyond ASCII, below
		// 0x20, 0x7f or '%'; at times of the byte above such a one, too.
		if (w|(w-ones*0x20)|(w+ones)|(percent-ones)&^percent)&high != 0 {
			return false
		}
		// Of bytes below 0x80, the high bit of exactly those that are equal.
		slashes := ^((w ^ ones*'/') + ones*0x7f) & high
		dots := ^((w ^ ones*'.') + ones*0x7f) & high
		if (slashes<<8|slash)&(slashes|dots) != 0 {
			return false
		}
		slash = slashes >> 56
	}
	for i = max(i, 1); i < len(p); i++ {
		c := p[i]
		if c < 0x20 || c >= 0x7f || c == '%' || (c == '/' || c == '.') && p[i-1] == '/' {
			return false
		}
	}
	return len(p) == 1 || p[len(p)-1] != '/'
}

// CommandLine joins argv the way Context.Command carries it.
func CommandLine(argv []string) string { return strings.Join(argv, " ") }

// Tier is a strength of enforcement; a larger one is stronger.
type Tier int

// The tiers of the design, section 5.
const (
	TierNone       Tier = 0
	TierNested     Tier = 10
	TierRootless   Tier = 20
	TierKernelLite Tier = 30
	TierKernel     Tier = 40
)

var tierNames = map[Tier]string{
	TierNested: "nested", TierRootless: "rootless", TierKernelLite: "kernel-lite", TierKernel: "kernel",
}

func (t Tier) String() string {
	if n, ok := tierNames[t]; ok {
		return n
	}
	return "none"
}

// ParseTier is the inverse of Tier.String.
func ParseTier(s string) (Tier, error) {
	for t, n := range tierNames {
		if n == s {
			return t, nil
		}
	}
	return TierNone, fmt.Errorf("unknown tier %q (want nested, rootless, kernel-lite or kernel)", s)
}

// Session is what an execution has done so far, as policy sees it.
type Session struct {
	Execs     int `json:"execs"`
	Reads     int `json:"reads"` // decided reads: labelled ones
	Writes    int `json:"writes"`
	Connects  int `json:"connects"`
	Denials   int `json:"denials"`
	Processes int `json:"processes"` // highest number alive at once
	// BytesOut counts what left through the proxy.
	BytesOut int64 `json:"bytesOut"`
	// Labels is sorted and only grows.
	Labels []string `json:"labels"`
}

// Inputs are the volatile inputs of one decision.
type Inputs struct {
	Tier        Tier     `json:"tier"`
	Risk        int      `json:"risk"` // 0–100
	RiskReasons []string `json:"riskReasons,omitempty"`
	Session     Session  `json:"session"`
	// Approved are the groups whose approval of this request stands, Present
	// the names of deferred context that an authenticated source supplied;
	// both sorted.
	Approved []string `json:"approved,omitempty"`
	Present  []string `json:"present,omitempty"`
	Time     Time     `json:"time"`
}

// Digest is what a permit's inputsDigest holds.
func (in *Inputs) Digest() (Digest, error) {
	d, _, err := canon.Sum256(tagInputs, in)
	if err != nil {
		return Digest{}, fmt.Errorf("inputs: %w", err)
	}
	return d, nil
}
