//go:build !unix

package standalone

import "os/exec"

func detach(*exec.Cmd) {}
