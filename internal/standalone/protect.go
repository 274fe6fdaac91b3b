package standalone

import (
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

// Protect narrows compiled rights by what no policy text can name: it looks at
// the files as they are when the execution starts. What policy says of a path
// holds also where a symbolic link leads, the link itself stays, what it says
// of .git holds for each repository whose data belongs to the workspace's, and
// what it says of the home directory holds for the user's own as well, whatever
// $HOME is. Rights only ever shrink; where it cannot be told what must, it is
// an error.
func (in *Installation) Protect(at Place) func(*exeq.Rights) (*exeq.Rights, error) {
	return func(r *exeq.Rights) (*exeq.Rights, error) {
		r, err := repositories(r, at.Workspace)
		if err != nil {
			return nil, err
		}
		r = ownHome(r, at, ownHomeDir())
		return in.keep(links(r, at))
	}
}

// loss is what a cell takes away.
type loss struct{ at, under exeq.Access }

func (l loss) any() bool { return l.at.Read || l.at.Write || l.under.Read || l.under.Write }

// lost is what p has less than a name beside it that nobody mentions.
func lost(r *exeq.Rights, p string) loss {
	around := r.Lookup(path.Join(path.Dir(p), "\x00"))
	less := func(a exeq.Access) exeq.Access {
		return exeq.Access{Read: around.Read && !a.Read, Write: around.Write && !a.Write}
	}
	return loss{less(r.Lookup(p)), less(r.Lookup(p + "/\x00"))}
}

func take(r *exeq.Rights, raw string, l loss) *exeq.Rights {
	if raw == "/" || !l.any() {
		return r
	}
	return r.Without(exeq.EncodeBytes(raw), l.at, l.under)
}

// pinned is the loss of a name that must stay what it is.
var pinned = loss{at: exeq.Access{Write: true}}

// links follows the symbolic links on the way to each path that has less than
// what is around it, and to what the home directory holds of secrets and
// start-up files: those are often links into a repository.
func links(r *exeq.Rights, at Place) *exeq.Rights {
	f := follower{}
	out := r
	for _, c := range r.Cells {
		if raw, err := exeq.DecodeBytes(c.Path); err == nil && raw != "/" {
			out = followed(out, f, raw, lost(r, c.Path))
		}
	}
	for _, g := range guards(r, at.Home) {
		if _, target := f.follow(g.path); g.path != target && !below(at.Workspace, target) {
			out = followed(out, f, g.path, g.loss)
		}
	}
	return out
}

// followed puts the loss at p where the links on the way lead, and keeps them.
func followed(r *exeq.Rights, f follower, p string, l loss) *exeq.Rights {
	if !l.any() {
		return r
	}
	passed, target := f.follow(p)
	if len(passed) == 0 {
		return r
	}
	for _, link := range passed {
		r = take(r, link, pinned)
	}
	return take(r, target, l)
}

// guard is a path that has less than rights might give it.
type guard struct {
	path string
	loss
}

// guards are the secrets and start-up files of a home directory, as far as
// rights keep them.
func guards(r *exeq.Rights, home string) (out []guard) {
	for _, g := range []struct {
		names []string
		keep  exeq.Access
	}{{policy.HomeSecrets(), exeq.Access{Read: true, Write: true}}, {policy.HomeStartup(), exeq.Access{Write: true}}} {
		for _, name := range g.names {
			p := filepath.Join(home, name)
			less := func(a exeq.Access) exeq.Access {
				return exeq.Access{Read: g.keep.Read && !a.Read, Write: g.keep.Write && !a.Write}
			}
			id := exeq.EncodeBytes(p)
			if l := (loss{less(r.Lookup(id)), less(r.Lookup(id + "/\x00"))}); l.any() {
				out = append(out, guard{p, l})
			}
		}
	}
	return out
}

// follower resolves symbolic links by hand, since what they lead to need not
// exist. It remembers what is no link.
type follower map[string]string

const maxLinks = 40 // the kernel's

// follow gives the links on the way and where the last one leads.
func (f follower) follow(p string) (passed []string, target string) {
	rest := strings.Split(p, "/")
	at := "/"
	for len(rest) > 0 {
		head := rest[0]
		rest = rest[1:]
		switch head {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, head)
		text, known := f[next]
		if !known {
			text, _ = os.Readlink(next)
			f[next] = text
		}
		if text == "" {
			at = next
			continue
		}
		if passed = append(passed, next); len(passed) > maxLinks {
			return passed, next
		}
		if strings.HasPrefix(text, "/") {
			at = "/"
		}
		rest = append(strings.Split(text, "/"), rest...)
	}
	return passed, at
}

// ownHome puts what is kept in the home directory also on the one that the user
// database names.
func ownHome(r *exeq.Rights, at Place, own string) *exeq.Rights {
	if own == "" || own == "/" || own == at.Home {
		return r
	}
	out := r
	for _, g := range guards(r, at.Home) {
		if p := own + strings.TrimPrefix(g.path, at.Home); !below(at.Workspace, p) {
			out = take(out, p, g.loss)
		}
	}
	return out
}

// ownHomeDir is the home directory that the user database names.
func ownHomeDir() string {
	u, err := user.LookupId(strconv.Itoa(os.Getuid()))
	if err != nil || !filepath.IsAbs(u.HomeDir) {
		return ""
	}
	real, err := filepath.EvalSymlinks(u.HomeDir)
	if err != nil {
		return ""
	}
	return real
}

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

// below reports whether p is dir or lies in it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
