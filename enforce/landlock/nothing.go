//go:build linux

package landlock

import "golang.org/x/sys/unix"

// Nothing makes a ruleset that handles every file access and grants none.
func Nothing() (ruleset int, err error) {
	abi, err := ABI()
	if err != nil {
		return -1, err
	}
	return createRuleset(&unix.LandlockRulesetAttr{Handled_access_fs: handledFS(abi)})
}
