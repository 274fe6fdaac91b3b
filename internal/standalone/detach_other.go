//go:build !unix

package standalone

import "os/exec"

func detach(*exec.Cmd) {}

func wakeProcess(int) error { return nil }
