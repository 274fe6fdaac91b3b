package guard

import (
	"path/filepath"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
)

// secret is a path that has less than rights might give it.
type secret struct {
	path string
	loss
}

// secrets are the secrets and start-up files of a home directory, as far as
// rights keep them.
func secrets(r *exeq.Rights, home string) (out []secret) {
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
				out = append(out, secret{p, l})
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
