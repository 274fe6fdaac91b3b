package standalone

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Leave ends the installation's use by a process that is about to end. Where
// something waits for the log it is left to a drainer together with the store.
func (in *Installation) Leave(ctx context.Context) error {
	if !in.Store.Recorded() { // else something waits, unless others were quick
		n, _, err := in.Store.Lag(ctx)
		if err != nil || n == 0 {
			return errors.Join(err, in.Close())
		}
	}
	lock, err := in.Store.Leave()
	if err == nil {
		err = in.drainAfter(lock)
	}
	if err != nil {
		return errors.Join(err, in.Close())
	}
	return nil
}

// LeaveDrainer starts a detached process that puts what was recorded into the
// log and exits when the outbox is empty, so that no run waits for the log. A
// failure loses nothing: the next start drains. While the one before it runs
// there is no other.
func (in *Installation) LeaveDrainer(ctx context.Context) error {
	if in.drainers.Load() > 0 {
		return nil
	}
	if n, _, err := in.Store.Lag(ctx); err != nil || n == 0 {
		return err
	}
	return in.startDrainer()
}

// drainAfter has a drainer begin once this process has ended, where that can be
// had: beside its end it would only take the processor from it.
func (in *Installation) drainAfter(inherited *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	err = startAfter(self, []string{self, "drain", "--state", in.Dir, "--inherits"}, drainerEnv, inherited)
	if errors.Is(err, errors.ErrUnsupported) {
		return in.startDrainer(inherited)
	}
	return err
}

var drainerEnv = []string{"PATH=/usr/bin:/bin"}

func (in *Installation) startDrainer(inherited ...*os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "drain", "--state", in.Dir)
	if cmd.ExtraFiles = inherited; inherited != nil {
		cmd.Args = append(cmd.Args, "--inherits")
	}
	cmd.Dir = "/"
	cmd.Env = drainerEnv
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	// Whoever lives on has its dead to bury; whoever ends does not wait for it.
	in.drainers.Add(1)
	go func() {
		if err := cmd.Wait(); err != nil {
			in.Log.Warn("a drainer did not end well", "err", err)
		}
		in.drainers.Add(-1)
	}()
	return nil
}

// Removed reports whether a state directory is not there any more. What of it
// is written at a path may have come back; its database does not.
func Removed(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "store.db"))
	return errors.Is(err, fs.ErrNotExist)
}
