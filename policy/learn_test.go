package policy

import (
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

func act(action string, ids ...string) (out []exeq.Activity) {
	for _, id := range ids {
		out = append(out, exeq.Activity{Action: action, Resource: testRequest(action, id).Resource})
	}
	return out
}

func TestLearn(t *testing.T) {
	var observed []exeq.Activity
	for _, a := range [][]exeq.Activity{
		act("exec", "/usr/bin/make", "/usr/local/go/bin/go", "/usr/local/go/pkg/tool/linux_amd64/compile", "/tmp/exeq-1/go-build12/b001/x.test", "/home/u/app/tools/gen"),
		act("map", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib64/ld-linux-x86-64.so.2", "/home/u/app/node_modules/a/build/a.node"),
		act("read", "/", "/home/u", "/home/u/.config", "/etc/passwd", "/etc/ssl/certs/ca.crt", "/usr/share/zoneinfo/UTC", "/proc/self/stat", "/home/u/app/main.go",
			"/home/u/go/pkg/mod/x/x.go", "/home/u/.gitconfig", "/home/u/.cargo/registry/x", "/dev/urandom", "/srv/data/one", "/home/u/app/.git/config"),
		act("write", "/home/u/app/dist/a.js", "/home/u/app/dist/b.js", "/home/u/app/go.sum", "/home/u/.cache/go-build/00/x", "/dev/null", "/tmp/exeq-1/y", "/home/u/app/.git/index"),
		act("connect", "registry.npmjs.org:443"),
	} {
		observed = append(observed, a...)
	}
	run := testRequest(exeq.ActionRun, "/usr/bin/make")
	run.Context.Command = "make all\npermit(principal,action,resource);"
	src, err := Learn(observed, run)
	if err != nil {
		t.Fatal(err)
	}
	text := src.Files[LearnedFile]
	if again, _ := Learn(observed, run); again.Files[LearnedFile] != text {
		t.Error("learning twice gives two texts")
	}
	s := mustLoad(t, src)
	if d := decide(t, s, testRequest(exeq.ActionRun, "/usr/bin/make"), testInputs()); d.Verdict != exeq.Allow {
		t.Errorf("the run itself: %s", d.Reason)
	}
	for _, a := range observed {
		if d := decide(t, s, testRequest(a.Action, a.Resource.ID), testInputs()); d.Verdict != exeq.Allow || !d.Static {
			t.Errorf("observed %s %s: %s", a.Action, a.Resource.ID, d.Reason)
		}
	}
	for action, ids := range map[string][]string{
		"run":     {"/bin/sh"},
		"exec":    {"/usr/bin/curl", "/home/u/app/tools/other", "/home/u/.cargo/bin/cargo", "/usr/bin"},
		"read":    {"/etc/shadow", "/etc/hostname", "/home/u/.ssh/id_rsa", "/home/u/.bashrc", "/home/u/.config/gh/hosts.yml", "/home/u/app/.env", "/home/u/.cargo/credentials.toml", "/srv/data/two", "/home", "/root"},
		"write":   {"/home/u/app/main.go", "/home/u/app/.git/hooks/pre-commit", "/home/u/app/.git/config", "/home/u/.bashrc", "/usr/bin/x", "/etc/passwd", "/home/u/.cargo/x"},
		"connect": {"registry.npmjs.org:80", "example.com:443"},
	} {
		for _, id := range ids {
			if d := decide(t, s, testRequest(action, id), testInputs()); d.Verdict != exeq.Deny {
				t.Errorf("not observed and allowed: %s %s by %v\n%s", action, id, d.Policies, text)
			}
		}
	}
	if strings.Contains(text, "/home/u/app") {
		t.Errorf("the text names the workspace by its absolute path:\n%s", text)
	}
	if n := strings.Count(text, "@id("); n > 12 {
		t.Errorf("%d policies are not readable", n)
	}
}

// Whatever was observed is allowed, in any world, and the result loads.
func TestLearnAllowsWhatItSaw(t *testing.T) {
	for seed := range 80 {
		g := newGenerator(uint64(seed) + 300)
		run := testRequest(exeq.ActionRun, "/bin/sh")
		run.Context.Workspace = g.pick("/home/u/app", "/home/u", "/", "/srv/x")
		run.Context.Home = g.pick("/home/u", "/root", "/")
		var observed []exeq.Activity
		for range g.IntN(60) {
			action := g.pick("exec", "map", "read", "write")
			p := g.path()
			if g.IntN(2) == 0 {
				p = g.pick("/home/u/.ssh/id_rsa", "/home/u/.cargo/credentials", "/etc/shadow", "/home/u/app/.env", "/home/u/app/.git/hooks/x", "/usr/lib/x.so",
					"/opt/a/b/c", "/opt/x", "/home/u/app/sedAbc123", "/home/u/.config/gh/x", "/home/u/.local/share/x/y", "/dev/pts/0", "/we\"i\\rd", "/home/u/app/a.tmp", "/proc/1", "/root/x", "/home/u/.config")
			}
			observed = append(observed, act(action, p)...)
		}
		src, err := Learn(observed, run)
		if err != nil {
			t.Fatal(err)
		}
		s := mustLoad(t, src)
		for _, a := range observed {
			r := testRequest(a.Action, a.Resource.ID)
			r.Context = run.Context
			if d := decide(t, s, r, testInputs()); d.Verdict != exeq.Allow {
				t.Fatalf("seed %d: observed %s %s: %s\n%s", seed, a.Action, a.Resource.ID, d.Reason, src.Files[LearnedFile])
			}
		}
	}
}

func TestLearnRefuses(t *testing.T) {
	run := testRequest(exeq.ActionRun, "/bin/sh")
	for name, a := range map[string]exeq.Activity{
		"path":     {Action: "read", Resource: exeq.Resource{Type: "Path", ID: "x"}},
		"endpoint": {Action: "connect", Resource: exeq.Resource{Type: "Endpoint", ID: "x"}},
		"action":   {Action: "fly", Resource: exeq.Resource{Type: "Path", ID: "/x"}},
	} {
		if _, err := Learn([]exeq.Activity{a}, run); err == nil {
			t.Errorf("%s was learned", name)
		}
	}
}
