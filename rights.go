package exeq

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/exeq/exeq/internal/canon"
)

// Rights are what one execution may do, as data: compiled by a decision point
// on any operating system, bound by digest into the permit, mapped to kernel
// objects by enforcement, which knows no policy language. They are the upper
// bound; decisions at run time only narrow inside them.
type Rights struct {
	Version int `json:"v"` // 1
	// Cells is sorted by Path and always has a cell "/". The longest cut
	// point that is the path itself or an ancestor of it decides; see Access.
	Cells []Cell `json:"cells"`
	// Endpoints is the upper bound of connect, sorted. Each connection is
	// still put to the decision point. Empty: no network at all. An exact
	// host and port stays beside a wider entry: only it opens a loopback,
	// private or otherwise special address.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Environment lists variable names that pass into the execution, sorted;
	// a trailing '*' matches any ending.
	Environment []string `json:"environment,omitempty"`
	Quotas      Quotas   `json:"quotas"`
	// TierFloor is the weakest tier in which these rights may be applied.
	TierFloor Tier `json:"tierFloor"`
}

// Cell gives the access at one cut point: At for the path itself, Under for
// everything below it down to the next cut point.
type Cell struct {
	Path  string `json:"path"` // absolute, clean, EncodeBytes
	At    Access `json:"at"`
	Under Access `json:"under"`
}

// Access is what a path may be used for.
type Access struct {
	Read  bool `json:"r,omitempty"`
	Write bool `json:"w,omitempty"`
	// Exec says whether the file may be executed or mapped executable.
	Exec ExecMode `json:"x,omitempty"`
	// Labels are set on the session by a read; a read with labels must be put
	// to the decision point before its descriptor is delivered. Sorted.
	Labels []string `json:"labels,omitempty"`
}

// ExecMode is the exec right of a path.
type ExecMode string

const (
	ExecNo ExecMode = ""
	// ExecAsk puts each program to the decision point with its digest.
	ExecAsk ExecMode = "ask"
	// ExecAll allows every program there, whatever its bytes, arguments or
	// the session: enforcement may leave the tree executable as it is.
	ExecAll ExecMode = "all"
)

// Endpoint is one entry of the connect bound.
type Endpoint struct {
	// Host is a name or address; ".example.com" means it and every name
	// below it; "*" means any.
	Host string `json:"host"`
	Port int    `json:"port,omitempty"` // 0: any
}

// Quotas bound an execution's behaviour; 0 means no bound.
type Quotas struct {
	Processes   int   `json:"processes,omitempty"`   // alive at once
	Execs       int   `json:"execs,omitempty"`       // in total
	Denials     int   `json:"denials,omitempty"`     // denied activities in total
	WallSeconds int   `json:"wallSeconds,omitempty"` // CLOCK_BOOTTIME
	OutputBytes int64 `json:"outputBytes,omitempty"` // written by its programs, as the kernel counts, and the proxy's upload
	MemoryBytes int64 `json:"memoryBytes,omitempty"` // RLIMIT_AS-like bound a process
	FileBytes   int64 `json:"fileBytes,omitempty"`   // RLIMIT_FSIZE
}

// Canonical is the one spelling of the rights.
func (r *Rights) Canonical() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return canon.Marshal(r)
}

// Digest is SHA-256("exeq.dev/rights/v1" NUL ‖ canonical form).
func (r *Rights) Digest() (Digest, error) {
	if err := r.Validate(); err != nil {
		return Digest{}, err
	}
	d, _, err := canon.Sum256(tagRights, r)
	return d, err
}

// Validate checks order and spelling, so that lookup is unambiguous.
func (r *Rights) Validate() error {
	if r.Version != 1 {
		return fmt.Errorf("rights: unknown version %d", r.Version)
	}
	if len(r.Cells) == 0 || r.Cells[0].Path != "/" {
		return fmt.Errorf("rights: the first cell must be /")
	}
	for i, c := range r.Cells {
		if err := CheckPath(c.Path); err != nil {
			return fmt.Errorf("rights: cells[%d]: %w", i, err)
		}
		if i > 0 && r.Cells[i-1].Path >= c.Path {
			return fmt.Errorf("rights: cells[%d]: not in ascending order", i)
		}
		for _, a := range []Access{c.At, c.Under} {
			if a.Exec != ExecNo && a.Exec != ExecAsk && a.Exec != ExecAll {
				return fmt.Errorf("rights: cells[%d]: unknown exec mode %q", i, a.Exec)
			}
			if !slices.IsSorted(a.Labels) {
				return fmt.Errorf("rights: cells[%d]: labels are not sorted", i)
			}
		}
	}
	for i, e := range r.Endpoints {
		if e.Host == "" || e.Host != strings.ToLower(e.Host) || e.Port < 0 || e.Port > 65535 {
			return fmt.Errorf("rights: endpoints[%d]: want a lower-case host and a port of 0–65535", i)
		}
	}
	return nil
}

// Lookup gives the access of one canonical path.
func (r *Rights) Lookup(p string) Access {
	for at := p; ; {
		if i, ok := r.search(at); ok {
			if at == p {
				return r.Cells[i].At
			}
			return r.Cells[i].Under
		}
		if at == "/" {
			return Access{}
		}
		if cut := strings.LastIndexByte(at, '/'); cut <= 0 {
			at = "/"
		} else {
			at = at[:cut]
		}
	}
}

