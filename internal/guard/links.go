package guard

import (
	"os"
	"path"
	"strings"

	"github.com/exeq/exeq"
)

// linkLosses follow the symbolic links on the way to each path that has less
// than what is around it, and to what the home directory holds of secrets and
// start-up files: those are often links into a repository.
func (s *Sight) linkLosses(r *exeq.Rights) (out losses) {
	links := s.seen().links
	for _, c := range r.Cells {
		if raw, err := exeq.DecodeBytes(c.Path); err == nil && raw != "/" {
			out.follow(links, raw, lost(r, c.Path))
		}
	}
	for _, g := range secrets(r, s.at.Home) {
		if _, target := links.follow(g.path); g.path != target && !below(s.at.Workspace, target) {
			out.follow(links, g.path, g.loss)
		}
	}
	return out
}

// follow puts the loss at p where the links on the way lead, and keeps them.
func (ls *losses) follow(f follower, p string, l loss) {
	if !l.any() {
		return
	}
	passed, target := f.follow(p)
	if len(passed) == 0 {
		return
	}
	for _, link := range passed {
		ls.take(link, pinned)
	}
	ls.take(target, l)
}

// follower resolves symbolic links by hand, since what they lead to need not
// exist. It remembers the text of each link, "" for what is none.
type follower map[string]string

// gone stands for the text of what is not there, below which nothing is.
const gone = "\x00"

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
		next := strings.TrimSuffix(at, "/") + "/" + head
		text, known := f[next]
		if !known {
			text = f.look(at, next)
			f[next] = text
		}
		if text == "" || text == gone {
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

func (f follower) look(dir, name string) string {
	if f[dir] == gone {
		return gone
	}
	text, err := os.Readlink(name)
	if err != nil && missing(err) {
		return gone
	}
	return text
}
