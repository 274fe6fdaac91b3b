package guard

import (
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

// secret is a path that has less than rights might give it.
type secret struct {
	path string
	loss
}

// kept are the names of secrets and start-up files in a home directory.
var kept = sync.OnceValue(func() []keptNames {
	return []keptNames{
		{policy.HomeSecrets(), exeq.Access{Read: true, Write: true}},
		{policy.HomeStartup(), exeq.Access{Write: true}},
	}
})

type keptNames struct {
	names []string
	of    exeq.Access // what nobody should have of them
}

func homeNames() (out []string) {
	for _, k := range kept() {
		out = append(out, k.names...)
	}
	return out
}

// secrets are the secrets and start-up files of a home directory, as far as
// rights keep them.
func secrets(r *exeq.Rights, home string) (out []secret) {
	id := exeq.EncodeBytes(home)
	for _, k := range kept() {
		less := func(a exeq.Access) exeq.Access {
			return exeq.Access{Read: k.of.Read && !a.Read, Write: k.of.Write && !a.Write}
		}
		for _, name := range k.names {
			p := path.Join(id, exeq.EncodeBytes(name))
			if l := (loss{less(r.Lookup(p)), less(r.Lookup(p + "/\x00"))}); l.any() {
				out = append(out, secret{filepath.Join(home, name), l})
			}
		}
	}
	return out
}

// homeLosses put what is kept in the home directory also on the one that the
// user database names.
func (s *Sight) homeLosses(r *exeq.Rights) (out losses) {
	own := s.at.OwnHome
	if own == "" || own == "/" || own == s.at.Home {
		return nil
	}
	for _, g := range secrets(r, s.at.Home) {
		if p := own + strings.TrimPrefix(g.path, s.at.Home); !below(s.at.Workspace, p) {
			out.take(p, g.loss)
		}
	}
	return out
}
