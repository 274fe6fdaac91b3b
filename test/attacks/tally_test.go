//go:build linux

package attacks

import (
	"fmt"
	"strings"
	"sync"

	"github.com/exeq/exeq"
)

// tally counts what became of the attacks, for the line that the documentation
// quotes.
type tally struct {
	mu    sync.Mutex
	count map[exeq.Tier]map[string]*row
}

// row is one user's in one tier.
type row struct{ tried, limited, unexpected int }

// add counts one attack; an empty outcome is an unexpected one.
func (t *tally) add(tier exeq.Tier, uid int, o Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == nil {
		t.count = map[exeq.Tier]map[string]*row{}
	}
	if t.count[tier] == nil {
		t.count[tier] = map[string]*row{"root": {}, "user": {}}
	}
	r := t.count[tier][names[uid == 0]]
	r.tried++
	switch o {
	case "":
		r.unexpected++
	case Limited:
		r.limited++
	}
}

func (t *tally) line() string {
	total := 0
	for _, f := range Families {
		total += len(f.Attacks)
	}
	parts := []string{fmt.Sprintf("%d attacks", total)}
	for _, tier := range []exeq.Tier{exeq.TierKernel, exeq.TierKernelLite, exeq.TierRootless, exeq.TierNested} {
		if u := t.count[tier]; u != nil {
			root, user := u["root"], u["user"]
			parts = append(parts, fmt.Sprintf("%s: %d as root and %d as a user, %d and %d succeeded by a limit, %d unexpected",
				tier, root.tried, user.tried, root.limited, user.limited, root.unexpected+user.unexpected))
		}
	}
	return strings.Join(parts, "; ")
}
