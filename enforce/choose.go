//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/spawn"
)

// choose prepares the tier that is wanted, or the strongest that works.
func choose(o Options, who identity) (*Enforcer, error) {
	if o.Warden != nil {
		if o.Tier != exeq.TierNone && o.Tier != o.Warden.Tier() {
			return nil, fmt.Errorf("%w: the warden gives tier %s, not %s", exeq.ErrEnforce, o.Warden.Tier(), o.Tier)
		}
		return chooseRootless(o, who)
	}
	switch o.Tier {
	case exeq.TierRootless:
		return chooseRootless(o, who)
	case exeq.TierNested:
		return chooseNested(o, who)
	case exeq.TierNone:
		var err error
		if doubtful() {
			err = tryMounts()
		}
		var e *Enforcer
		if err == nil {
			if e, err = chooseRootless(o, who); err == nil {
				return e, nil
			}
		}
		o.Logger.Info("tier rootless is not to be had", "error", err)
		e, nested := chooseNested(o, who)
		if nested != nil {
			return nil, errors.Join(err, nested)
		}
		return e, nil
	}
	return nil, fmt.Errorf("%w: tier %s is not this program's to offer", exeq.ErrEnforce, o.Tier)
}

func chooseRootless(o Options, who identity) (*Enforcer, error) {
	e, err := prepareRootless(o, who)
	if err != nil {
		return nil, err
	}
	e.tier = exeq.TierRootless
	return e, nil
}

func chooseNested(o Options, who identity) (*Enforcer, error) {
	e, err := prepareNested(o, who)
	if err != nil {
		return nil, fmt.Errorf("%w: nested: %w", exeq.ErrEnforce, err)
	}
	return e, nil
}

// doubtful: namespaces that can be made here may be good for nothing, which
// Prepare would not notice. Elsewhere the time of the trial is saved.
func doubtful() bool {
	if b, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); err == nil && strings.TrimSpace(string(b)) != "0" {
		return true
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], "/proc/") && f[4] != "/proc/sys/fs/binfmt_misc" {
			return true // a container's masks: a new proc would show what they hide
		}
	}
	return false
}

// tryMounts makes the namespaces and mounts proc in them.
func tryMounts() error {
	g, err := spawn.Start(unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWPID, func(g *spawn.Agent, l *spawn.List) {
		m := mounter{l: l}
		m.base(region{write: true})
		m.proc()
	})
	if err == nil {
		err = g.Wait()
		g.Close()
	}
	if err != nil {
		return fmt.Errorf("%w: rootless: namespaces: %w", exeq.ErrEnforce, err)
	}
	return nil
}