// search finds the cell of a path, or where it would stand.
func (r *Rights) search(path string) (int, bool) {
	i := sort.Search(len(r.Cells), func(i int) bool { return r.Cells[i].Path >= path })
	return i, i < len(r.Cells) && r.Cells[i].Path == path
}

// Reaches reports whether host and port lie within the connect bound.
func (r *Rights) Reaches(host string, port int) bool {
	for _, e := range r.Endpoints {
		if e.Port != 0 && e.Port != port {
			continue
		}
		if e.Host == "*" || e.Host == host {
			return true
		}
		if strings.HasPrefix(e.Host, ".") && (host == e.Host[1:] || strings.HasSuffix(host, e.Host)) {
			return true
		}
	}
	return false
}

// Loss is what a path loses: At is what is lost of the path itself, Under of
// everything below it. Reads and writes can be.
type Loss struct {
	Path      string
	At, Under Access
}

// Fix returns the rights without the right to write path or anything below it.
func (r *Rights) Fix(path string) *Rights {
	return r.Without(Loss{path, Access{Write: true}, Access{Write: true}})
}

// Without returns the rights less the losses. Where nothing of that was there
// it is the same rights.
func (r *Rights) Without(losses ...Loss) *Rights {
	out := *r
	out.Cells = append(make([]Cell, 0, len(r.Cells)+len(losses)), r.Cells...)
	changed := false
	for _, l := range losses {
		changed = out.lose(l) || changed
	}
	if !changed {
		return r
	}
	return &out
}

// lose takes one loss away in place, and reports whether anything of it was there.
func (r *Rights) lose(l Loss) bool {
	has := func(a, lose Access) bool { return a.Read && lose.Read || a.Write && lose.Write }
	less := func(a, lose Access) Access {
		a.Read, a.Write = a.Read && !lose.Read, a.Write && !lose.Write
		if !a.Read {
			a.Labels = nil
		}
		return a
	}
	below := strings.TrimSuffix(l.Path, "/") + "/"
	i, found := r.search(l.Path)
	at := Cell{Path: l.Path}
	if found {
		at = r.Cells[i]
	} else {
		at.At, at.Under = r.Lookup(l.Path), r.Lookup(below+"\x00")
	}
	from, _ := r.search(below)
	to := from
	changed := has(at.At, l.At) || has(at.Under, l.Under)
	for ; to < len(r.Cells) && strings.HasPrefix(r.Cells[to].Path, below); to++ {
		c := &r.Cells[to]
		if c.Path == l.Path {
			continue // "/", below which is everything
		}
		changed = changed || has(c.At, l.Under) || has(c.Under, l.Under)
		c.At, c.Under = less(c.At, l.Under), less(c.Under, l.Under)
	}
	if !changed {
		return false
	}
	if !found {
		r.Cells = slices.Insert(r.Cells, i, at)
	}
	r.Cells[i].At, r.Cells[i].Under = less(at.At, l.At), less(at.Under, l.Under)
	return true
}

// Scrub keeps the environment variables that the rights let through.
func (r *Rights) Scrub(env []string) []string {
	var out []string
	for _, kv := range env {
		name, _, ok := strings.Cut(kv, "=")
		if ok && slices.ContainsFunc(r.Environment, func(p string) bool {
			prefix, any := strings.CutSuffix(p, "*")
			return name == p || any && strings.HasPrefix(name, prefix)
		}) {
			out = append(out, kv)
		}
	}
	return out
}

// DecodeRights reads canonical rights strictly.
func DecodeRights(b []byte) (*Rights, error) {
	var r Rights
	if err := canon.Decode(b, &r, canon.Limits{Bytes: MaxRightsBytes, Depth: MaxDepth}); err != nil {
		return nil, fmt.Errorf("rights: %w", err)
	}
	return &r, r.Validate()
}

// Within reports whether r gives nothing that outer does not; where it does,
// it names the first path or endpoint.
func (r *Rights) Within(outer *Rights) (string, bool) {
	for _, cells := range [][]Cell{r.Cells, outer.Cells} {
		for _, c := range cells {
			below := strings.TrimSuffix(c.Path, "/") + "/\x00" // no path is named so: stands for all below
			if !r.Lookup(c.Path).within(outer.Lookup(c.Path)) || !r.Lookup(below).within(outer.Lookup(below)) {
				return c.Path, false
			}
		}
	}
	for _, e := range r.Endpoints {
		if !slices.ContainsFunc(outer.Endpoints, e.within) {
			return fmt.Sprintf("%s:%d", e.Host, e.Port), false
		}
	}
	return "", true
}

func (a Access) within(b Access) bool {
	rank := map[ExecMode]int{ExecNo: 0, ExecAsk: 1, ExecAll: 2}
	if a.Read && !b.Read || a.Write && !b.Write || rank[a.Exec] > rank[b.Exec] {
		return false
	}
	for _, l := range b.Labels { // a label that b sets and a does not is a right too
		if a.Read && !slices.Contains(a.Labels, l) {
			return false
		}
	}
	return true
}

func (e Endpoint) within(o Endpoint) bool {
	if o.Port != 0 && o.Port != e.Port {
		return false
	}
	return o.Host == "*" || o.Host == e.Host ||
		strings.HasPrefix(o.Host, ".") && (e.Host == o.Host[1:] || strings.HasSuffix(e.Host, o.Host))
}
