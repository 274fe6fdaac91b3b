package attest

import (
	"slices"
	"testing"

	"github.com/exeq/exeq"
)

func good() (*exeq.Applied, *exeq.Evidence, *exeq.Rights) {
	env := func() exeq.Environment {
		return exeq.Environment{BootID: "b", UID: 1000, Namespaces: map[string]string{"mnt": "mnt:[1]", "net": "net:[2]"},
			Mounts: exeq.LeafHash([]byte("m")), Seccomp: "filter", NoNewPrivs: true, Landlock: 7}
	}
	return &exeq.Applied{Tier: exeq.TierRootless, Environment: env()},
		&exeq.Evidence{Environment: env(), Programs: []exeq.Program{{Path: "/bin/true", SHA256: exeq.LeafHash(nil), Intact: true}},
			Supervisor: true, Watchdog: true, Processes: 2, WallMillis: 4999, Session: exeq.Session{Execs: 3, Denials: 1}},
		&exeq.Rights{TierFloor: exeq.TierRootless, Quotas: exeq.Quotas{Processes: 2, Execs: 3, Denials: 1, WallSeconds: 5, OutputBytes: 10}}
}

func TestAppraise(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*exeq.Applied, *exeq.Evidence, *exeq.Rights)
		want   string // "" passes
	}{
		{"good", func(*exeq.Applied, *exeq.Evidence, *exeq.Rights) {}, ""},
		{"fault", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Faults = []string{"proc"} }, "not measured: proc"},
		{"unknown program", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Programs[0].SHA256 = exeq.Digest{} }, "program /bin/true runs and was never decided on"},
		{"swapped program", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Programs[0].Intact = false }, "program /bin/true is no longer the one that was decided on"},
		{"boot", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Environment.BootID = "c" }, "boot id changed"},
		{"no boot id at the start", func(a *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) {
			a.Environment.BootID, e.Environment.BootID = "", ""
		}, "boot id changed"},
		{"uid", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Environment.UID = 0 }, "uid changed from 1000 to 0"},
		{"mounts", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Environment.Mounts = exeq.Digest{} }, "mounts changed"},
		{"namespace", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { delete(e.Environment.Namespaces, "net") }, "net namespace changed"},
		{"seccomp", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Environment.Seccomp = "" }, `seccomp is ""`},
		{"nnp", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Environment.NoNewPrivs = false }, "no_new_privs is off"},
		{"landlock", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Environment.Landlock = 1 }, "Landlock ABI changed from 7 to 1"},
		{"processes", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Processes = 3 }, "quota processes: 3 of 2"},
		{"execs", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Session.Execs = 4 }, "quota execs: 4 of 3"},
		{"denials", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Session.Denials = 2 }, "quota denials: 2 of 1"},
		{"wall", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.WallMillis = 6000 }, "quota wallSeconds: 6 of 5"},
		{"output", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.OutputBytes, e.Session.BytesOut = 6, 5 }, "quota outputBytes: 11 of 10"},
		{"tier", func(a *exeq.Applied, _ *exeq.Evidence, _ *exeq.Rights) { a.Tier = exeq.TierNested }, "tier nested is below the floor rootless"},
		{"supervisor", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Supervisor = false }, "supervisor does not answer"},
		{"watchdog", func(_ *exeq.Applied, e *exeq.Evidence, _ *exeq.Rights) { e.Watchdog = false }, "watchdog does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, e, r := good()
			c.change(a, e, r)
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			if got := (Appraiser{}).Appraise(a, e, r); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
