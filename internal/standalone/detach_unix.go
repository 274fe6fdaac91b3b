//go:build unix

package standalone

import (
	"os/exec"
	"syscall"
)

// detach gives cmd a session of its own: the terminal's end is not its end.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
