package permit

import (
	"cmp"
	"slices"
	"strings"

	"github.com/exeq/exeq"
)

// Attenuate gives the rights that parent and child both give: for every path,
// endpoint, variable and quota never wider than either, and no narrower. It
// does not change its arguments. Rights that do not validate give nothing.
func Attenuate(parent, child *exeq.Rights) *exeq.Rights {
	if parent == nil || child == nil || parent.Validate() != nil || child.Validate() != nil {
		return &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/"}}, TierFloor: exeq.TierKernel}
	}
	out := &exeq.Rights{
		Version:     1,
		Cells:       meetCells(parent, child),
		Endpoints:   meetEndpoints(parent.Endpoints, child.Endpoints),
		Environment: meetNames(parent.Environment, child.Environment),
		Quotas:      meetQuotas(parent.Quotas, child.Quotas),
		TierFloor:   max(parent.TierFloor, child.TierFloor),
	}
	return out
}

// meetCells evaluates both at every cut point of either: the path itself and
// everything below it. A cut point that changes nothing is left out.
func meetCells(p, c *exeq.Rights) []exeq.Cell {
	paths := make([]string, 0, len(p.Cells)+len(c.Cells))
	for _, cells := range [][]exeq.Cell{p.Cells, c.Cells} {
		for _, cell := range cells {
			paths = append(paths, cell.Path)
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	out := &exeq.Rights{}
	for _, path := range paths {
		below := strings.TrimSuffix(path, "/") + "/\x00" // no path is spelled so: it stands for all below
		cell := exeq.Cell{
			Path:  path,
			At:    meetAccess(p.Lookup(path), c.Lookup(path)),
			Under: meetAccess(p.Lookup(below), c.Lookup(below)),
		}
		if path != "/" {
			if above := out.Lookup(path); sameAccess(cell.At, above) && sameAccess(cell.Under, above) {
				continue
			}
		}
		out.Cells = append(out.Cells, cell)
	}
	return out.Cells
}

func sameAccess(a, b exeq.Access) bool {
	return a.Read == b.Read && a.Write == b.Write && a.Exec == b.Exec && slices.Equal(a.Labels, b.Labels)
}

// meetAccess: a label is an obligation of a read, so the labels add up.
func meetAccess(a, b exeq.Access) exeq.Access {
	out := exeq.Access{Read: a.Read && b.Read, Write: a.Write && b.Write}
	switch {
	case a.Exec == exeq.ExecNo || b.Exec == exeq.ExecNo:
	case a.Exec == exeq.ExecAll && b.Exec == exeq.ExecAll:
		out.Exec = exeq.ExecAll
	default:
		out.Exec = exeq.ExecAsk
	}
	if out.Read && len(a.Labels)+len(b.Labels) > 0 {
		out.Labels = slices.Concat(a.Labels, b.Labels)
		slices.Sort(out.Labels)
		out.Labels = slices.Compact(out.Labels)
	}
	return out
}

func meetEndpoints(p, c []exeq.Endpoint) []exeq.Endpoint {
	var out []exeq.Endpoint
	for _, a := range p {
		for _, b := range c {
			host, ok := meetHost(a.Host, b.Host)
			if !ok || a.Port != 0 && b.Port != 0 && a.Port != b.Port {
				continue
			}
			out = append(out, exeq.Endpoint{Host: host, Port: max(a.Port, b.Port)})
		}
	}
	slices.SortFunc(out, func(a, b exeq.Endpoint) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(out)
}

func meetHost(a, b string) (string, bool) {
	switch {
	case a == b || hostWithin(a, b):
		return a, true
	case hostWithin(b, a):
		return b, true
	}
	return "", false
}

// hostWithin reports whether every name that a means is meant by b.
func hostWithin(a, b string) bool {
	if b == "*" {
		return true
	}
	return strings.HasPrefix(b, ".") && a != "*" && (a == b[1:] || strings.HasSuffix(a, b))
}

// meetNames intersects lists of names in which a trailing '*' matches any
// ending.
func meetNames(p, c []string) []string {
	var out []string
	for _, a := range p {
		for _, b := range c {
			switch {
			case a == b || nameWithin(a, b):
				out = append(out, a)
			case nameWithin(b, a):
				out = append(out, b)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func nameWithin(a, b string) bool {
	prefix, any := strings.CutSuffix(b, "*")
	return any && strings.HasPrefix(strings.TrimSuffix(a, "*"), prefix)
}

// meetQuotas takes the smaller bound; 0 is none.
func meetQuotas(a, b exeq.Quotas) exeq.Quotas {
	return exeq.Quotas{
		Processes:   least(a.Processes, b.Processes),
		Execs:       least(a.Execs, b.Execs),
		Denials:     least(a.Denials, b.Denials),
		WallSeconds: least(a.WallSeconds, b.WallSeconds),
		OutputBytes: least(a.OutputBytes, b.OutputBytes),
		MemoryBytes: least(a.MemoryBytes, b.MemoryBytes),
		FileBytes:   least(a.FileBytes, b.FileBytes),
	}
}

func least[N int | int64](a, b N) N {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
