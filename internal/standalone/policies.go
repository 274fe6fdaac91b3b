package standalone

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/policy"
)

// policies is the exeq.PolicySource of one installation: a directory or file
// that is read again when it changes. A set becomes active only when it
// validates and its activation is on record.
type policies struct {
	path     string
	fixed    *policy.Set // whatever path says
	activate func(context.Context, *policy.Set) error
	say      func(string)

	// ahead waits for a set that was read before anybody asked, with the stamp
	// of its files before that; nil: none.
	ahead func() (string, *policy.Set)

	mu     sync.Mutex
	stamp  string
	active *policy.Set
}

// readAhead begins to read the set. What it read is used only if the files
// then still stand as they did before; its errors come up again in Active.
func (p *policies) readAhead() {
	if p.fixed != nil {
		return
	}
	p.ahead = sync.OnceValues(func() (string, *policy.Set) {
		stamp, err := stampOf(p.path)
		if err != nil {
			return "", nil
		}
		set, err := policy.LoadDir(p.path)
		if err != nil {
			return "", nil
		}
		return stamp, set
	})
	go p.ahead()
}

// load gives the set as it stands at stamp.
func (p *policies) load(stamp string) (*policy.Set, error) {
	if p.ahead != nil {
		at, set := p.ahead()
		p.ahead = nil
		if set != nil && at == stamp {
			return set, nil
		}
	}
	return policy.LoadDir(p.path)
}

// Active implements exeq.PolicySource. A candidate that does not validate is
// said once and leaves the active set in force.
func (p *policies) Active(ctx context.Context) (exeq.Decider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stamp, err := "fixed", error(nil)
	if p.fixed == nil {
		stamp, err = stampOf(p.path)
	}
	if err == nil && stamp == p.stamp && p.active != nil {
		return p.active, nil
	}
	set := p.fixed
	if err == nil && set == nil {
		set, err = p.load(stamp)
	}
	if err == nil && (p.active == nil || set.PolicySet() != p.active.PolicySet()) {
		err = p.activate(ctx, set)
	}
	switch {
	case err == nil:
		p.stamp, p.active = stamp, set
	case p.active == nil:
		return nil, err
	case stamp != p.stamp:
		p.stamp = stamp
		p.say(fmt.Sprintf("the policy in %s does not validate and does not become active: %v", p.path, err))
	}
	return p.active, nil
}

// stampOf changes when any file of the set does.
func stampOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	note := func(name string, info fs.FileInfo) {
		fmt.Fprintf(&b, "%q %d %d %s\n", name, info.Size(), info.ModTime().UnixNano(), osfile.ChangeOf(info))
	}
	if !info.IsDir() {
		note("", info)
		return b.String(), nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(path, e.Name()))
		if err != nil {
			return "", err
		}
		note(e.Name(), info)
	}
	return b.String(), nil
}
