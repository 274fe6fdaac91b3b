//go:build linux

package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// testTier is the tier that boxes are made in.
var testTier = exeq.TierRootless

func inNested(t *testing.T) {
	t.Helper()
	testTier = exeq.TierNested
	t.Setenv("TIER", "nested")
	t.Cleanup(func() { testTier = exeq.TierRootless })
}

// What holds in tier rootless holds here, by other means.
func TestNestedAsRootless(t *testing.T) {
	inNested(t)
	for name, test := range map[string]func(*testing.T){
		"Commands": TestCommands, "GoBuildAndRun": TestGoBuildAndRun, "ForbiddenProgram": TestForbiddenProgram,
		"NoExecRight": TestNoExecRight, "LoaderTricks": TestLoaderTricks, "PreloadIsDecided": TestPreloadIsDecided,
		"Shebang": TestShebang, "SwapRaces": TestSwapRaces, "Hidden": TestHidden, "OutsideIsReadOnly": TestOutsideIsReadOnly,
		"KillLeavesNothing": TestKillLeavesNothing, "EndOfCommandEndsItsDescendants": TestEndOfCommandEndsItsDescendants,
		"LeaseLapses": TestLeaseLapses, "RenewalsKeepItAlive": TestRenewalsKeepItAlive,
		"SupervisorKilled": TestSupervisorKilled, "SupervisorStopped": TestSupervisorStopped,
		"SignalsAreForwarded": TestSignalsAreForwarded, "Quotas": TestQuotas,
		"FailedLaunchLeavesNothing": TestFailedLaunchLeavesNothing, "RebuildWhileRunning": TestRebuildWhileRunning,
	} {
		t.Run(name, test)
	}
}

var _ = []any{os.Args, exec.Command, filepath.Join, strings.Cut, unix.SIGTERM}
