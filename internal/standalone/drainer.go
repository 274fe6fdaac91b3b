package standalone

import (
	"context"
	"os"
	"os/exec"
)

// LeaveDrainer starts a detached process that puts what was recorded into the
// log and exits when the outbox is empty, so that no run waits for the log. A
// failure loses nothing: the next start drains.
func (in *Installation) LeaveDrainer(ctx context.Context) error {
	if n, _, err := in.Store.Lag(ctx); err != nil || n == 0 {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "drain", "--state", in.Dir)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
