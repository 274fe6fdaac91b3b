package policy

import (
	"context"
	"slices"
	"testing"

	"github.com/exeq/exeq"
)

// testRequest is a request of agent "dev" in /home/u/app.
func testRequest(action, resource string) *exeq.Request {
	r := &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "dev"},
		Action:  action,
		Context: exeq.Context{Workspace: "/home/u/app", Home: "/home/u", Tmp: "/tmp/exeq-1", Command: "make test"},
	}
	switch action {
	case exeq.ActionRead, exeq.ActionWrite:
		r.Resource = exeq.Resource{Type: "Path", ID: resource}
	case exeq.ActionConnect:
		r.Resource = exeq.Resource{Type: "Endpoint", ID: resource}
	case "call_tool":
		r.Resource = exeq.Resource{Type: "Tool", ID: resource}
	default:
		r.Resource = exeq.Resource{Type: "Program", ID: resource, SHA256: exeq.Digest{1}}
		r.Argv = []string{resource, "-v"}
	}
	return r
}

func testInputs() *exeq.Inputs { return &exeq.Inputs{Tier: exeq.TierRootless} }

func mustLoad(t testing.TB, src *Source) *Set {
	t.Helper()
	s, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cedarSource makes a source of one file.
func cedarSource(text string) *Source {
	return &Source{Version: 1, Files: map[string]string{"test.cedar": text}}
}

func decide(t testing.TB, s *Set, r *exeq.Request, in *exeq.Inputs) exeq.Decision {
	t.Helper()
	d, err := s.Decide(context.Background(), r, in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStarter(t *testing.T) {
	s := mustLoad(t, Starter())
	allowed := map[string][]string{
		exeq.ActionRun:  {"/usr/bin/bash", "/home/u/app/build.sh", "/home/u/.cargo/bin/cargo", "/usr/local/go/bin/go"},
		exeq.ActionExec: {"/usr/bin/git", "/usr/lib/git-core/git-remote-https", "/tmp/exeq-1/go-build1/b001/x.test", "/home/u/go/pkg/mod/golang.org/toolchain/bin/go"},
		exeq.ActionMap:  {"/usr/lib/x86_64-linux-gnu/libc.so.6", "/home/u/app/node_modules/a/a.node"},
		exeq.ActionRead: {"/etc/passwd", "/etc/ssl/certs/ca-certificates.crt", "/home/u/app", "/home/u/app/main.go", "/home/u/.gitconfig",
			"/home/u/go/pkg/mod/x/y.go", "/dev/urandom", "/proc/self/status", "/home/u/app/.git/config", "/home/u/app/.envrc"},
		exeq.ActionWrite: {"/home/u/app/main.go", "/home/u/app/Makefile", "/home/u/app/.git/index", "/home/u/app/.github/workflows/ci.yml",
			"/home/u/app/.pre-commit-config.yaml", "/home/u/app/lefthook.yml", "/home/u/app/package.json", "/home/u/app/.claude/skills/s/SKILL.md",
			"/home/u/app/.roo/rules/x.md", "/home/u/app/.windsurf/rules/x.md", "/home/u/app/.opencode/command/x.md",
			"/tmp/exeq-1/x", "/dev/null", "/home/u/.cache/go-build/00/x", "/home/u/.npm/_cacache/x"},
	}
	denied := map[string][]string{
		exeq.ActionRun:  {"/home/u/other/x", "/var/tmp/x"},
		exeq.ActionExec: {"/dev/shm/x", "/home/u/Downloads/x", "/tmp/x"},
		exeq.ActionRead: {"/etc/shadow", "/etc/ssh/ssh_host_rsa_key", "/home/u/.ssh/id_ed25519", "/home/u/.aws/credentials", "/home/u/.gnupg/x",
			"/home/u/.netrc", "/home/u/.config/gh/hosts.yml", "/home/u/.mozilla/firefox/x", "/home/u/app/.env", "/home/u/.npmrc", "/root/x",
			"/home/u/.cargo/credentials.toml", "/home/other/x", "/var/run/docker.sock", "/run/docker.sock", "/home/u"},
		exeq.ActionWrite: {"/home/u/app/.git/hooks/pre-commit", "/home/u/app/.git/config", "/home/u/app/.git/commondir", "/home/u/app/.gitconfig", "/home/u/.local/state/exeq/policy/x", "/home/u/app/.envrc", "/home/u/app/.vscode/tasks.json",
			"/home/u/app/.husky/pre-commit", "/home/u/app/.claude/settings.json", "/home/u/app/.claude/settings.local.json", "/home/u/app/.mcp.json",
			"/home/u/app/.devcontainer.json", "/home/u/app/.devcontainer/devcontainer.json", "/home/u/app/.zed/tasks.json", "/home/u/app/.aider.conf.yml", "/home/u/app/opencode.json",
			"/home/u/app/opencode.jsonc", "/home/u/app/.opencode/plugin/x.ts", "/home/u/app/.opencode/plugins/x.ts", "/home/u/app/.roo/mcp.json", "/home/u/app/.windsurf/hooks.json",
			"/home/u/.bashrc", "/home/u/.profile", "/usr/bin/x", "/etc/passwd", "/proc/sys/kernel/core_pattern", "/home/u/go/bin/x", "/home/u/.cargo/bin/cargo", "/"},
		exeq.ActionConnect: {"example.com:443", "169.254.169.254:80", "127.0.0.1:8080", "[::1]:80"},
	}
	check := func(table map[string][]string, want exeq.Verdict) {
		for action, list := range table {
			for _, id := range list {
				d := decide(t, s, testRequest(action, id), testInputs())
				if d.Verdict != want {
					t.Errorf("%s %s: %s %v, want %s (%s)", action, id, d.Verdict, d.Policies, want, d.Reason)
				}
				if !d.Static {
					t.Errorf("%s %s: not static: nothing in the starter looks at the session", action, id)
				}
			}
		}
	}
	check(allowed, exeq.Allow)
	check(denied, exeq.Deny)
}

// A workspace that is the home directory or the root opens neither secrets nor
// start-up files.
func TestStarterWideWorkspace(t *testing.T) {
	s := mustLoad(t, Starter())
	for _, ws := range []string{"/home/u", "/"} {
		for action, ids := range map[string][]string{
			exeq.ActionRead:  {"/home/u/.local/state/exeq/keys/issuer", "/home/u/.ssh/id_rsa", "/etc/shadow", "/home/u/.aws/credentials"},
			exeq.ActionWrite: {"/home/u/.bashrc", "/home/u/.ssh/authorized_keys", "/etc/passwd", "/usr/bin/x", "/home/u/.config/systemd/user/x.service"},
		} {
			for _, id := range ids {
				r := testRequest(action, id)
				r.Context.Workspace = ws
				if d := decide(t, s, r, testInputs()); d.Verdict != exeq.Deny {
					t.Errorf("workspace %s: %s %s: %s by %v", ws, action, id, d.Verdict, d.Policies)
				}
			}
		}
	}
}

func TestStarterCompiles(t *testing.T) {
	s := mustLoad(t, Starter())
	r := testRequest(exeq.ActionRun, "/usr/bin/make")
	d := decide(t, s, r, testInputs())
	rights, err := s.Compile(context.Background(), r, testInputs(), d)
	if err != nil {
		t.Fatal(err)
	}
	if len(rights.Endpoints) != 0 {
		t.Errorf("endpoints %v, want none", rights.Endpoints)
	}
	for p, want := range map[string]exeq.Access{
		"/usr/bin/git":                  {Read: true, Exec: exeq.ExecAll},
		"/home/u/app/x":                 {Read: true, Write: true, Exec: exeq.ExecAsk},
		"/home/u/app/.git/hooks/x":      {Read: true, Exec: exeq.ExecAll},
		"/home/u/app/.env":              {Exec: exeq.ExecAsk},
		"/home/u/.ssh/id_rsa":           {},
		"/home/u/.cargo/bin/cargo":      {Read: true, Exec: exeq.ExecAll},
		"/home/u/.cargo/credentials":    {Exec: exeq.ExecAsk},
		"/etc/shadow":                   {},
		"/etc/hosts":                    {Read: true},
		"/dev/null":                     {Read: true, Write: true},
		"/proc/sys/kernel/core_pattern": {Read: true},
	} {
		if got := rights.Lookup(p); !sameAccess(got, want) {
			t.Errorf("%s: %+v, want %+v", p, got, want)
		}
	}
	b, _ := rights.Canonical()
	t.Logf("%d cells, %d bytes", len(rights.Cells), len(b))
}

// What is cut from the text is what the parsed rules name.
func TestStarterHomeNames(t *testing.T) {
	for id, got := range map[string][]string{"no-home-secrets": HomeSecrets(), "no-home-startup": HomeStartup()} {
		var want []string
		for _, u := range starterPlaces([]string{id}) {
			want = append(want, string(u.ID))
		}
		slices.Sort(got)
		slices.Sort(want)
		if len(got) < 20 || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}
