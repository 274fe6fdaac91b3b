// Package guard narrows compiled rights by what no policy text can name: what a
// workspace's own tools (git, editors, shells) will run later, outside of the
// execution, and names that must stay what they are. It looks at the files as
// they are when the execution starts. Rights only ever shrink; where it cannot
// be told what must, it is an error.
package guard

import (
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/exeq/exeq"
)

// Place is where an execution works: raw absolute paths, symbolic links
// resolved.
type Place struct {
	Workspace, Home string
	// OwnHome is the home directory that the user database names, whatever
	// $HOME is; empty: none.
	OwnHome string
}

// Sight is what was seen of a place. It serves one start: what is seen later is
// another sight.
type Sight struct {
	at   Place
	seen func() *seen
}

// seen is what takes system calls to find out.
type seen struct {
	repositories *repositoryScan
	links        follower
}

// Look begins to look at a place, beside the caller.
func Look(at Place) *Sight {
	s := &Sight{at: at, seen: sync.OnceValue(func() *seen {
		found := &seen{scan(at.Workspace), follower{}}
		for _, home := range []string{at.Home, at.OwnHome} {
			for _, name := range homeNames() {
				if home != "" { // Narrow is likely to ask
					found.links.follow(home + "/" + name)
				}
			}
		}
		return found
	})}
	go s.seen()
	return s
}

// Narrow puts what policy says of a path also where a symbolic link leads, and
// keeps the link itself; what it says of .git on each repository whose data
// belongs to the workspace's; and what it says of the home directory on the
// user's own as well.
func (s *Sight) Narrow(r *exeq.Rights) (*exeq.Rights, error) {
	// Each looks at what those before it left.
	kept, err := s.repositoryLosses(r)
	if err != nil {
		return nil, err
	}
	r = r.Without(kept...)
	r = r.Without(s.homeLosses(r)...)
	return r.Without(s.linkLosses(r)...), nil
}

// Repositories are the git directories that belong to the workspace, and the
// .git entries of the repositories that an index embeds and of the linked
// worktrees, as they are now. The error says why they may not be all.
func (s *Sight) Repositories() (dirs, entries []string, err error) {
	found := s.seen().repositories
	return found.dirs, slices.Concat(found.entries, found.linked), found.err
}

// GitDir is the git directory to which a .git entry leads; empty: none.
func GitDir(entry string) string { return (&repositoryScan{}).gitDir(entry) }

// Pin takes the right to replace the symbolic links that lead to paths.
func Pin(r *exeq.Rights, paths []string) *exeq.Rights {
	f := follower{}
	var out losses
	for _, p := range paths {
		passed, _ := f.follow(p)
		for _, link := range passed {
			out.take(link, pinned)
		}
	}
	return r.Without(out...)
}

// loss is what is taken away of a path and of what lies below it.
type loss struct{ at, under exeq.Access }

func (l loss) any() bool { return l.at.Read || l.at.Write || l.under.Read || l.under.Write }

// pinned is the loss of a name that must stay what it is.
var pinned = loss{at: exeq.Access{Write: true}}

// lost is what p has less than a name beside it that nobody mentions.
func lost(r *exeq.Rights, p string) loss {
	around := r.Lookup(path.Join(path.Dir(p), "\x00"))
	less := func(a exeq.Access) exeq.Access {
		return exeq.Access{Read: around.Read && !a.Read, Write: around.Write && !a.Write}
	}
	return loss{less(r.Lookup(p)), less(r.Lookup(p + "/\x00"))}
}

// losses are to be taken from rights, in this order.
type losses []exeq.Loss

// take adds what a raw path loses.
func (ls *losses) take(raw string, l loss) {
	if raw != "/" && l.any() {
		*ls = append(*ls, exeq.Loss{Path: exeq.EncodeBytes(raw), At: l.at, Under: l.under})
	}
}

// below reports whether p is dir or lies in it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
