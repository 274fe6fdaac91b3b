// Package arch holds the rules of the tree as tests, each with its reason.
package arch

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/exeq/exeq"

type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Standard   bool
}

// list asks the go command, for one system, what the tree consists of.
func list(t *testing.T, goos string, args ...string) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,Deps,Standard"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v %s", err, err.(*exec.ExitError).Stderr)
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// TestImports: who may depend on what, and why.
func TestImports(t *testing.T) {
	const cedar, edwards = "github.com/cedar-policy/", "filippo.io/edwards25519"
	for _, rule := range []struct {
		pkg    string
		banned []string // import path prefixes, anywhere in the closure
		only   []string // non-standard import paths allowed in the closure; nil: any
		why    string
	}{
		{module, nil, []string{module + "/internal/canon"},
			"the nouns and the flow must be readable, and usable, without anything else"},
		{module + "/internal/canon", nil, []string{},
			"what everything is hashed by depends on nothing"},
		{module + "/proof", nil, []string{module, module + "/internal/canon", module + "/proof/internal/edtable", "golang.org/x/mod/", edwards, edwards + "/field"},
			"a stranger audits what verifies"},
		{module + "/attest", nil, []string{module, module + "/internal/canon"},
			"appraisal is a pure function of evidence"},
		{module + "/enforce", []string{"net/http", cedar, module + "/policy", module + "/record", module + "/permit", module + "/adapter"}, nil,
			"enforcement maps rights to kernel objects: it knows no policy language, and a web server has no place beside the mount agent"},
		{module + "/enforce/bpf", nil, []string{module, module + "/internal/canon", "github.com/cilium/ebpf", "github.com/cilium/ebpf/", "golang.org/x/sys/"},
			"what the kernel decides by is audited alone, and the node that loads it stays small"},
		{module + "/cmd/exeq-node", []string{"net/http", "database/sql"}, []string{module, module + "/internal/canon", module + "/permit",
			module + "/enforce/bpf", module + "/node", module + "/node/", "github.com/cilium/ebpf", "github.com/cilium/ebpf/", "golang.org/x/sys/", "golang.org/x/mod/sumdb/"},
			"the daemon is root: it verifies signatures and fills the kernel's maps, and whatever else it held would be root too"},
		{module + "/node/client", []string{module + "/enforce", "github.com/cilium/ebpf"}, nil,
			"whoever asks the node loads nothing into the kernel"},
		{module + "/policy", []string{module + "/enforce", module + "/record", module + "/permit", module + "/adapter", "net/http"}, nil,
			"rights are data, computed on any system"},
		{module + "/permit", []string{cedar, module + "/policy", module + "/record", module + "/enforce", "net/http"}, nil,
			"a node verifies permits without a policy engine"},
		{module + "/record", []string{cedar, module + "/policy", module + "/enforce", module + "/adapter"}, nil,
			"the record believes nobody's policy"},
		{module + "/api/authzen", nil, []string{},
			"an enforcement point takes the wire schema and nothing else"},
		{module + "/server", []string{module + "/enforce/bpf", module + "/enforce/landlock", module + "/enforce/probe", module + "/enforce/programs", module + "/adapter", module + "/node"}, nil,
			"what decides for many enforces nothing itself, and runs on any system"},
		{module + "/adapter/egress", []string{cedar, module + "/policy", module + "/record", module + "/permit", module + "/enforce"}, nil,
			"adapters translate and ask; they do not decide"},
	} {
		p, ok := list(t, "linux", "-deps", rule.pkg)[rule.pkg]
		if !ok {
			t.Errorf("%s: not found", rule.pkg)
			continue
		}
		std := standard(t)
		for _, dep := range p.Deps {
			banned := slices.ContainsFunc(rule.banned, func(b string) bool { return strings.HasPrefix(dep, b) })
			if rule.only != nil && !std[dep] && !slices.ContainsFunc(rule.only, func(o string) bool {
				return dep == o || strings.HasSuffix(o, "/") && strings.HasPrefix(dep, o)
			}) {
				banned = true
			}
			if banned {
				t.Errorf("%s depends on %s: %s", rule.pkg, dep, rule.why)
			}
		}
	}
}

var std map[string]bool

func standard(t *testing.T) map[string]bool {
	if std == nil {
		std = map[string]bool{}
		for path := range list(t, "linux", "std") {
			std[path] = true
		}
		std["unsafe"] = true
	}
	return std
}

// TestAdaptersNeverImportEachOther: each is one translation.
func TestAdaptersNeverImportEachOther(t *testing.T) {
	for path, p := range list(t, "linux", "./adapter/...") {
		for _, dep := range p.Imports {
			if strings.HasPrefix(dep, module+"/adapter/") {
				t.Errorf("%s imports %s", path, dep)
			}
		}
	}
}

// TestEveryPackageSaysWhatItIsFor: a reader who opens any directory knows
// where they are.
func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for path, p := range list(t, "linux", "./...") {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", path)
		}
	}
}

// TestFilesStayReadable: most files are under 450 lines; none is over 700.
func TestFilesStayReadable(t *testing.T) {
	for _, p := range list(t, "linux", "./...") {
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, p.Dir+"/"+name, nil, parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			if n := fset.File(f.Pos()).LineCount(); n > 700 {
				t.Errorf("%s/%s has %d lines", p.ImportPath, name, n)
			}
			if p.ImportPath == module && name == "govern.go" && fset.File(f.Pos()).LineCount() > 151 {
				t.Errorf("govern.go has grown: it must be read in two minutes")
			}
		}
	}
}

// TestBuildsElsewhere: everything but enforcement builds elsewhere, and run
// refuses there and says why. A state directory needs a Unix, so on Windows the
// command decides, checks and verifies.
func TestBuildsElsewhere(t *testing.T) {
	for _, goos := range []string{"darwin", "windows"} {
		cmd := exec.Command("go", "vet", "./...")
		cmd.Dir = "../.."
		cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", goos, err, out)
		}
	}
}

// TestBuildsOnArm: what has numbers and registers of an architecture in it is there
// for both that the kernel tiers are written for.
func TestBuildsOnArm(t *testing.T) {
	cmd := exec.Command("go", "vet", "./enforce/...", "./node/...", "./cmd/exeq-node")
	cmd.Dir = "../.."
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
