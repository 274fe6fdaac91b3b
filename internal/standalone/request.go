package standalone

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/guard"
)

// Who says on whose behalf something runs.
type Who struct {
	Agent  string // name given by --agent; "local" when empty
	Intent string // what the caller says that it wants; claimed, never believed
}

// Place is where an execution works, resolved when it starts.
type Place struct {
	Workspace, Home, Tmp string // raw, absolute, symbolic links resolved
}

// Look begins to look at what the guard of the place's own tools needs to know.
func (p Place) Look() *guard.Sight {
	return guard.Look(guard.Place{Workspace: p.Workspace, Home: p.Home, OwnHome: ownHomeDir()})
}

// NewPlace resolves the working directory as workspace and the user's home, and
// makes a temporary directory for one execution; cleanup removes it.
func NewPlace() (p Place, cleanup func() error, err error) {
	if p, err = findPlace(); err != nil {
		return Place{}, nil, err
	}
	tmp, cleanup, err := newTemporary(p.Workspace)
	if err != nil {
		return Place{}, nil, err
	}
	if p.Tmp, err = filepath.EvalSymlinks(tmp); err == nil {
		p.Tmp, err = filepath.Abs(p.Tmp)
	}
	if err != nil {
		cleanup()
		return Place{}, nil, err
	}
	return p, cleanup, nil
}

// Environ is env with the execution's own temporary directory.
func (p Place) Environ(env []string) []string {
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, "TMPDIR=") {
			out = append(out, kv)
		}
	}
	return append(out, "TMPDIR="+p.Tmp)
}

func findPlace() (Place, error) {
	wd, err := os.Getwd()
	if err != nil {
		return Place{}, fmt.Errorf("working directory: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		if u, uerr := whoWeAre(); uerr == nil {
			home = u.HomeDir
		}
	}
	p := Place{}
	for _, x := range []struct {
		to   *string
		from string
	}{{&p.Workspace, wd}, {&p.Home, home}} {
		real, err := filepath.EvalSymlinks(x.from)
		if err != nil {
			// A home that does not exist grants nothing; a workspace must.
			if x.to == &p.Home {
				p.Home = "/nonexistent"
				continue
			}
			return Place{}, err
		}
		if *x.to, err = filepath.Abs(real); err != nil {
			return Place{}, err
		}
	}
	return p, nil
}

// Request describes the start of a command: program is its resolved absolute
// path, raw, and digest that of the open file's bytes.
func Request(who Who, at Place, program string, digest exeq.Digest, argv []string) *exeq.Request {
	agent := who.Agent
	if agent == "" {
		agent = "local"
	}
	name := strconv.Itoa(os.Getuid())
	if u, err := whoWeAre(); err == nil {
		name = u.Username
	}
	encoded := make([]string, len(argv))
	for i, a := range argv {
		encoded[i] = exeq.EncodeBytes(a)
	}
	r := &exeq.Request{
		Subject:    exeq.Entity{Type: "Agent", ID: agent},
		OnBehalfOf: []exeq.Entity{{Type: "User", ID: name}},
		Action:     exeq.ActionRun,
		Resource:   exeq.Resource{Type: "Program", ID: exeq.EncodeBytes(program), SHA256: digest},
		Argv:       encoded,
		Dir:        exeq.EncodeBytes(at.Workspace),
		Context: exeq.Context{
			Workspace: exeq.EncodeBytes(at.Workspace), Home: exeq.EncodeBytes(at.Home), Tmp: exeq.EncodeBytes(at.Tmp),
			Command: exeq.CommandLine(encoded),
		},
	}
	if who.Intent != "" {
		r.Context.Claimed = map[string]string{"intent": who.Intent}
	}
	return r
}

// whoWeAre is the user database's entry, whatever the environment says.
var whoWeAre = sync.OnceValues(func() (*user.User, error) { return user.LookupId(strconv.Itoa(os.Getuid())) })

// ownHomeDir is the home directory that the user database names.
var ownHomeDir = sync.OnceValue(func() string {
	u, err := whoWeAre()
	if err != nil || !filepath.IsAbs(u.HomeDir) {
		return ""
	}
	real, err := filepath.EvalSymlinks(u.HomeDir)
	if err != nil {
		return ""
	}
	return real
})

// otherStates are the directories where Exeq keeps state unless told otherwise,
// as far as they exist: another installation's keys are nobody's business
// either.
func otherStates() (out []string) {
	var places []string
	if x := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(x) {
		places = append(places, filepath.Join(x, "exeq"))
	}
	for _, home := range []string{os.Getenv("HOME"), ownHomeDir()} {
		if filepath.IsAbs(home) {
			places = append(places, filepath.Join(home, ".local", "state", "exeq"))
		}
	}
	for _, p := range places {
		if real, err := filepath.EvalSymlinks(p); err == nil && real != "/" {
			out = append(out, real)
		}
	}
	return out
}
