//go:build linux

package attacks

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// TestOrdinary: the starter policy does not stand in the way of work. Each row
// works without Exeq first.
func TestOrdinary(t *testing.T) {
	if len(OrdinaryWork) < 40 {
		t.Errorf("%d rows, want at least 40", len(OrdinaryWork))
	}
	for user, uid := range users() {
		for _, o := range OrdinaryWork {
			t.Run(user+"/"+o.Name, func(t *testing.T) {
				t.Parallel()
				if o.Program != "" && !found(o.Program) {
					t.Skipf("there is no %s", o.Program)
				}
				s := workScene(t, o, uid)
				if r := s.run(Attack{}, []string{"bash", "-c", o.Line}, nil); !works(o, r) {
					t.Fatalf("it does not even work ungoverned (exit %d)\nstdout: %s\nstderr: %s", r.code, clean(r.out), clean(r.err))
				}
				for _, tier := range inForce(t, uid) {
					t.Run(tier.String(), func(t *testing.T) { work(t, o, uid, tier) })
				}
			})
		}
	}
}

func work(t *testing.T, o Ordinary, uid int, tier exeq.Tier) {
	r := steady(func() *result {
		s := workScene(t, o, uid)
		return s.run(Attack{}, s.governed(Attack{}, tier, []string{"bash", "-c", o.Line}), nil)
	})
	blocks := func(limit string) bool { return slices.Contains(limitTiers()[limit], tier) }
	switch blocked := slices.ContainsFunc(o.Limits, blocks); {
	case blocked && works(o, r):
		t.Errorf("it works, and the list of limits says that %q blocks it: say so there", o.Limits)
	case !blocked && !works(o, r):
		t.Errorf("blocked (exit %d)\nstdout: %s\nstderr: %s", r.code, clean(r.out), clean(r.err))
	}
}

func works(o Ordinary, r *result) bool {
	return r.code == 0 && strings.Contains(string(r.out), o.Want)
}

// workScene is a scene with the row's workspace and a home that lasts, so that
// compilers keep their caches.
func workScene(t *testing.T, o Ordinary, uid int) *scene {
	s := newScene(t, Attack{}, uid)
	home := filepath.Join(world.dir, "home-"+names[uid == 0])
	s.mkdir(home)
	s.mkdir(home + "/.cache")
	s.mkdir(home + "/.cache/go-build")
	s.places["home"] = home
	s.must("bash", "-c", "rm -rf ./* .[!.]*")
	if o.Lived {
		s.must("bash", "-c", hello+`git init -q -b main . && mkdir .vscode .husky .claude && echo '{}' >.vscode/tasks.json &&
			echo x >.envrc && echo SECRET=x >.env && echo .env >.gitignore && echo '{}' >.claude/settings.json && echo : >.husky/pre-commit &&
			git add . && git -c user.name=n -c user.email=e commit -qm one`)
	}
	return s
}

var names = map[bool]string{true: "root", false: "user"}

// found: the program is on the path that rows get.
func found(program string) bool {
	for _, d := range []string{"/usr/local/go/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := exec.LookPath(filepath.Join(d, program)); err == nil {
			return true
		}
	}
	return false
}
