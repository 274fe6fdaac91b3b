//go:build unix

package standalone

import (
	"errors"
	"os/exec"
	"syscall"
)

// detach gives cmd a session of its own: the terminal's end is not its end.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// wakeProcess continues a stopped process; one that is gone needs no waking.
func wakeProcess(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
